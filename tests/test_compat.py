"""Differences between versions of transformers."""

from dataclasses import dataclass

import pytest
import transformers
from transformers import TrainingArguments

from vilau_hf.compat import ActivationCheckpointingArguments, enable_activation_checkpointing


@dataclass
class Arguments(ActivationCheckpointingArguments, TrainingArguments):
    """Arguments with the same bases as those of our trainers."""


@pytest.mark.parametrize("value", [None, True, False])
def test_sets_activation_checkpointing_by_the_name_of_the_installed_version(tmp_path, value):
    args = Arguments(str(tmp_path), activation_checkpointing=value, use_cpu=True)
    assert args.activation_checkpointing == bool(value)
    if not hasattr(TrainingArguments, "activation_checkpointing"):
        assert args.gradient_checkpointing == bool(value)


@dataclass
class OlderArguments:
    """Arguments with the field of transformers 5.20."""

    gradient_checkpointing: bool = False

    def __post_init__(self):
        self.seen = self.gradient_checkpointing


@pytest.mark.parametrize(
    ("value", "older", "expected"),
    [(None, False, False), (True, False, True), (None, True, True), (False, True, False)],
)
def test_adds_the_new_name_to_older_arguments(monkeypatch, value, older, expected):
    monkeypatch.setattr(transformers, "TrainingArguments", OlderArguments)

    @dataclass
    class Both(ActivationCheckpointingArguments, OlderArguments):
        pass

    args = Both(gradient_checkpointing=older, activation_checkpointing=value)
    assert args.seen == args.gradient_checkpointing == args.activation_checkpointing == expected


def test_enables_activation_checkpointing_of_a_model(model):
    enable_activation_checkpointing(model)
    assert all(layer.gradient_checkpointing for layer in model.model.language_model.layers)
