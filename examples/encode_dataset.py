"""
Encodes the images and videos of a dataset once, then makes batches of their codes. It takes a minute on a CPU.

python examples/encode_dataset.py --out encoded

A batch of codes has the same loss as the batch of pixels, and training from codes does not run the vision tower. To
encode another dataset, on any number of GPUs, use the command `accelerate launch -m vilau_hf.cli encode DATASET OUT`.
"""

import argparse
import time

import torch
from transformers.utils import logging

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.data import PackedDataset, RecordPacker, VilaUDataCollator, encode_dataset, load_encoded
from vilau_hf.drawn import drawn_shapes


parser = argparse.ArgumentParser()
parser.add_argument("--model", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
parser.add_argument(
    "--out", default="encoded", help="folder of the codes: new, or of an interrupted run (default: %(default)s)"
)
parser.add_argument("--samples", type=int, default=500, help="number of drawn shapes (default: %(default)s)")
args = parser.parse_args()
logging.set_verbosity_error()

model = VilaUForConditionalGeneration.from_pretrained(args.model).eval()
processor = VilaUProcessor.from_pretrained(args.model)
dataset = drawn_shapes(num_samples=args.samples)
report = encode_dataset(dataset, args.out, model, processor)
print(
    f"{report.num_images} images and frames, {report.images_per_second:.0f} images/s, "
    f"{report.bytes_per_image:.0f} bytes an image with its text"
)

encoded = load_encoded(args.out, model, processor)  # raises an error for codes of another tower
collator = VilaUDataCollator(processor, unconditional_probability=0)
for name, records in (("pixels", dataset), ("codes", encoded)):
    started = time.perf_counter()
    batch = collator([records[index] for index in range(32)])
    with torch.no_grad():
        loss = model(**batch).loss
    print(f"32 records as {name}: loss {loss:.6f} in {time.perf_counter() - started:.2f} s")

packed = PackedDataset(encoded, RecordPacker(processor, max_length=1024))
print(f"{len(encoded)} records are {len(packed)} rows of 1024 tokens, {packed.fill:.0%} full")
