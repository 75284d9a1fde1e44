"""
Encodes the images and videos of a dataset on a Ray cluster, like `vilau encode` in the processes of one launch.

python examples/encode_with_ray.py --out encoded

CPU tasks read the records and prepare their pixels. Actors with the vision tower encode the pixels and write the
shards. After an interruption, the same command encodes the missing shards. All machines of the cluster must see the
folder `encoded`. `load_encoded` loads its records for training.
"""

import argparse
import json
import time

import ray
import torch
from transformers.utils import logging

from vilau_hf import TINY_CHECKPOINT, VilaUProcessor
from vilau_hf.data.code_cache import attach_codes, encode_pixels, prepare_records
from vilau_hf.data.code_shards import CodeShards
from vilau_hf.data.tower_fingerprint import describe_tower
from vilau_hf.drawn import drawn_shapes
from vilau_hf.loading import load_vision_tower


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="encoded", help="folder of the codes (default: %(default)s)")
parser.add_argument("--model", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
parser.add_argument("--samples", type=int, default=200, help="number of drawn shapes (default: %(default)s)")
parser.add_argument(
    "--shard-size", type=int, default=50, help="records of a shard, which one task reads (default: %(default)s)"
)
parser.add_argument("--batch-size", type=int, default=64, help="images encoded at once (default: %(default)s)")
parser.add_argument(
    "--actors",
    type=int,
    default=1,
    help="number of actors, each with a tower and a GPU if there are any (default: %(default)s)",
)
args = parser.parse_args()
logging.set_verbosity_error()

dataset = drawn_shapes(num_samples=args.samples)
processor = VilaUProcessor.from_pretrained(args.model)
tower = describe_tower(load_vision_tower(args.model), processor)
shards = CodeShards(args.out, tower, len(dataset), args.shard_size)
shards.folder = shards.folder.resolve()  # Ray workers have another working directory
shards.begin()


def read_shard(row):
    indices = shards.record_range(row["shard"])
    records, pixels = prepare_records(dataset, indices.start, indices.stop, processor)
    return {"shard": row["shard"], "records": json.dumps(records), "pixels": pixels.numpy()}


class Encoder:
    def __init__(self):
        self.tower = load_vision_tower(args.model).to("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, row):
        codes = encode_pixels(torch.tensor(row["pixels"]), self.tower, args.batch_size)
        size = shards.write(row["shard"], attach_codes(json.loads(row["records"]), codes))
        return {"images": len(codes), "bytes": size}


ray.init(log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
started, missing, written = time.perf_counter(), shards.missing(), []
if missing:
    pixels = ray.data.from_items([{"shard": shard} for shard in missing]).map(read_shard)
    num_gpus = 1 if ray.cluster_resources().get("GPU") else 0
    written = pixels.map(Encoder, compute=ray.data.ActorPoolStrategy(size=args.actors), num_gpus=num_gpus).take_all()
shards.finish()
seconds = time.perf_counter() - started
images, size = (sum(row[name] for row in written) for name in ("images", "bytes"))
print(f"{images} images, {images / seconds:.0f} images/s, {size / max(1, images):.0f} bytes an image with its text")
print(f"{shards.folder} is complete: {len(dataset)} records")
