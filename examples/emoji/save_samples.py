"""Saves the real images that the demo shows: some concepts with a held-out style, in all four styles.

    python examples/emoji/save_samples.py --records emoji-records --out src/vilau_hf/emoji/samples

The concepts are chosen by a hash of their names, not by how well the model draws them.
"""

import argparse
import hashlib
import io
from pathlib import Path

from datasets import load_dataset
from PIL import Image

from vilau_hf.data import write_records
from vilau_hf.emoji.dataset import load_emoji
from vilau_hf.emoji.images import shrink
from vilau_hf.emoji.packages import STYLES
from vilau_hf.emoji.records import emoji_features


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--records", type=Path, required=True, help="folder of `vilau records emoji`")
parser.add_argument("--out", type=Path, required=True, help="output folder")
parser.add_argument("--concepts", type=int, default=24, help="number of concepts (default: %(default)s)")
parser.add_argument("--size", type=int, default=64, help="side of the images in pixels (default: %(default)s)")
args = parser.parse_args()

held_out = {one.concept.key for one in load_emoji(args.records, args.size, "pairs")}
records = load_dataset(str(args.records), split="train")
rows: dict[str, dict[str, int]] = {}
for row, (key, style) in enumerate(zip(records["concept"], records["style"], strict=True)):
    if key in held_out and style in STYLES:
        rows.setdefault(key, {})[style] = row
complete = [key for key, styles in rows.items() if len(styles) == len(STYLES)]
chosen = sorted(complete, key=lambda key: hashlib.sha256(f"vilau emoji sample {key}".encode()).digest())


def samples():
    """Yields the records of the chosen concepts, with smaller images."""
    for key in chosen[: args.concepts]:
        for style in STYLES:
            record = records[rows[key][style]]
            with Image.open(io.BytesIO(record["images"][0]["bytes"])) as image:
                buffer = io.BytesIO()
                shrink(image, args.size).save(buffer, "PNG", optimize=True)
            yield {**record, "images": [{"path": None, "bytes": buffer.getvalue()}]}


write_records(samples(), args.out, features=emoji_features())
