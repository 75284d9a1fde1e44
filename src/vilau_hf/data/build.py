"""Builds the datasets and the collator of a training run from its arguments."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from datasets import Dataset, load_dataset
from transformers import TrainingArguments

from .arguments import DataArguments
from .code_cache import check_tower, load_encoded
from .code_shards import INDEX
from .collator_vilau import VilaUDataCollator
from .media import MediaLoader, ReadableRows
from .mixture import Mixture, add_lengths, keep_media_closed
from .packing import PackedDataset, RecordPacker
from .stream import RecordStream


if TYPE_CHECKING:
    from ..processing import VilaUProcessor


NUM_DRAWN_SHAPES = 200_000


def encoded_folders(data: DataArguments) -> list[str]:
    """Returns the folders of codes that a recipe trains on."""
    if _is_mixture(data.dataset):
        return Mixture.from_yaml(data.dataset).encoded_folders
    return [data.dataset] if _is_encoded(data.dataset) else []


def _is_mixture(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _is_encoded(name: str) -> bool:
    return (Path(name) / INDEX).is_file()


def build_dataset(
    data: DataArguments, args: TrainingArguments, processor: "VilaUProcessor", model: torch.nn.Module | None
) -> torch.utils.data.Dataset | Dataset:
    """
    Builds the training data of a recipe.

    Args:
        data ([`DataArguments`]): dataset and row format.
        args ([`VilaUTrainingArguments`]): seed, steps and sampling strategy of the run.
        processor ([`VilaUProcessor`]): prepares images and videos, and counts tokens.
        model ([`VilaUForConditionalGeneration`] or [`VilaUVisionTower`], *optional*): the model to train, required
            for stored codes. They must be codes of its vision tower.

    Returns:
        A dataset with random access, or a [`RecordStream`] for a mixture.

    Raises:
        ValueError: for a mixture without `max_steps`, codes of another tower, or a `train_sampling_strategy` that
            needs the lengths of a mixture or of packed rows.
    """
    strategy = str(args.train_sampling_strategy)
    if strategy in ("group_by_length", "batch_rebalance") and (
        _is_mixture(data.dataset) or data.row_format == "packed"
    ):
        raise ValueError(
            "`train_sampling_strategy` must be 'random' or 'sequential' for a mixture and for packed rows, got "
            f"{strategy!r}. Lengths of a mixture are not known in advance. Packed rows all have the same length."
        )
    packer = None
    if data.row_format == "packed" and data.max_length is not None:
        packer = RecordPacker(processor, data.max_length, data.on_too_long)
    if _is_mixture(data.dataset):
        if args.max_steps <= 0:
            raise ValueError(f"a mixture has no end: give `max_steps`, got {args.max_steps}.")
        media = MediaLoader(processor, data.on_bad_media, data.media_roots, data.on_short_video)
        mixture = Mixture.from_yaml(data.dataset)
        if mixture.encoded_folders:
            check_tower(mixture.encoded_folders, _require_model(model), processor)
        return RecordStream(mixture, media, packer, data.shuffle_block, args.seed)
    dataset = _load_records(data.dataset, data.train_split, data.num_train_samples, data, processor, model, args)
    if packer is not None:
        # Packs are made once, of successive records. Shuffling first mixes the records of a row.
        packed = PackedDataset(dataset.shuffle(seed=args.seed), packer)
        return ReadableRows(packed) if data.on_bad_media == "skip" else packed
    return ReadableRows(dataset) if data.on_bad_media == "skip" else dataset


def build_eval_dataset(
    data: DataArguments, processor: "VilaUProcessor", model: torch.nn.Module | None
) -> torch.utils.data.Dataset | Dataset | None:
    """Builds the evaluation data of a recipe, or returns `None` if it has none."""
    if data.eval_dataset is None:
        return None
    if _is_mixture(data.eval_dataset):
        raise ValueError(
            f"`eval_dataset` must not be a mixture, got {data.eval_dataset!r}. Write its records to a folder first "
            "(`vilau records`)."
        )
    dataset = _load_records(data.eval_dataset, data.eval_split, data.num_eval_samples, data, processor, model)
    return ReadableRows(dataset) if data.on_bad_media == "skip" else dataset


def _load_records(
    name: str,
    split: str,
    count: int | None,
    data: DataArguments,
    processor: "VilaUProcessor",
    model: torch.nn.Module | None,
    args: TrainingArguments | None = None,
) -> Dataset:
    """Returns records with random access. Media are opened when a record is read."""
    if name == "drawn_shapes":
        # Imported here and not at the top: only this name needs the drawn shapes, a room above this one.
        from ..drawn import drawn_shapes

        # Drawn in the size of the processor, so that nothing is resized.
        side = processor.image_processor.size["height"]
        frames = processor.video_processor.num_frames
        seed = 0 if args is None else args.seed
        return drawn_shapes(split, count or NUM_DRAWN_SHAPES, side, frames, seed=seed)
    if _is_encoded(name):
        dataset = load_encoded(name, _require_model(model), processor)
    else:
        dataset = load_records(name, split)
    if count is not None:
        dataset = dataset.select(range(min(count, len(dataset))))
    if args is not None and args.train_sampling_strategy == "group_by_length":
        # Before the transform, so that counting tokens opens no media.
        dataset = add_lengths(dataset, processor, args.length_column_name)
    return dataset.with_transform(MediaLoader(processor, data.on_bad_media, data.media_roots, data.on_short_video))


def load_records(name: str, split: str) -> Dataset:
    """
    Loads records whose media are opened by [`MediaLoader`] alone, whatever the schema of their files.

    Args:
        name (`str`): folder or Hub id of the records.
        split (`str`): name of the split.

    Raises:
        ValueError: if the name is empty.
    """
    if not name:
        raise ValueError("`dataset` must be the folder or the Hub id of records, got an empty name.")
    return keep_media_closed(load_dataset(name, split=split))


def _require_model(model: torch.nn.Module | None) -> torch.nn.Module:
    if model is None:
        raise ValueError("`model` must be given for a dataset of codes, got None.")
    return model


def build_collator(data: DataArguments, args: TrainingArguments, processor: "VilaUProcessor") -> VilaUDataCollator:
    """Builds the collator of a recipe."""
    return VilaUDataCollator(
        processor,
        data.unconditional_probability,
        args.seed,
        # The packer has checked that the records of packed rows fit.
        max_length=None if data.row_format == "packed" else data.max_length,
        padding_free=data.row_format == "padding_free",
        pad_to_multiple_of=data.pad_to_multiple_of,
        context_noise=data.context_noise,
    )
