"""Training on a stream: shared out over the ranks, saved with every checkpoint, resumed at the next record."""

from pathlib import Path

import torch
from transformers import TrainerCallback

from ..data.stream import ResumableStream
from .checkpointing import AtomicCheckpointTrainer


class StreamTrainer(AtomicCheckpointTrainer):
    """
    A [`Trainer`] whose `train_dataset` may be a [`ResumableStream`]. Every rank reads its own share, and checkpoints
    hold where each rank and each worker of its loader was; resuming needs as many of them. (The base class reads a
    stream on one rank for all, and to resume reads it again up to where it was.)
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._stream_loader = None
        if isinstance(self.train_dataset, ResumableStream):
            self.args.ignore_data_skip = True  # nothing is read again, the stream's state says where it was
            self.add_callback(_EpochOfStream())

    def get_train_dataloader(self):
        if not isinstance(self.train_dataset, ResumableStream):
            return super().get_train_dataloader()
        try:
            from torchdata.stateful_dataloader import StatefulDataLoader
        except ImportError as error:
            raise ImportError("To train on a stream: pip install 'vilau_hf[data]' (torchdata).") from error
        args = self.args
        self._stream_loader = StatefulDataLoader(
            self.train_dataset.split(args.process_index, args.world_size),
            batch_size=self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and torch.accelerator.is_available(),
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            generator=torch.Generator().manual_seed(args.seed),  # a resumed loader takes nothing of the restored state
        )
        if self.resumed_checkpoint is not None:
            self._load_stream(self.resumed_checkpoint)
        return self._stream_loader

    def save_additional_state(self, folder):
        super().save_additional_state(folder)
        if self._stream_loader is not None:
            state = {"loader": self._stream_loader.state_dict(), **self._layout()}
            torch.save(state, self._state_file(folder))

    def _load_stream(self, checkpoint: str):
        """Makes the loader go on where this rank was in `checkpoint`."""
        file = self._state_file(checkpoint)
        if not file.is_file():
            raise ValueError(
                f"`resume_from_checkpoint` {str(checkpoint)!r} has no {file.name}, the state of a stream."
            )
        state = torch.load(file, weights_only=True)
        for name, value in self._layout().items():
            if state[name] != value:
                raise ValueError(
                    f"`resume_from_checkpoint` was saved with {name} {state[name]}, got {value}: a stream resumes "
                    "with as many ranks and workers as it was saved with."
                )
        self._stream_loader.load_state_dict(state["loader"])

    def _layout(self) -> dict[str, int]:
        return {
            "world_size": self.args.world_size,
            "dataloader_num_workers": self.args.dataloader_num_workers,
        }

    def _state_file(self, folder: str) -> Path:
        return Path(folder) / f"stream_state_{self.args.process_index}.pth"


class _EpochOfStream(TrainerCallback):
    """
    Sets the epoch of a stream, for logs and checkpoints. A stream has one epoch, which ends with `max_steps`.

    [`Trainer`] counts the steps since the last resume. It calls these events before it logs, evaluates and saves.
    """

    def on_step_end(self, args, state, control, **kwargs):
        state.epoch = state.global_step / state.max_steps

    def on_epoch_end(self, args, state, control, **kwargs):
        state.epoch = state.global_step / state.max_steps


__all__ = ["StreamTrainer"]
