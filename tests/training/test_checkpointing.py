"""Atomic checkpoints, and resumed runs that equal uninterrupted ones bit by bit."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers.trainer_utils import get_last_checkpoint

from vilau_hf.training import VilaUTrainer, checkpoint_to_resume
from vilau_hf.training.checkpointing import publish_model

from . import resume_run
from .resume_run import build_trainer, files_of_checkpoints


def quick_trainer(folder, **kwargs):
    return build_trainer(
        folder / "run", "list", VilaUTrainer, **{"max_steps": 4, "gradient_accumulation_steps": 1, **kwargs}
    )


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "world_size"), [("list", 1), ("stream", 2)])
def test_a_run_killed_twenty_times_ends_with_the_same_weights(tmp_path, kind, world_size):
    """
    Kills the run by `kill -9` between and within steps and checkpoints, and resumes from the last checkpoint.

    The weights at the end equal those of an uninterrupted run bit by bit, and every named checkpoint was complete.
    """
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([*sys.path, str(root)])
    command = [sys.executable, "-m", "tests.training.resume_run", str(tmp_path), kind, str(world_size), "0"]
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=root, env=environment, timeout=1200)
    result = json.loads((tmp_path / "result.json").read_text())
    expected = next(iter(result["whole"].values()))
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"} < set(expected)
    assert len(result["kills"]) == resume_run.NUM_KILLS
    assert sum(kill["in_writing"] for kill in result["kills"]) >= 3  # about 10 kills aim at it
    for kill in result["kills"]:
        assert all(files == expected for files in kill["checkpoints"].values())
    whole, killed = (torch.load(tmp_path / name / "weights.pt", weights_only=True) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, killed[name]), name


@pytest.mark.parametrize(
    "method", ["save_model", "_save_optimizer_and_scheduler", "_save_rng_state", "save_additional_state"]
)
def test_an_incomplete_checkpoint_is_never_resumed(tmp_path, monkeypatch, method):
    """Saving is interrupted before each of its steps. The checkpoint before stays, although the limit is one."""
    trainer = quick_trainer(tmp_path, save_total_limit=1)
    original = getattr(trainer, method)

    def interrupted(*args, **kwargs):
        if trainer.state.global_step == 4:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(trainer, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    out = tmp_path / "run/out"
    assert get_last_checkpoint(out) == str(out / "checkpoint-2")
    whole = quick_trainer(tmp_path / "whole")
    whole.train()
    resumed = quick_trainer(tmp_path, save_total_limit=1)
    resumed.train(resume_from_checkpoint=True)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    assert [path.name for path in out.iterdir()] == ["checkpoint-4"]
    assert (
        files_of_checkpoints(tmp_path / "run")["checkpoint-4"]
        == files_of_checkpoints(tmp_path / "whole/run")["checkpoint-4"]
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [("true", True), ("True", True), (True, True), ("FALSE", None), (False, None), (None, None), ("a/b-2", "a/b-2")],
)
def test_checkpoint_to_resume_converts_words_and_keeps_folders(given, meant):
    assert checkpoint_to_resume(given) == meant


def test_an_unfinished_checkpoint_alone_is_no_checkpoint(tmp_path):
    (tmp_path / "run/out/_unfinished_checkpoint/checkpoint-2").mkdir(parents=True)
    with pytest.raises(ValueError, match="No valid checkpoint found"):
        quick_trainer(tmp_path).train(resume_from_checkpoint=True)


def test_keeps_the_best_and_the_last_checkpoint(tmp_path):
    """With a limit of 2 both stay, with a limit of 1 the best one stays. The losses are given."""
    losses = [3.0, 1.0, 2.0, 2.5]
    settings = {"save_steps": 1, "eval_steps": 1, "eval_strategy": "steps", "metric_for_best_model": "eval_loss"}
    for limit, left in ((2, ["checkpoint-2", "checkpoint-4"]), (1, ["checkpoint-2"])):
        trainer = quick_trainer(tmp_path / str(limit), save_total_limit=limit, load_best_model_at_end=True, **settings)
        trainer.evaluate = lambda trainer=trainer, **kwargs: {"eval_loss": losses[trainer.state.global_step - 1]}
        trainer.train()
        out = tmp_path / str(limit) / "run/out"
        assert sorted(path.name for path in out.iterdir()) == left
        assert trainer.state.best_model_checkpoint == str(out / "checkpoint-2")
        state = json.loads((out / left[-1] / "trainer_state.json").read_text())
        assert state["best_model_checkpoint"] == str(out / "checkpoint-2")


def test_replaces_a_checkpoint_of_an_earlier_run(tmp_path):
    quick_trainer(tmp_path, max_steps=2).train()
    (tmp_path / "run/out/checkpoint-2/stale").touch()
    expected = quick_trainer(tmp_path, max_steps=2)
    expected.train()
    assert [path.name for path in (tmp_path / "run/out").iterdir()] == ["checkpoint-2"]
    assert "stale" not in files_of_checkpoints(tmp_path / "run")["checkpoint-2"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_resumed_in_a_later_epoch_drops_the_same_prompts(tmp_path, num_workers):
    """Workers outlive an epoch. Each epoch drops other prompts, and a resumed run drops the same ones."""
    settings = {"max_steps": 9, "save_steps": 7, "per_device_train_batch_size": 4}
    settings |= {"dataloader_num_workers": num_workers, "dataloader_persistent_workers": num_workers > 0}
    settings["train_sampling_strategy"] = "sequential"

    def lengths(resume=None):
        trainer, seen = quick_trainer(tmp_path, **settings), []
        compute_loss = trainer.compute_loss

        def record(model, inputs, **kwargs):
            seen.append(inputs["attention_mask"].sum(1).tolist())
            return compute_loss(model, inputs, **kwargs)

        trainer.compute_loss = record
        trainer.train(resume_from_checkpoint=resume)
        return seen

    whole = lengths()
    assert whole[:4] != whole[5:9]
    checkpoint = str(tmp_path / "run/out/checkpoint-7")
    assert lengths(checkpoint) == whole[7:]


@pytest.mark.parametrize(("step", "epochs"), [(3, [0, 1, 2]), (5, [1, 2]), (7, [1, 2]), (10, [2])])
def test_tells_the_collator_the_epoch_of_a_resumed_run(tmp_path, step, epochs):
    """An epoch has five steps. Runs are resumed within an epoch and between two."""
    settings = {"per_device_train_batch_size": 4, "max_steps": 11, "save_steps": 1, "save_total_limit": None}
    quick_trainer(tmp_path, **{**settings, "max_steps": step}).train()
    trainer, told = quick_trainer(tmp_path, **settings), []
    trainer.data_collator.set_epoch = told.append
    trainer.train(resume_from_checkpoint=str(tmp_path / f"run/out/checkpoint-{step}"))
    assert told == epochs


class EndsEarly(torch.utils.data.IterableDataset):
    """Eight records an epoch, without a length: the base class takes all steps for one epoch."""

    def __init__(self, records):
        self.records = records[:8]

    def __iter__(self):
        yield from self.records


def test_tells_the_collator_each_epoch_of_a_dataset_without_a_length(tmp_path):
    trainer, told = quick_trainer(tmp_path, per_device_train_batch_size=4, max_steps=5), []
    trainer.train_dataset = EndsEarly(trainer.train_dataset)
    trainer.data_collator.set_epoch = told.append
    trainer.train()
    assert told == [0, 1, 2]


@pytest.mark.parametrize("resume", [None, 3])
def test_epoch_of_a_stream_is_its_share_of_the_steps(tmp_path, resume):
    resume_run.write_data(tmp_path / "data")
    settings = {"max_steps": 8, "save_steps": 3, "logging_steps": 1, "eval_strategy": "no", "save_total_limit": None}
    build_trainer(tmp_path / "run", "stream", VilaUTrainer, **settings).train()
    out = tmp_path / "run/out"
    trainer = build_trainer(tmp_path / "run", "stream", VilaUTrainer, **settings)
    trainer.train(resume_from_checkpoint=resume and str(out / f"checkpoint-{resume}"))
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["epoch"] for log in logs] == [step / 8 for step in range(1, 9)]
    assert json.loads((out / "checkpoint-6/trainer_state.json").read_text())["epoch"] == 6 / 8


def test_a_loader_after_a_resumed_run_starts_at_the_beginning(tmp_path):
    resume_run.write_data(tmp_path / "data")
    settings = {"max_steps": 4, "eval_strategy": "no"}
    trainer = build_trainer(tmp_path / "run", "stream", VilaUTrainer, **settings)
    first = next(iter(trainer.get_train_dataloader()))["input_ids"]
    trainer.train()
    checkpoint = tmp_path / "run/out/checkpoint-2"
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert torch.equal(next(iter(trainer.get_train_dataloader()))["input_ids"], first)
    (checkpoint / "stream_state_0.pth").unlink()
    with pytest.raises(ValueError, match="has no stream_state_0.pth"):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    assert torch.equal(next(iter(trainer.get_train_dataloader()))["input_ids"], first)


def test_a_resumed_stream_has_the_same_dropout_and_noise(tmp_path):
    resume_run.write_data(tmp_path / "data")
    weights = []
    for resume in (None, str(tmp_path / "run/out/checkpoint-2")):
        trainer = build_trainer(tmp_path / "run", "stream", VilaUTrainer, max_steps=4)
        trainer.train(resume_from_checkpoint=resume)
        weights.append(trainer.model.state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


@pytest.mark.parametrize("alpha", [None, 5.0])
def test_neftune_adds_noise_to_text_in_training_only(tmp_path, alpha):
    """The noise of stock Trainer is uniform within alpha / sqrt(T * H) (Jain et al., 2023), seen in the embeddings."""
    trainer, seen = quick_trainer(tmp_path, neftune_noise_alpha=alpha, max_steps=1, learning_rate=0.0), []
    model, config = trainer.model.model, trainer.model.config

    def embed(input_ids, visual_codes=None, original=model.embed):
        embeds = original(input_ids, visual_codes)
        seen.append((model.training, input_ids, visual_codes, embeds.detach()))
        return embeds

    model.embed = embed
    trainer.train()
    trainer.evaluate()
    assert {training for training, *_ in seen} == {True, False}
    for training, ids, codes, embeds in seen:
        is_visual = ids == config.image_token_id
        table = model.get_input_embeddings().weight[ids].detach()
        distance = (embeds - table).abs()[~is_visual].max()
        if training and alpha is not None:
            bound = alpha / (ids.shape[1] * embeds.shape[2]) ** 0.5
            assert 0.9 * bound < distance <= bound
        else:
            assert distance == 0
        if codes is not None and is_visual.any():
            assert torch.equal(embeds[is_visual], model.embed_codes(codes[is_visual]).detach())


def test_rejects_label_smoothing(tmp_path):
    with pytest.raises(ValueError, match=r"`label_smoothing_factor` must be 0, got 0\.1"):
        quick_trainer(tmp_path, label_smoothing_factor=0.1)


@pytest.mark.parametrize(
    "length", [{"max_steps": 3}, {"max_steps": -1, "num_train_epochs": 0.3}], ids=["steps", "epochs"]
)
def test_a_finished_run_that_is_resumed_does_nothing(tmp_path, length):
    """The run ends within an epoch, where the base class would train one step more."""
    settings = {"save_steps": 3, "lr_scheduler_type": "constant", "learning_rate": 0.1, **length}
    finished = quick_trainer(tmp_path, **settings)
    finished.train()
    files = files_of_checkpoints(tmp_path / "run")
    resumed = quick_trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 3
    assert files_of_checkpoints(tmp_path / "run") == files
    for name, tensor in finished.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    longer = quick_trainer(tmp_path, **{**settings, "max_steps": 4})
    longer.train(resume_from_checkpoint=True)
    assert longer.state.global_step == 4


def change_weights(file, change):
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("lm_head.weight"), "missing lm_head.weight"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "unexpected extra"),
    ],
    ids=["missing", "unexpected"],
)
def test_refuses_to_resume_with_other_tensors(tmp_path, change, message):
    quick_trainer(tmp_path, max_steps=2).train()
    change_weights(tmp_path / "run/out/checkpoint-2/model.safetensors", change)
    with pytest.raises(ValueError, match=f"checkpoint-2 are not those of the model: {message}"):
        quick_trainer(tmp_path, max_steps=4).train(resume_from_checkpoint=True)


def test_refuses_to_resume_an_incomplete_adapter(tmp_path):
    trainers = []
    for _ in range(2):
        trainer = quick_trainer(tmp_path, max_steps=2)
        adapted = get_peft_model(trainer.model, LoraConfig(target_modules=["q_proj"]))
        arguments = {"train_dataset": trainer.train_dataset, "data_collator": trainer.data_collator}
        trainers.append(VilaUTrainer(adapted, trainer.args, **arguments))
    first, second = trainers
    first.train()
    second.train(resume_from_checkpoint=True)
    change_weights(
        tmp_path / "run/out/checkpoint-2/adapter_model.safetensors", lambda weights: weights.pop(min(weights))
    )
    with pytest.raises(ValueError, match="checkpoint-2 are not those of the model: missing base_model"):
        second.train(resume_from_checkpoint=True)


def cut(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_names_the_damaged_file_of_a_checkpoint(tmp_path, name):
    quick_trainer(tmp_path, max_steps=2).train()
    file = tmp_path / "run/out/checkpoint-2" / name
    cut(file)
    with pytest.raises(ValueError, match=f"cannot read {re.escape(str(file))}: "):
        quick_trainer(tmp_path, max_steps=4).train(resume_from_checkpoint=True)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_interrupted_final_save_leaves_the_files_as_they_were(tmp_path, monkeypatch):
    trainer = quick_trainer(tmp_path)
    out = tmp_path / "run/out"

    def fail(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer, "save_additional_files", fail)
    with pytest.raises(OSError, match="No space"):
        trainer.save_model()
    assert not contents(out)
    monkeypatch.undo()
    trainer.save_model()
    saved = contents(out)
    with torch.no_grad():
        trainer.model.lm_head.weight.zero_()
    monkeypatch.setattr(trainer, "save_additional_files", fail)
    with pytest.raises(OSError, match="No space"):
        trainer.save_model()
    assert contents(out) == saved and {path.suffix for path in saved} >= {".safetensors", ".json"}


def test_the_next_run_deletes_the_staging_folders_of_killed_runs_alone(tmp_path):
    out = tmp_path / "run/out"
    kept = ["_unfinished_checkpoint", "_unfinished_model-notes", "checkpoint-1", "notes"]
    digits = "0123456789abcdef" * 2
    for name in (*kept, f"_unfinished_checkpoint-{digits}", f"_unfinished_model-{digits}"):
        (out / name).mkdir(parents=True)
        (out / name / "file").touch()
    quick_trainer(tmp_path, max_steps=2, save_total_limit=1).train()
    assert sorted(path.name for path in out.iterdir()) == sorted([*kept, "checkpoint-2"])


def test_weights_of_an_earlier_save_give_way_to_those_of_another_form(tmp_path):
    """Loading prefers one file to shards, so the file of the earlier save would be loaded."""
    model = quick_trainer(tmp_path).model
    for name, size in (("one", "1GB"), ("shards", "50KB"), ("one", "1GB")):
        model.save_pretrained(tmp_path / "staging", max_shard_size=size)
        new = {path.name for path in (tmp_path / "staging").iterdir()}
        publish_model(tmp_path / "staging", tmp_path / "final")
        assert {path.name for path in (tmp_path / "final").iterdir()} == new, name
    assert not (tmp_path / "staging").exists()


@pytest.mark.parametrize("is_file", [False, True])
def test_keeps_what_is_no_checkpoint_under_the_name_of_one(tmp_path, is_file):
    path = tmp_path / "run/out/checkpoint-2"
    if is_file:
        path.parent.mkdir(parents=True)
        path.write_text("notes")
    else:
        path.mkdir(parents=True)
        (path / "notes.txt").write_text("notes")
    quick_trainer(tmp_path, max_steps=2).train()
    assert (path / "trainer_state.json").is_file()
    (kept,) = path.parent.glob("checkpoint-2-before-*")
    assert (kept if is_file else kept / "notes.txt").read_text() == "notes"
