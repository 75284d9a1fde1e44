"""Loads the recorded outputs of the original code, and its recorded checkpoints as models of this package."""

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
    """Returns the tensors of one recorded file."""
    return load_file(ROOT / folder / f"{name}.safetensors")


def described(folder: str, name: str):
    """Returns the content of the JSON file of a recording."""
    return json.loads((ROOT / folder / f"{name}.json").read_text())


def picture(folder: str, name: str) -> Image.Image:
    """Opens one of the images that were given to the original."""
    return Image.open(ROOT / folder / name)


@cache
def release(folder: str) -> tuple[VilaUForConditionalGeneration, VilaUProcessor]:
    """Loads the recorded checkpoint. The result is shared by all tests, so no test may change it."""
    source = ROOT / folder / "checkpoint"
    return VilaUForConditionalGeneration.from_original(source).eval(), VilaUProcessor.from_original(source)
