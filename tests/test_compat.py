from dataclasses import dataclass

import pytest
import transformers
from transformers import TrainingArguments

from vilau_hf.compat import ActivationCheckpointingArguments, enable_activation_checkpointing


@dataclass
class Arguments(ActivationCheckpointingArguments, TrainingArguments):
    """As those of our trainers."""


@pytest.mark.parametrize("value", [None, True, False])
def test_activation_checkpointing_reaches_the_trainer_by_the_name_it_reads(tmp_path, value):
    args = Arguments(str(tmp_path), activation_checkpointing=value, use_cpu=True)
    assert args.activation_checkpointing == bool(value)
    if not hasattr(TrainingArguments, "activation_checkpointing"):
        assert args.gradient_checkpointing == bool(value)


@dataclass
class OlderArguments:
    """The field of transformers 5.20."""

    gradient_checkpointing: bool = False

    def __post_init__(self):
        self.seen = self.gradient_checkpointing


@pytest.mark.parametrize(
    ("value", "older", "expected"),
    [(None, False, False), (True, False, True), (None, True, True), (False, True, False)],
)
def test_older_arguments_have_the_name_of_newer_ones(monkeypatch, value, older, expected):
    monkeypatch.setattr(transformers, "TrainingArguments", OlderArguments)

    @dataclass
    class Both(ActivationCheckpointingArguments, OlderArguments):
        pass

    args = Both(gradient_checkpointing=older, activation_checkpointing=value)
    assert args.seen == args.gradient_checkpointing == args.activation_checkpointing == expected


def test_a_model_checkpoints_its_activations(model):
    enable_activation_checkpointing(model)
    assert all(layer.gradient_checkpointing for layer in model.model.language_model.layers)
