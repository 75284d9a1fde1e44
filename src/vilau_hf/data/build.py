"""Builds the datasets and the collator of a training run from its arguments."""

from pathlib import Path

from datasets import load_dataset
from transformers import TrainingArguments

from .arguments import DataArguments
from .code_cache import check_tower, load_encoded
from .code_shards import INDEX
from .collator_vilau import VilaUDataCollator
from .media import MediaLoader, ReadableRows
from .mixture import Mixture, add_lengths
from .packing import PackedDataset, RecordPacker
from .stream import RecordStream


NUM_DRAWN_SHAPES = 200_000


def encoded_folders(data: DataArguments) -> list[str]:
    """Folders of codes that a recipe trains on."""
    if _is_mixture(data.dataset):
        return Mixture.from_yaml(data.dataset).encoded_folders
    return [data.dataset] if _is_encoded(data.dataset) else []


def _is_mixture(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _is_encoded(name: str) -> bool:
    return (Path(name) / INDEX).is_file()


def build_dataset(data: DataArguments, args: TrainingArguments, processor, model):
    """
    The training data of a recipe.

    Args:
        data ([`DataArguments`])
        args ([`VilaUTrainingArguments`])
        processor ([`VilaUProcessor`])
        model ([`VilaUForConditionalGeneration`] or [`VilaUVisionTower`]): whose tower stored codes must be of.

    Raises:
        ValueError: for a mixture without `max_steps`, codes of another tower, or a `train_sampling_strategy` that
            asks for the lengths of a mixture or of packed rows.
    """
    strategy = str(args.train_sampling_strategy)
    if strategy in ("group_by_length", "batch_rebalance") and (
        _is_mixture(data.dataset) or data.row_format == "packed"
    ):
        raise ValueError(
            "`train_sampling_strategy` must be 'random' or 'sequential' for a mixture, whose lengths are not known "
            f"before, and for packed rows, which are all of one length, got {strategy!r}."
        )
    packer = None
    if data.row_format == "packed":
        packer = RecordPacker(processor, data.max_length, data.on_too_long)
    if _is_mixture(data.dataset):
        if args.max_steps <= 0:
            raise ValueError(f"a mixture has no end: give `max_steps`, got {args.max_steps}.")
        media = MediaLoader(processor, data.on_bad_media)
        mixture = Mixture.from_yaml(data.dataset)
        check_tower(mixture.encoded_folders, model, processor)
        return RecordStream(mixture, media, packer, data.shuffle_block, args.seed)
    dataset = _records(data.dataset, data.train_split, data.num_train_samples, data, processor, model, args)
    if packer is not None:
        dataset = PackedDataset(dataset.shuffle(seed=args.seed), packer)
    return ReadableRows(dataset) if data.on_bad_media == "skip" else dataset


def build_eval_dataset(data: DataArguments, processor, model):
    """The records that a recipe evaluates on, or `None`."""
    if data.eval_dataset is None:
        return None
    if _is_mixture(data.eval_dataset):
        raise ValueError(f"`eval_dataset` must not be a mixture, got {data.eval_dataset!r}: write its records first.")
    dataset = _records(data.eval_dataset, data.eval_split, data.num_eval_samples, data, processor, model)
    return ReadableRows(dataset) if data.on_bad_media == "skip" else dataset


def _records(name: str, split: str, count: int | None, data: DataArguments, processor, model, args=None):
    """Records with random access; media are opened as they are read."""
    if name == "drawn_shapes":
        # Here and not at the top: only this name needs the toy world, which stands above training.
        from ..drawn import drawn_shapes

        side = processor.image_processor.size["height"]
        frames = processor.video_processor.num_frames
        seed = 0 if args is None else args.seed
        return drawn_shapes(split, count or NUM_DRAWN_SHAPES, side, frames, seed=seed)
    if _is_encoded(name):
        dataset = load_encoded(name, model, processor)
    else:
        dataset = load_dataset(name, split=split)
    if count is not None:
        dataset = dataset.select(range(min(count, len(dataset))))
    if args is not None and args.train_sampling_strategy == "group_by_length":
        dataset = add_lengths(dataset, processor, args.length_column_name)
    return dataset.with_transform(MediaLoader(processor, data.on_bad_media))


def build_collator(data: DataArguments, args: TrainingArguments, processor) -> VilaUDataCollator:
    """The collator of a recipe. Packed rows are never cut, their records fit."""
    return VilaUDataCollator(
        processor,
        data.unconditional_probability,
        args.seed,
        max_length=None if data.row_format == "packed" else data.max_length,
        padding_free=data.row_format == "padding_free",
        pad_to_multiple_of=data.pad_to_multiple_of,
    )
