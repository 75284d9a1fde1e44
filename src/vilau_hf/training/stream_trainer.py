"""Training on a stream of records, with checkpoints that store the position in the stream."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..data.stream import ResumableStream
from .checkpointing import AtomicCheckpointTrainer


class StreamTrainer(AtomicCheckpointTrainer):
    """
    Trainer whose `train_dataset` may be a [`ResumableStream`].

    Every rank reads a different share of the stream. Checkpoints store the position of each rank and of each worker of
    its loader. Resuming needs the same number of ranks and workers. [`Trainer`] reads a stream on one rank for all
    ranks. To resume, it reads the stream again from the beginning.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stream_loader: Any = None  # a `StatefulDataLoader`, of the optional package torchdata
        if isinstance(self.train_dataset, ResumableStream):
            # The base class would skip the batches before the checkpoint. The loaded state is already behind them.
            self.args.ignore_data_skip = True
            self.add_callback(_EpochOfStream())

    def get_train_dataloader(self) -> Any:
        """
        Returns the loader of the training data.

        For a stream it reads the share of this rank, and continues at the position of a resumed checkpoint.

        Raises:
            ImportError: if `train_dataset` is a stream and torchdata is not installed.
            ValueError: if the resumed checkpoint has no state of a stream, or one of other ranks or workers.
        """
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
            # By default a loader draws its seed from the global generator. A resumed run has restored that generator
            # before, and would then draw other dropout and noise than an uninterrupted run.
            generator=torch.Generator().manual_seed(args.seed),
        )
        if self.resumed_checkpoint is not None:
            self._load_stream(self.resumed_checkpoint)
        return self._stream_loader

    def save_additional_state(self, folder: str) -> None:
        """
        Saves the position of this rank in the stream.

        Args:
            folder (`str`): folder of the unfinished checkpoint.
        """
        super().save_additional_state(folder)
        if self._stream_loader is not None:
            state = {"loader": self._stream_loader.state_dict(), **self._layout()}
            torch.save(state, self._state_file(folder))

    def _load_stream(self, checkpoint: str) -> None:
        """Sets the loader to the position of this rank in `checkpoint`."""
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
    Sets the epoch of a stream in logs and checkpoints. A stream has one epoch, which ends with `max_steps`.

    [`Trainer`] would count only the steps since the last resume. It calls these events before it logs, evaluates and
    saves.
    """

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        state.epoch = state.global_step / state.max_steps

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        state.epoch = state.global_step / state.max_steps


__all__ = ["StreamTrainer"]
