"""FSDP2 with the configuration of the examples: shards train like the whole model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments


CONFIGURATION = Path(__file__).parents[2] / "examples" / "accelerate" / "fsdp2.yaml"


def run(folder, processes, precision, trained="whole"):
    """Runs `sharded_run.py` and returns its losses, codes and saved weights."""
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGURATION)]
    launcher += ["--num_processes", "2", "--mixed_precision", precision]
    command = [*(launcher if processes == 2 else ()), str(Path(__file__).with_name("sharded_run.py"))]
    result = subprocess.run(
        [sys.executable, *command, str(folder), precision, trained],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    log = json.loads((folder / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    losses = torch.tensor([[step[name] for name in ("loss", "text_loss", "visual_loss")] for step in log])
    ranks = [torch.load(folder / f"codes_{rank}.pt") for rank in range(processes)]
    codes = torch.cat([each for rank in reversed(ranks) for each in rank])  # the second rank has images first
    (file,) = folder.glob("*model.safetensors")
    return losses, codes, load_file(file)


@pytest.fixture(scope="module")
def in_float32(tmp_path_factory):
    return run(tmp_path_factory.mktemp("float32"), 1, "no")


@pytest.mark.slow
def test_shards_train_like_the_whole_model(in_float32, tmp_path):
    torch.testing.assert_close(run(tmp_path, 2, "no"), in_float32)
    checkpoint = tmp_path / "checkpoint-1"
    assert (checkpoint / "pytorch_model_fsdp_0").is_dir() and not list(checkpoint.glob("*.safetensors"))


@pytest.mark.slow
def test_bfloat16_shards_have_the_same_codes_and_close_gradients(in_float32, tmp_path):
    whole_losses, _, whole = run(tmp_path / "one", 1, "bf16")
    losses, codes, weights = run(tmp_path / "two", 2, "bf16")
    assert torch.equal(codes, in_float32[1])
    torch.testing.assert_close(losses, whole_losses, rtol=2**-6, atol=0)  # bfloat16 has a relative error of 2**-8
    torch.testing.assert_close(losses[:, 0], losses[:, 1:].sum(1))  # in float32
    begun = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT, dtype="float32").state_dict()
    expected, given = (
        torch.cat([(each[name] - begun[name]).flatten() for name in each if each[name].is_floating_point()])
        for each in (whole, weights)
    )
    assert expected.norm() > 0.01  # SGD moves along the gradients
    assert (given - expected).norm() < 0.05 * expected.norm()


@pytest.mark.slow
def test_adapters_on_bfloat16_shards_have_the_same_codes(in_float32, tmp_path):
    _, codes, weights = run(tmp_path, 2, "bf16", "adapters")
    assert torch.equal(codes, in_float32[1])
    adapters = [weight for name, weight in weights.items() if "lora_B" in name]  # 0 at the beginning
    assert adapters and all(weight.any() for weight in adapters)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FSDP_VERSION": "1"}, "`fsdp_version` must be 2, got 1"),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "`fsdp_cpu_ram_efficient_loading` must be false, got true"),
        ({"FSDP_IGNORED_MODULES": "lm_head"}, "`fsdp_ignored_modules` must not be given, got 'lm_head'"),
    ],
)
def test_rejects_settings_of_fsdp_that_would_fail_later(model, tmp_path, monkeypatch, variables, message):
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", **variables}.items():
        monkeypatch.setenv(name, value)
    args = VilaUTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    monkeypatch.setitem(PartialState._shared_state, "distributed_type", DistributedType.MULTI_GPU)
    with pytest.raises(ValueError, match=message):
        VilaUTrainer(model=model, args=args)
