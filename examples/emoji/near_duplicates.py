"""Measures which emoji look alike, and shows the pairs closest to each other across the split.

    vilau records emoji emoji-records
    python examples/emoji/near_duplicates.py --records emoji-records --out near-duplicates

The distance of two images of a style is the root mean square between their 16 x 16 pixels on gray, with alpha as the
fourth channel. Concepts that are closer than `--threshold` in two styles or more belong to one family, and the split
holds a family out as a whole. The command prints the families that `vilau_hf.emoji.split.FAMILIES` lacks. It saves
`closest.png` and `closest.json`: pairs of a held-out image and an image of training in the same style.
"""

import argparse
import io
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import load_dataset
from PIL import Image, ImageDraw

from vilau_hf.emoji.concepts import Concept
from vilau_hf.emoji.dataset import compose, concept_of
from vilau_hf.emoji.images import shrink
from vilau_hf.emoji.packages import STYLES
from vilau_hf.emoji.split import FAMILIES, family_of, is_taught, split_of


SIDE = 64  # pixels of the images on the sheet
CELLS = 16  # pixels a side of the images that are compared
UNTESTED_GROUP = "Flags"  # no model learns flags, and many of them differ in small details only

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--records", type=Path, required=True, help="folder of `vilau records emoji`")
parser.add_argument("--out", type=Path, default=Path("near-duplicates"), help="folder (default: %(default)s)")
parser.add_argument("--threshold", type=float, default=0.075, help="largest distance in a family (default: 0.075)")
parser.add_argument("--pairs", type=int, default=24, help="pairs on the sheet (default: %(default)s)")
args = parser.parse_args()


@dataclass(frozen=True)
class Pair:
    """Two concepts in one style, with their distance."""

    style: str
    first: Concept
    second: Concept
    distance: float


def read_images() -> dict[str, dict[Concept, np.ndarray]]:
    """Returns RGBA images `(S, S, 4)` by style and concept."""
    records = load_dataset(str(args.records), split="train").remove_columns(["videos", "messages"])
    styles = records["style"]
    images = {style: {} for style in STYLES}
    for record in records.select([row for row, style in enumerate(styles) if style in STYLES]):
        concept = concept_of(record)
        if concept.group != UNTESTED_GROUP:
            with Image.open(io.BytesIO(record["images"][0]["bytes"])) as image:
                images[record["style"]][concept] = np.array(shrink(image, SIDE))
    return images


def descriptors(images: list[np.ndarray]) -> np.ndarray:
    """Returns premultiplied colours on gray, and alpha at half weight, of `CELLS` x `CELLS` cells: `(N, C)`."""
    rgba = np.stack(images).astype(np.float32) / 255
    alpha = rgba[..., 3:]
    channels = np.concatenate([rgba[..., :3] * alpha + 0.5 * (1 - alpha), alpha * 0.5], -1)
    step = SIDE // CELLS
    cells = channels.reshape(len(images), CELLS, step, CELLS, step, 4).mean((2, 4))
    return cells.reshape(len(images), -1)


def distances(values: np.ndarray) -> np.ndarray:
    """Returns the root mean square distance `(N, N)` of each two rows."""
    squares = (values**2).sum(1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * values @ values.T, 0) / values.shape[1])


def is_held_out(concept: Concept, style: str) -> bool:
    split = split_of(concept)
    return split.is_concept or style in split.styles


def families(pairs: list[Pair]) -> list[list[str]]:
    """Returns names that are connected by pairs that are close in two styles or more."""
    # As sets: the packages list the concepts in different orders.
    counts = Counter(frozenset((pair.first.name, pair.second.name)) for pair in pairs)
    parent = {}

    def root(name: str) -> str:
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    for (first, second), count in counts.items():
        if count >= 2:
            parent.setdefault(first, first)
            parent.setdefault(second, second)
            parent[root(first)] = root(second)
    groups = defaultdict(list)
    for name in parent:
        groups[root(name)].append(name)
    return sorted(sorted(group) for group in groups.values())


def draw_sheet(pairs: list[Pair], images: dict[str, dict[Concept, np.ndarray]]) -> Image.Image:
    """Draws each pair, the held-out image on the left, with names, style and distance below."""
    columns = 4
    width = 250
    height = SIDE + 46
    sheet = Image.new("RGB", (columns * width, -(-len(pairs) // columns) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, pair in enumerate(pairs):
        left = index % columns * width
        top = index // columns * height
        for offset, concept in ((50, pair.first), (136, pair.second)):
            image = compose(images[pair.style][concept], "white")
            sheet.paste(Image.fromarray(image), (left + offset, top + 4))
        lines = (f"held out: {pair.first.name}", f"training: {pair.second.name}", f"{pair.style}, {pair.distance:.3f}")
        for row, line in enumerate(lines):
            pen.text((left + 6, top + SIDE + 6 + 12 * row), line[:42].replace("’", "'"), "black")
    return sheet


images = read_images()
close = []
straddling = []
for style, by_concept in images.items():
    concepts = list(by_concept)
    matrix = distances(descriptors(list(by_concept.values())))
    for first, second in zip(*np.where(np.triu(matrix < args.threshold, 1)), strict=True):
        close.append(Pair(style, concepts[first], concepts[second], float(matrix[first, second])))
    held_out = [row for row, one in enumerate(concepts) if is_taught(one) and is_held_out(one, style)]
    training = [row for row, one in enumerate(concepts) if is_taught(one) and not is_held_out(one, style)]
    for row in held_out:
        column = min(training, key=lambda other: matrix[row, other])
        straddling.append(Pair(style, concepts[row], concepts[column], float(matrix[row, column])))

in_table = {name for family in FAMILIES for name in family}
print(f"{len(close)} pairs of a style are closer than {args.threshold}")
found = families(close)
print(f"{len(found)} families of concepts that are close in two styles or more")
lacking = [names for names in found if len({family_of(name) for name in names}) > 1]
print(f"{len(lacking)} of them are not in one family of the table; * marks those that straddle the split")
concept_of_name = {concept.name: concept for by_concept in images.values() for concept in by_concept}
for names in lacking:
    splits = {split_of(concept_of_name[name]) for name in names if is_taught(concept_of_name[name])}
    print(f"  {'*' if len(splits) > 1 else ' '} {', '.join(names)}")
unfounded = sorted(in_table - {name for names in found for name in names})
print(f"{len(unfounded)} names of the table are close to no other: {', '.join(unfounded) or 'none'}")

straddling.sort(key=lambda pair: pair.distance)
values = [pair.distance for pair in straddling]
print(f"{len(straddling)} held-out images; distance to the nearest image of training in the same style:")
print(f"  smallest {values[0]:.3f}, 5 % below {np.quantile(values, 0.05):.3f}, median {np.median(values):.3f}")
print(f"  {sum(value < args.threshold for value in values)} below {args.threshold}")
for pair in straddling[: args.pairs]:
    print(f"  {pair.distance:.3f}  {pair.style:<8} {pair.first.name} (held out), {pair.second.name} (training)")
args.out.mkdir(parents=True, exist_ok=True)
draw_sheet(straddling[: args.pairs], images).quantize(128).save(args.out / "closest.png", optimize=True)
rows = [
    {"distance": round(one.distance, 4), "style": one.style, "held_out": one.first.name, "training": one.second.name}
    for one in straddling
]
(args.out / "closest.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
