"""Fixtures of the training tests: data at tiny size, and random weights of a metric network."""

import json

import pytest
import torch
import yaml
from PIL import Image
from torchvision import models

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.data import encode_dataset
from vilau_hf.drawn import drawn_shapes


@pytest.fixture
def squeeze_weights(tmp_path):
    """Sets an empty folder of torch.hub, with random weights of LPIPS's smallest network."""
    before = torch.hub.get_dir()
    folder = tmp_path / "hub"
    (folder / "checkpoints").mkdir(parents=True)
    name = models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    torch.manual_seed(5)
    torch.save(models.squeezenet1_1().state_dict(), folder / "checkpoints" / name)
    torch.hub.set_dir(folder)
    yield folder
    torch.hub.set_dir(before)


@pytest.fixture
def records(tmp_path):
    """Writes conversations in LLaVA's format about images of one colour, and a mixture of them."""
    (tmp_path / "images").mkdir()
    rows = []
    for index, color in enumerate(["red", "green", "blue", "yellow"] * 3):
        Image.new("RGB", (40, 30), color).save(tmp_path / "images" / f"{index}.png")
        turns = [{"from": "human", "value": "<image>\nwhat color is it?"}, {"from": "gpt", "value": color}]
        rows.append({"id": str(index), "image": f"{index}.png", "conversations": turns})
    (tmp_path / "chats.json").write_text(json.dumps(rows))
    source = {"name": "chats", "format": "llava", "source": str(tmp_path / "chats.json")}
    source["options"] = {"media_folder": str(tmp_path / "images")}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": [source]}))
    return tmp_path


@pytest.fixture
def encoded(tmp_path):
    """Writes a folder with the codes of 24 drawn shapes."""
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    encode_dataset(drawn_shapes(num_samples=24), tmp_path / "encoded", model, processor)
    return tmp_path / "encoded"
