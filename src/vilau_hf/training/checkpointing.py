"""Atomic checkpoints."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer

from ..compat import TRAINER_STATE_NAME, get_last_checkpoint, sort_checkpoints


# A folder in the output directory. `Trainer` finds checkpoints by names of the form `checkpoint-<step>`, so it never
# takes this folder for one. Uploads to the Hub leave out names that begin with "_".
STAGING_FOLDER = "_unfinished_checkpoint"


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


class AtomicCheckpointTrainer(Trainer):
    """
    Trainer that saves atomic checkpoints.

    A checkpoint is saved in a staging folder and renamed when all ranks have finished. After a run is killed, every
    folder with a name `checkpoint-<step>` is complete. Old checkpoints are deleted after the rename. [`Trainer`] saves
    under the final name from the beginning, and `resume_from_checkpoint=True` would take an incomplete folder.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_staging = False
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
        """
        checkpoint = resume_from_checkpoint or None
        if checkpoint is True:
            # `None` if there is no checkpoint: then the base class raises the error.
            checkpoint = get_last_checkpoint(self.args.output_dir)
        self.resumed_checkpoint = checkpoint
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self.resumed_checkpoint = None

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
        return os.path.join(run_dir, STAGING_FOLDER) if self._is_staging else run_dir

    # The base class saves a whole checkpoint here, under its final name. We rename it when all ranks have finished. No
    # public method covers the whole checkpoint. `on_step_end` comes before the evaluation, which finds the best
    # checkpoint. `save_model` saves only the model, and `on_save` comes after the checkpoint. Read in transformers
    # 5.20.2, 5.23.0 and 5.24.0, where it is the same. Can go when the base class saves checkpoints atomically.
    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_dir = Path(self._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        staging = run_dir / STAGING_FOLDER
        self._on_every_disk(staging, lambda: shutil.rmtree(staging))  # left over from a run that was killed
        self._is_staging = True
        try:
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
        staging = folder.parent / STAGING_FOLDER
        if folder.exists():  # from an earlier run
            folder.rename(staging / "replaced")
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
        staging = run_dir / STAGING_FOLDER
        staging.mkdir(exist_ok=True)
        if self.state.best_model_checkpoint is not None:
            kept = kept | {Path(self.state.best_model_checkpoint)}
        others = [Path(path) for path in sort_checkpoints(str(run_dir), use_mtime=True) if Path(path) not in kept]
        for folder in others[: max(0, len(others) + len(kept) - limit)]:
            folder.rename(staging / folder.name)

    # With `save_total_limit=1` only the best checkpoint remains after training. The base class deletes the others in
    # place here. A run that is killed meanwhile would leave an incomplete folder under a final name, so we move the
    # folders away first. `on_train_end` comes after that, and `on_save` and `on_log` do not know that training has
    # ended. Read in transformers 5.20.2, 5.23.0 and 5.24.0, where it is the same. Can go when the base class deletes
    # atomically.
    def _finalize_training(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        run_dir = Path(self._get_output_dir(trial))
        if self.args.should_save and self.args.save_total_limit == 1 and self.state.best_model_checkpoint is not None:
            self._delete_checkpoints(run_dir, kept=set(), limit=1)
            shutil.rmtree(run_dir / STAGING_FOLDER)
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
