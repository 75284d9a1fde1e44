"""Training loops of users: DDP and accelerate with their defaults, in two processes, and TRL's way to load by path."""

import os

import pytest
import torch
import transformers
from accelerate import Accelerator
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoConfig, AutoModelForMultimodalLM

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration

from ..processes import run_in_two_processes


def batch_of(rank, model):
    """Returns an image to draw for rank 0, and text alone for rank 1: not every rank uses every module."""
    config = model.config
    generator = torch.Generator().manual_seed(rank)
    words = torch.randint(10, 40, (1, 5), generator=generator)
    if rank:
        return {"input_ids": words, "labels": words}
    count = config.vision_config.num_visual_tokens
    image = torch.full((1, count), config.image_token_id)
    start, end = torch.tensor([[config.image_start_token_id]]), torch.tensor([[config.image_end_token_id]])
    ids = torch.cat([words, start, image, end], dim=1)
    side = config.vision_config.image_size
    pixels = torch.rand(1, 3, side, side, generator=generator) * 2 - 1
    return {"input_ids": ids, "labels": ids, "pixel_values": pixels}


def take_steps(wrapped, model, optimizer, backward, rank):
    """Takes three steps with weight decay, which changes every parameter that the optimizer has."""
    wrapped.train()
    for _ in range(3):
        loss = wrapped(**batch_of(rank, model)).loss
        backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def train_with_ddp(rank):
    model = AutoModelForMultimodalLM.from_pretrained(TINY_CHECKPOINT)
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    return take_steps(wrapped, model, optimizer, lambda loss: loss.backward(), rank)


def train_with_accelerate(rank):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="0")
    accelerator = Accelerator(cpu=True)
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    assert isinstance(wrapped, DistributedDataParallel)
    return take_steps(wrapped, model, optimizer, accelerator.backward, rank)


def train_both_ways(rank):
    return [train_with_ddp(rank), train_with_accelerate(rank)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_in_two_processes(train_both_ways, tmp_path_factory.mktemp("two") / "results")


@pytest.mark.parametrize("way", [0, 1], ids=["ddp", "accelerate"])
def test_a_loaded_model_trains_in_two_processes_and_keeps_its_codes(results, way):
    first, second = (result[way] for result in results)
    before = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).state_dict()
    for name, weight in before.items():
        assert torch.equal(first[name], second[name]), name
        if "vision_tower." in name:
            assert torch.equal(first[name], weight), name
    assert not torch.equal(first["lm_head.weight"], before["lm_head.weight"])


def test_the_library_has_the_class_that_the_configuration_names():
    """TRL's trainers find the class of a path this way: `getattr(transformers, config.architectures[0])`."""
    (name,) = AutoConfig.from_pretrained(TINY_CHECKPOINT).architectures
    assert getattr(transformers, name) is VilaUForConditionalGeneration


def test_trl_loads_a_model_by_its_path():
    trl = pytest.importorskip("trl.trainer.utils")
    model = trl.create_model_from_path(TINY_CHECKPOINT)
    assert isinstance(model, VilaUForConditionalGeneration)
