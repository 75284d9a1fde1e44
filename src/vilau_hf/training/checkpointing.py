"""Checkpoints that are there as a whole or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from transformers import Trainer

from ..compat import TRAINER_STATE_NAME, get_last_checkpoint, sort_checkpoints


# in the output directory; checkpoints are "checkpoint-" and a number, and what begins with "_" is not uploaded
STAGING_FOLDER = "_unfinished_checkpoint"


def checkpoint_to_resume(given: str | bool | None) -> str | bool | None:
    """
    What `Trainer.train(resume_from_checkpoint=...)` is to be given for an argument of the command line.

    Args:
        given (`str` or `bool`, *optional*): `"true"` or `"false"`, in capitals or not, or the folder of a checkpoint.

    Returns:
        `True` for the last checkpoint of the output directory, `None` to begin anew, or the folder.
    """
    return {"true": True, "false": None}.get(str(given).lower(), given)


class AtomicCheckpointTrainer(Trainer):
    """
    A [`Trainer`] that writes a checkpoint into a folder beside the others and renames it when all ranks are done, so
    that a run that is killed at any time leaves only complete ones under the name `checkpoint-<step>`. Old ones are
    deleted after that. (The base class writes under the final name from the beginning, and
    `resume_from_checkpoint=True` takes what it finds there.)
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._is_staging = False
        # the checkpoint that `train` goes on from, for what subclasses load themselves; `None` outside of `train`
        self.resumed_checkpoint: str | None = None

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        checkpoint = resume_from_checkpoint or None
        # where there is none, the base class raises the error
        self.resumed_checkpoint = get_last_checkpoint(self.args.output_dir) if checkpoint is True else checkpoint
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self.resumed_checkpoint = None

    def save_additional_state(self, folder: str):
        """
        Writes what a subclass adds to the state of a checkpoint. Every rank calls it, for each checkpoint that is
        more than a model (`save_only_model=False`), before the checkpoint gets its name.

        Args:
            folder (`str`): the unfinished checkpoint.
        """

    # The base class writes a checkpoint to `checkpoint-<step>` in the folder that this returns, `args.output_dir`.
    # We return another one while a checkpoint is written. Changing the argument meanwhile would do the same, but
    # `training_args.bin` holds it. Read in transformers 5.20.2, 5.23.0 and 5.24.0, where it is the same. Can go when
    # the base class writes checkpoints atomically.
    def _get_output_dir(self, trial):
        run_dir = super()._get_output_dir(trial)
        return os.path.join(run_dir, STAGING_FOLDER) if self._is_staging else run_dir

    # The base class writes a whole checkpoint here, under its final name; we rename it when all is written. No public
    # method encloses the writing: `on_step_end` comes before the evaluation, which finds the best checkpoint,
    # `save_model` writes only the model, and `on_save` comes after. Read in transformers 5.20.2, 5.23.0 and 5.24.0,
    # where it is the same. Can go when the base class writes checkpoints atomically.
    def _save_checkpoint(self, model, trial):
        run_dir, name = Path(self._get_output_dir(trial)), f"checkpoint-{self.state.global_step}"
        staging = run_dir / STAGING_FOLDER
        self._on_every_disk(staging, lambda: shutil.rmtree(staging))  # of a run that was killed
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
            self.state.save_to_json(str(staging / name / TRAINER_STATE_NAME))  # the best has its final name now
        self._on_every_disk(staging, lambda: self._publish(run_dir / name))
        if self.args.push_to_hub:
            super()._push_from_checkpoint(str(run_dir / name))

    # The base class's `_save_checkpoint` starts an upload in the background here. Our folder is renamed after that, so
    # `_save_checkpoint` above starts it later. Only `args.push_to_hub=False` would prevent the call, and
    # `training_args.bin` holds that. Read in transformers 5.20.2, 5.23.0 and 5.24.0, where it is the same. Can go with
    # `_save_checkpoint`.
    def _push_from_checkpoint(self, checkpoint_folder):
        """Does nothing: `_save_checkpoint` uploads a checkpoint when it has its name."""

    def _publish(self, folder: Path):
        """Gives a complete checkpoint its name, and deletes those that are too many."""
        staging = folder.parent / STAGING_FOLDER
        if folder.exists():  # of an earlier run
            folder.rename(staging / "replaced")
        (staging / folder.name).rename(folder)
        limit = self.args.save_total_limit
        if limit is not None and limit > 0:
            self._delete_checkpoints(folder.parent, kept={folder}, limit=limit)
        shutil.rmtree(staging)

    def _delete_checkpoints(self, run_dir: Path, kept: set[Path], limit: int):
        """Deletes the oldest but `limit`, never those to be `kept` and the best: moves them away first, whole."""
        staging = run_dir / STAGING_FOLDER
        staging.mkdir(exist_ok=True)
        if self.state.best_model_checkpoint is not None:
            kept = kept | {Path(self.state.best_model_checkpoint)}
        others = [Path(path) for path in sort_checkpoints(str(run_dir), use_mtime=True) if Path(path) not in kept]
        for folder in others[: max(0, len(others) + len(kept) - limit)]:
            folder.rename(staging / folder.name)

    # With a limit of 1 only the best checkpoint is left after training. The base class deletes the others in place
    # here, and a run killed meanwhile would leave a part of one under its name; so we move them away before.
    # `on_train_end` comes after that, and `on_save` and `on_log` do not know that training has ended. Read in
    # transformers 5.20.2, 5.23.0 and 5.24.0, where it is the same. Can go when the base class deletes atomically.
    def _finalize_training(self, trial, *args, **kwargs):
        run_dir = Path(self._get_output_dir(trial))
        if self.args.should_save and self.args.save_total_limit == 1 and self.state.best_model_checkpoint is not None:
            self._delete_checkpoints(run_dir, kept=set(), limit=1)
            shutil.rmtree(run_dir / STAGING_FOLDER)
        return super()._finalize_training(trial, *args, **kwargs)

    def _on_every_disk(self, folder: Path, action: Callable[[], None]):
        """Does `action` where `folder` is, once for ranks that share a disk; all ranks wait before and after."""
        for is_my_turn in (self.is_world_process_zero(), self.is_local_process_zero()):
            self.accelerator.wait_for_everyone()
            if is_my_turn and folder.exists():
                action()
        self.accelerator.wait_for_everyone()


__all__ = ["AtomicCheckpointTrainer", "checkpoint_to_resume"]
