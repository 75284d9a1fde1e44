"""Two processes with half of the batch each train like one process with the whole batch."""

import os

import pytest
import torch
from torch import nn
from transformers import SiglipConfig, SiglipModel

from vilau_hf import VilaUResidualQuantizer, VilaUVisionConfig, VilaUVisionTowerForPreTraining
from vilau_hf.modeling.losses_vilau import contrastive_loss
from vilau_hf.training import VisionTowerEvaluationCallback, VisionTowerTrainer, VisionTowerTrainingArguments

from ..conftest import TEXT_TOWER, VISION
from ..processes import run_in_two_processes
from .towers import random_batch, tower_config


pytestmark = pytest.mark.slow

QUANTIZERS = [(kind, shared) for kind in ("random", "kmeans") for shared in (True, False)]


def half(tensor, rank):
    """Returns the half of a batch of a rank, or the whole batch for the rank `None`."""
    return tensor if rank is None else tensor.chunk(2)[rank]


class RestartCounter(VilaUResidualQuantizer):
    restarts = 0

    def _restart(self, residuals):
        self.restarts += int((self.cluster_size < 1).sum())
        super()._restart(residuals)


def train_quantizer(rank, kind, shared):
    """Trains on features that move away, so that some codes are not used; the ranks have 3 and 5 images."""
    torch.manual_seed(0)
    sizes = {**VISION, "codebook_size": 32, "codebook_initialization": kind, "shared_codebook": shared}
    quantizer = RestartCounter(VilaUVisionConfig(**sizes, codebook_decay=0.1)).train()
    for step in range(4):
        features = torch.randn(8, 8, 32, generator=torch.Generator().manual_seed(step)) + step
        quantizer(features if rank is None else features.split([3, 5])[rank])
    return {**quantizer.state_dict(), "restarts": torch.tensor(quantizer.restarts)}


def contrast(rank, kind):
    generator = torch.Generator().manual_seed(1)
    images, texts = (torch.randn(6, 8, generator=generator) for _ in range(2))
    encoders = [nn.Parameter(torch.randn(8, 8, generator=generator)) for _ in range(2)]
    scale, bias = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([-1.0]))
    embeds = [
        nn.functional.normalize(half(inputs, rank) @ encoder, dim=-1)
        for inputs, encoder in zip((images, texts), encoders, strict=True)
    ]
    loss = contrastive_loss(kind, *embeds, scale, bias, across_ranks=True)
    parameters = [*encoders, scale, bias] if kind == "sigmoid" else [*encoders, scale]
    return [loss.detach(), *torch.autograd.grad(loss, parameters)]


class Samples(torch.utils.data.Dataset):
    def __init__(self, side):
        self.batch = random_batch(16)
        self.batch["pixel_values"] = self.batch["pixel_values"][:, :, :side, :side]

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.batch.items()}


def collate(records):
    batch = {name: torch.stack([record[name] for record in records]) for name in records[0]}
    return {**batch, "return_loss": True}


def train(rank, folder, model, side, **kwargs):
    arguments = VisionTowerTrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=8 if rank is None else 4,
        max_steps=2,
        learning_rate=0.05,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        # one process reads 8 records in a row, and two processes read 4 each in turns
        train_sampling_strategy="sequential",
        **kwargs,
    )
    data = Samples(side)
    trainer = VisionTowerTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=torch.utils.data.Subset(data, range(15)),
        data_collator=collate,
    )
    trainer.train()
    scores = VisionTowerEvaluationCallback(trainer).score(trainer.tower) if trainer.has_codes else {}
    logs = [
        {name: value for name, value in log.items() if "loss" in name or "codebook" in name}
        for log in trainer.state.log_history[:2]
    ]
    return {"weights": trainer.tower.state_dict(), "logs": logs, "scores": scores}


def train_tower(rank, folder):
    torch.manual_seed(0)
    tower = VilaUVisionTowerForPreTraining(tower_config(code_depth=2))
    return train(rank, folder, tower, 32)


def train_reconstruction(rank, folder):
    """Trains without the contrastive loss: then some sub-models have no gradients."""
    torch.manual_seed(0)
    tower = VilaUVisionTowerForPreTraining(tower_config(code_depth=2, contrastive_loss_weight=0.0))
    return train(rank, folder, tower, 32, activation_checkpointing=True)


def train_with_discriminator(rank, folder):
    """Trains with a discriminator that has no gradients before the second step."""
    torch.manual_seed(0)
    tower = VilaUVisionTowerForPreTraining(tower_config(code_depth=2))
    adversarial = {"adversarial_loss_weight": 0.5, "adversarial_start_step": 1}
    sizes = {"discriminator_channels": 4, "discriminator_num_layers": 2, "activation_checkpointing": True}
    return train(rank, folder, tower, 32, **adversarial, **sizes)


def train_siglip(rank, folder):
    torch.manual_seed(0)
    siglip = SiglipModel(SiglipConfig(vision_config=VISION["encoder_config"], text_config=TEXT_TOWER))
    return train(rank, folder, siglip, 16)


def everything(rank, folder):
    if rank is not None:  # as a launcher does
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="0"
        )
    return {
        "quantizers": [train_quantizer(rank, *kind) for kind in QUANTIZERS],
        "contrasts": [contrast(rank, kind) for kind in ("sigmoid", "softmax")],
        "tower": train_tower(rank, folder),
        "siglip": train_siglip(rank, folder),
        "reconstruction": train_reconstruction(rank, folder),
        "adversarial": train_with_discriminator(rank, folder),
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return *run_in_two_processes(everything, folder / "results", str(folder)), everything(None, str(folder))


@pytest.mark.parametrize(
    "index", range(4), ids=[f"{kind}-{'shared' if one else 'separate'}" for kind, one in QUANTIZERS]
)
def test_quantizers_have_the_same_buffers(results, index):
    first, second, one = (result["quantizers"][index] for result in results)
    assert one["restarts"] > 0
    for name, tensor in one.items():
        assert torch.equal(first[name], second[name]), name
        size = tensor.float().abs().max().clamp(min=1)  # rounding is relative to the vectors that are added up
        torch.testing.assert_close(first[name] / size, tensor / size, msg=lambda text, name=name: f"{name}: {text}")
    assert torch.equal(first["cluster_size"], one["cluster_size"])


@pytest.mark.parametrize("index", [0, 1], ids=["sigmoid", "softmax"])
def test_contrastive_loss_has_the_same_value_and_gradients(results, index):
    first, second, one = (result["contrasts"][index] for result in results)
    for ours, theirs, expected in zip(first, second, one, strict=True):
        torch.testing.assert_close((ours + theirs) / 2, expected)


@pytest.mark.parametrize("model", ["tower", "siglip", "reconstruction"])
def test_trainers_have_the_same_weights_and_logs(results, model):
    first, second, one = (result[model] for result in results)
    for name, tensor in one["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        torch.testing.assert_close(
            first["weights"][name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    for log, expected in zip(first["logs"], one["logs"], strict=True):
        assert set(log) == set(expected)
        for name, value in expected.items():
            assert log[name] == pytest.approx(value, rel=1e-3), name


def test_evaluations_have_the_same_scores(results):
    """The set has 15 images, so one rank has one more than the other."""
    first, second, one = (result["tower"]["scores"] for result in results)
    assert first == second
    assert first == pytest.approx(one, rel=1e-3)


def test_ranks_agree_when_a_discriminator_starts(results):
    first, second, one = (result["adversarial"] for result in results)
    for name, tensor in first["weights"].items():
        assert torch.equal(second["weights"][name], tensor), name
    assert "discriminator_loss" not in first["logs"][0] and "discriminator_loss" in first["logs"][1]
    assert first["logs"][0]["loss"] == pytest.approx(one["logs"][0]["loss"], rel=1e-3)
