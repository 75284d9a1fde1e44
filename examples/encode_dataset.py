"""Encodes the pictures and videos of a dataset once, then makes batches of their codes: in a minute on a CPU.

python examples/encode_dataset.py --out encoded

A batch of codes has the loss of the batch of pixels, and training from it runs without the vision tower. The command
for datasets of one's own, on any number of GPUs: `accelerate launch -m vilau_hf.cli encode DATASET OUT`.
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
parser.add_argument("--out", default="encoded", help="folder, new or of an interrupted run")
parser.add_argument("--samples", type=int, default=500)
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

encoded = load_encoded(args.out, model, processor)  # refuses the codes of another tower
collator = VilaUDataCollator(processor, unconditional_probability=0)
for name, records in (("pixels", dataset), ("codes", encoded)):
    started = time.perf_counter()
    batch = collator([records[index] for index in range(32)])
    with torch.no_grad():
        loss = model(**batch).loss
    print(f"32 records as {name}: loss {loss:.6f} in {time.perf_counter() - started:.2f} s")

packed = PackedDataset(encoded, RecordPacker(processor, max_length=1024))
print(f"{len(encoded)} records are {len(packed)} rows of 1024 tokens, {packed.fill:.0%} full")
