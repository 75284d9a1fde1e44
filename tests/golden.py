"""Recorded outputs of the original code, and its recorded checkpoints as ours."""

import json
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from vilau_hf import VilaUForConditionalGeneration, VilaUProcessor


FOLDERS = ("tiny-256", "tiny-384")
ROOT = Path(__file__).parent / "fixtures" / "golden"


def recording(folder: str, name: str) -> dict[str, torch.Tensor]:
    """Tensors of one recorded file."""
    return load_file(ROOT / folder / f"{name}.safetensors")


def described(folder: str, name: str):
    """The JSON file that goes with a recording."""
    return json.loads((ROOT / folder / f"{name}.json").read_text())


def picture(folder: str, name: str) -> Image.Image:
    """A source picture."""
    return Image.open(ROOT / folder / name)


@cache
def release(folder: str) -> tuple[VilaUForConditionalGeneration, VilaUProcessor]:
    """The recorded checkpoint in our classes; tests must leave it as it is."""
    source = ROOT / folder / "checkpoint"
    return VilaUForConditionalGeneration.from_original(source).eval(), VilaUProcessor.from_original(source)
