"""Atomic checkpoints and final saves."""

import os
import re
import shutil
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import Trainer, TrainerState
from transformers.utils import logging

from ..compat import TRAINER_STATE_NAME, broadcast_object_list, get_last_checkpoint, sort_checkpoints
from ..files import disk_errors, read_json
from ..modeling.complete_loading_vilau import loading_problems
from ..original.weight_files import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


logger = logging.get_logger(__name__)

# Names of staging folders in the output directory, followed by 32 random digits. So no folder of a user has such a
# name. `Trainer` finds checkpoints by names of the form `checkpoint-<step>`, so it never takes these folders for one.
# Uploads to the Hub leave out names that begin with "_".
STAGED_CHECKPOINT = "_unfinished_checkpoint-"
STAGED_MODEL = "_unfinished_model-"
_STAGING = re.compile(rf"({STAGED_CHECKPOINT}|{STAGED_MODEL})[0-9a-f]{{32}}")
# Names of the weights that `save_pretrained` writes, as one file or as shards with an index.
_WEIGHTS = re.compile(
    rf"{re.escape(SAFE_WEIGHTS_NAME)}|{re.escape(SAFE_WEIGHTS_INDEX_NAME)}|model-\d{{5}}-of-\d{{5}}\.safetensors"
)
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def checkpoint_to_resume(argument: str | bool | None) -> str | bool | None:
    """
    Converts an argument of the command line to one of `Trainer.train(resume_from_checkpoint=...)`.

    Args:
        argument (`str` or `bool`, *optional*): `"true"` or `"false"`, in upper or lower case, or the folder of a
            checkpoint.

    Returns:
        `True` for the last checkpoint of the output directory, `None` to start a new run, or the folder.
    """
    meanings: dict[str, bool | None] = {"true": True, "false": None}
    return meanings.get(str(argument).lower(), argument)


def remove_staging_folders(run_dir: Path) -> None:
    """
    Deletes the staging folders of runs that were killed.

    Args:
        run_dir (`Path`): output directory of a run.
    """
    for folder in run_dir.iterdir():
        if _STAGING.fullmatch(folder.name) and folder.is_dir():
            shutil.rmtree(folder)


def publish_model(staging: Path, folder: Path) -> None:
    """
    Moves the files of a saved model to their final names, each by an atomic rename.

    Weights of an earlier save are deleted if the new save has other files. A loader would prefer one file to shards.

    Args:
        staging (`Path`): folder with the complete new files. It is deleted.
        folder (`Path`): the final folder.
    """
    files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
    for parent in {path.parent for path in files if _WEIGHTS.fullmatch(path.name)}:
        new = {path.name for path in files if path.parent == parent}
        for old in (folder / parent).glob("model*.safetensors*"):
            if _WEIGHTS.fullmatch(old.name) and old.name not in new:
                old.unlink()
    # the index last, so that it never names shards that are not there
    for path in sorted(files, key=lambda path: path.name == SAFE_WEIGHTS_INDEX_NAME):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / path, folder / path)
    shutil.rmtree(staging)


def check_readable(checkpoint: Path) -> None:
    """
    Checks that the files of a checkpoint are not damaged, without loading them.

    The libraries do not name the file in their errors.

    Args:
        checkpoint (`Path`): folder of the checkpoint.

    Raises:
        ValueError: if a file is damaged. The message has its name.
    """
    for path in sorted(checkpoint.rglob("*")):
        if path.suffix == ".safetensors":
            try:
                # Compares the size of the file with its header.
                with safe_open(path, framework="pt"):
                    pass
            except SafetensorError as error:
                raise ValueError(f"cannot read {path}: {error}") from error
        # torch saves zip files, whose table of contents is at the end.
        elif path.suffix in (".pt", ".pth", ".bin") and path.is_file() and not zipfile.is_zipfile(path):
            raise ValueError(f"cannot read {path}: it is no file of `torch.save`, or it is incomplete.")
        elif path.name == TRAINER_STATE_NAME:
            read_json(path)


class AtomicCheckpointTrainer(Trainer):
    """
    Trainer that saves atomic checkpoints and models, and that resumes only from complete checkpoints.

    A checkpoint is saved in a staging folder and renamed when all ranks have finished. After a run is killed, every
    folder with a name `checkpoint-<step>` is complete. Old checkpoints are deleted after the rename. [`Trainer`] saves
    under the final name from the beginning, and `resume_from_checkpoint=True` would take an incomplete folder.

    `save_model` saves to a staging folder, too. Then each file gets its final name by an atomic rename.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_staging = False
        self._staging_name = STAGED_CHECKPOINT + uuid.uuid4().hex
        # The checkpoint from which the base class loads weights.
        self._loaded_checkpoint: str | None = None
        # The checkpoint that the current call of `train` resumes from. Subclasses load their additional state from it.
        self.resumed_checkpoint: str | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """
        Trains the model.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*): folder of a checkpoint, or `True` for the last one.
            args: further positional arguments of `Trainer.train`.
            kwargs: further keyword arguments of `Trainer.train`.

        Returns:
            `TrainOutput`: the result of `Trainer.train`.

        Raises:
            ValueError: if a file of the checkpoint is damaged, or its tensors are not those of the model.
        """
        checkpoint = resume_from_checkpoint or None
        if checkpoint is True:
            # `None` if there is no checkpoint: then the base class raises the error.
            checkpoint = get_last_checkpoint(self.args.output_dir)
        if checkpoint is not None:
            check_readable(Path(checkpoint))
            self._check_adapter(checkpoint)
        self.resumed_checkpoint = checkpoint
        self._loaded_checkpoint = checkpoint
        # All ranks save to one folder, so they need one name.
        self._staging_name = broadcast_object_list([self._staging_name])[0]
        run_dir = Path(str(self.args.output_dir))
        self._on_every_disk(run_dir, lambda: remove_staging_folders(run_dir))
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self.resumed_checkpoint = None

    def set_initial_training_values(self, args: Any, dataloader: Any) -> Any:
        """
        Computes the numbers of epochs and steps of a run.

        For a resumed run that has finished, the number of epochs is that of the trained ones, so no step follows.
        [`Trainer`] would train one more step if the run ended within an epoch.

        Args:
            args ([`TrainingArguments`]): the arguments of training.
            dataloader (`DataLoader`): the loader of the training data.

        Returns:
            `tuple`: the values of `Trainer.set_initial_training_values`.
        """
        num_epochs, steps_per_epoch, *others, max_steps = super().set_initial_training_values(args, dataloader)
        if self.resumed_checkpoint is not None:
            state = TrainerState.load_from_json(os.path.join(self.resumed_checkpoint, TRAINER_STATE_NAME))
            if state.global_step >= max_steps:
                num_epochs = state.global_step // steps_per_epoch
        return (num_epochs, steps_per_epoch, *others, max_steps)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """
        Saves the model. An interrupted save leaves every file as it was before, or complete.

        Args:
            output_dir (`str`, *optional*): the folder (default: `args.output_dir`).
            _internal_call (`bool`, *optional*, defaults to `False`): whether [`Trainer`] calls this method.
        """
        if self._is_staging:  # the staging folder of the checkpoint holds the model, too
            super().save_model(output_dir, _internal_call)
            if self.args.should_save:
                self.save_additional_files(str(output_dir))
            return
        folder = Path(str(output_dir or self.args.output_dir))
        name = [STAGED_MODEL + uuid.uuid4().hex]
        # Other ranks write files only with DeepSpeed. Without it, a user may call this method on one rank only.
        if self.is_deepspeed_enabled:
            name = broadcast_object_list(name)
        staging = folder / name[0]
        try:
            with disk_errors(folder):
                super().save_model(str(staging), _internal_call=True)
                if self.args.should_save:
                    self.save_additional_files(str(staging))
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        if self.is_deepspeed_enabled:
            self._on_every_disk(staging, lambda: publish_model(staging, folder))
        elif staging.exists():
            publish_model(staging, folder)
        # The base class uploads within `save_model`, when our files do not have their names yet.
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def save_additional_files(self, folder: str) -> None:
        """
        Saves the additional files of a subclass beside the model.

        The ranks that save call it, for checkpoints and for `save_model`.

        Args:
            folder (`str`): the staging folder.
        """

    # The base class loads a checkpoint without regard to its names, and only logs which are missing or unexpected.
    # Missing weights would keep their values. No public method sees the result of the loading. Read in transformers
    # 5.20.2, 5.23.0 and 5.24.0, where it is the same. Can go when the base class refuses such a checkpoint.
    def _issue_warnings_after_load(self, load_result: Any) -> None:
        tied = getattr(self.accelerator.unwrap_model(self.model), "all_tied_weights_keys", {})
        report = {
            "missing_keys": set(load_result.missing_keys) - set(tied),  # tied weights are saved once
            "unexpected_keys": load_result.unexpected_keys,
            "mismatched_keys": (),
        }
        self._refuse(loading_problems(report))

    def _check_adapter(self, checkpoint: str) -> None:
        """Checks that a checkpoint has all tensors of the adapter. peft would only warn."""
        file = Path(checkpoint, ADAPTER_WEIGHTS)
        if not file.is_file() or not hasattr(self.model, "peft_config"):
            return
        from peft import get_peft_model_state_dict

        with safe_open(file, framework="pt") as opened:
            found = set(opened.keys())
        expected = set(get_peft_model_state_dict(self.model))
        self._loaded_checkpoint = checkpoint
        self._refuse(
            loading_problems(
                {"missing_keys": expected - found, "unexpected_keys": found - expected, "mismatched_keys": ()}
            )
        )

    def _refuse(self, problems: str) -> None:
        """Raises a `ValueError` if there are `problems`."""
        if problems:
            raise ValueError(f"the tensors in {self._loaded_checkpoint} are not those of the model: {problems}.")

    def save_additional_state(self, folder: str) -> None:
        """
        Saves the additional state of a subclass.

        Every rank calls it for each checkpoint that holds more than the model (`save_only_model=False`). The
        checkpoint is renamed after that.

        Args:
            folder (`str`): folder of the unfinished checkpoint.
        """

    # The base class saves a checkpoint to `checkpoint-<step>` in the folder that this method returns, which is
    # `args.output_dir`. We return the staging folder while a checkpoint is saved. Changing `args.output_dir` for that
    # time would have the same effect, but `training_args.bin` would store it. Read in transformers 5.20.2, 5.23.0 and
    # 5.24.0, where it is the same. Can go when the base class saves checkpoints atomically.
    def _get_output_dir(self, trial: Any) -> str:
        run_dir = super()._get_output_dir(trial)
        return os.path.join(run_dir, self._staging_name) if self._is_staging else run_dir

    # The base class saves a whole checkpoint here, under its final name. We rename it when all ranks have finished. No
    # public method covers the whole checkpoint. `on_step_end` comes before the evaluation, which finds the best
    # checkpoint. `save_model` saves only the model, and `on_save` comes after the checkpoint. Read in transformers
    # 5.20.2, 5.23.0 and 5.24.0, where it is the same. Can go when the base class saves checkpoints atomically.
    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_dir = Path(self._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        staging = run_dir / self._staging_name
        # A trial of a hyperparameter search has its own directory, which `train` does not clean.
        self._on_every_disk(run_dir, lambda: remove_staging_folders(run_dir))
        self._is_staging = True
        try:
            with disk_errors(run_dir):
                super()._save_checkpoint(model, trial)
            if not self.args.save_only_model:
                self.save_additional_state(str(staging / name))
        finally:
            self._is_staging = False
        best = run_dir / f"checkpoint-{self.state.best_global_step}"
        if self.state.best_global_step and (best.name == name or best.is_dir()):
            self.state.best_model_checkpoint = str(best)
        if self.args.should_save:
            # Saved a second time: the first file names the best checkpoint by its path in the staging folder.
            self.state.save_to_json(str(staging / name / TRAINER_STATE_NAME))
        self._on_every_disk(staging, lambda: self._publish(run_dir / name))
        if self.args.push_to_hub:
            super()._push_from_checkpoint(str(run_dir / name))

    # The base class's `_save_checkpoint` starts an upload in the background here. Our folder is renamed after that, so
    # `_save_checkpoint` above starts the upload later. Only `args.push_to_hub=False` would prevent the call, and
    # `training_args.bin` would store it. Read in transformers 5.20.2, 5.23.0 and 5.24.0, where it is the same. Can go
    # with `_save_checkpoint`.
    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Leaves the upload to `_save_checkpoint`, which uploads a checkpoint after the rename."""

    def _publish(self, folder: Path) -> None:
        """Renames a complete checkpoint to `folder` and deletes checkpoints beyond `save_total_limit`."""
        staging = folder.parent / self._staging_name
        if (folder / TRAINER_STATE_NAME).is_file():  # from an earlier run
            folder.rename(staging / "replaced")
        elif folder.exists():  # of the user, so it is kept
            kept = folder.with_name(f"{folder.name}-before-{uuid.uuid4().hex}")
            folder.rename(kept)
            logger.warning(f"{folder} was no checkpoint. It is {kept} now.")
        (staging / folder.name).rename(folder)
        limit = self.args.save_total_limit
        if limit is not None and limit > 0:
            self._delete_checkpoints(folder.parent, kept={folder}, limit=limit)
        shutil.rmtree(staging)

    def _delete_checkpoints(self, run_dir: Path, kept: set[Path], limit: int) -> None:
        """
        Moves the oldest checkpoints beyond `limit` to the staging folder, which is deleted later.

        The checkpoints in `kept` and the best checkpoint are not moved.
        """
        # A rename is atomic, and deleting a folder is not.
        staging = run_dir / self._staging_name
        staging.mkdir(exist_ok=True)
        if self.state.best_model_checkpoint is not None:
            kept = kept | {Path(self.state.best_model_checkpoint)}
        ordered = (Path(path) for path in sort_checkpoints(str(run_dir), use_mtime=True))
        # A folder without the state of a trainer is no checkpoint, whatever its name.
        others = [path for path in ordered if path not in kept and (path / TRAINER_STATE_NAME).is_file()]
        for folder in others[: max(0, len(others) + len(kept) - limit)]:
            folder.rename(staging / folder.name)

    # With `save_total_limit=1` only the best checkpoint remains after training. The base class deletes the others in
    # place here. A run that is killed meanwhile would leave an incomplete folder under a final name, so we move the
    # folders away first. `on_train_end` comes after that, and `on_save` and `on_log` do not know that training has
    # ended. Read in transformers 5.20.2, 5.23.0 and 5.24.0, where it is the same. Can go when the base class deletes
    # atomically.
    def _finalize_training(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        run_dir = Path(self._get_output_dir(trial))
        self._loaded_checkpoint = self.state.best_model_checkpoint  # loaded at the end, if the arguments say so
        if self.args.should_save and self.args.save_total_limit == 1 and self.state.best_model_checkpoint is not None:
            self._delete_checkpoints(run_dir, kept=set(), limit=1)
            shutil.rmtree(run_dir / self._staging_name)
        return super()._finalize_training(trial, *args, **kwargs)

    def _on_every_disk(self, folder: Path, action: Callable[[], None]) -> None:
        """
        Runs `action` if `folder` exists, once for all ranks that share a disk.

        All ranks wait before and after.
        """
        # First rank 0 of the run acts, then rank 0 of each machine. On a shared disk the folder is gone by then.
        for is_my_turn in (self.is_world_process_zero(), self.is_local_process_zero()):
            self.accelerator.wait_for_everyone()
            if is_my_turn and folder.exists():
                action()
        self.accelerator.wait_for_everyone()


__all__ = ["AtomicCheckpointTrainer", "checkpoint_to_resume"]
