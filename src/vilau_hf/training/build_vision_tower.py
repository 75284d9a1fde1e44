"""Builds the vision tower, the collator and the datasets of a training run from its arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset, Image, load_dataset
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from transformers import AutoConfig, AutoTokenizer, SiglipModel

from .. import TINY_CHECKPOINT
from ..data.collator_vision_tower import VisionTowerDataCollator
from ..data.media import MediaLoader, ReadableRows
from ..files import read_json
from ..loading import load_complete
from ..modeling import VilaUVisionConfig, VilaUVisionTowerForPreTraining
from ..processing import VilaUImageProcessor, VilaUImageProcessorPil
from ..processing.image_functions_vilau import READING_SETTINGS
from ..processing.pixel_rules_vilau import to_rgb
from .recipe_vision_tower import VisionTowerConfigArguments, VisionTowerDataArguments, VisionTowerModelArguments


# File of a checkpoint with the settings of its image processor.
PROCESSOR_FILE = "preprocessor_config.json"


@dataclass
class TowerDatasets:
    """
    The data of a vision tower. Records have `images` and, if the tower reads captions, `caption`.

    Args:
        train (`torch.utils.data.Dataset` or `datasets.Dataset`): records for training.
        eval (`torch.utils.data.Dataset` or `datasets.Dataset`, *optional*): records for evaluation.
        classes (`list[str]`, *optional*): captions of the classes, for zero-shot classification.
        label_of (`Callable[[dict], int]`, *optional*): maps a record to the index of its class.
    """

    train: Any
    eval: Any = None
    classes: list[str] | None = None
    label_of: Callable[[dict], int] | None = None


def load_tower(
    arguments: VisionTowerModelArguments, config: VisionTowerConfigArguments
) -> VilaUVisionTowerForPreTraining:
    """
    Loads or builds the vision tower of a recipe.

    Args:
        arguments ([`VisionTowerModelArguments`]): arguments of the model.
        config ([`VisionTowerConfigArguments`]): fields that replace those of its configuration.
    """
    source = _source_of(arguments)
    if arguments.siglip_name_or_path is None:
        return VilaUVisionTowerForPreTraining.from_pretrained(source, dtype="float32", **config.given())
    if arguments.from_scratch:
        siglip = SiglipModel(AutoConfig.from_pretrained(source))
    else:
        siglip = load_complete(SiglipModel, source, dtype="float32")
    return VilaUVisionTowerForPreTraining.from_siglip(siglip, **config.given())


def load_empty_tower(
    arguments: VisionTowerModelArguments, config: VisionTowerConfigArguments
) -> VilaUVisionTowerForPreTraining:
    """
    Builds the vision tower of a recipe without weights, on the device `meta`.

    Only the configuration of the checkpoint is read.

    Args:
        arguments ([`VisionTowerModelArguments`]): arguments of the model.
        config ([`VisionTowerConfigArguments`]): fields that replace those of its configuration.
    """
    source = _source_of(arguments)
    with torch.device("meta"):
        if arguments.siglip_name_or_path is None:
            return VilaUVisionTowerForPreTraining(VilaUVisionConfig.from_pretrained(source, **config.given()))
        return VilaUVisionTowerForPreTraining.from_siglip(
            SiglipModel(AutoConfig.from_pretrained(source)), **config.given()
        )


def load_tower_collator(arguments: VisionTowerModelArguments, config: VilaUVisionConfig) -> VisionTowerDataCollator:
    """
    Loads the collator of a vision tower. It has a tokenizer if the tower has a contrastive loss.

    Args:
        arguments ([`VisionTowerModelArguments`]): arguments of the model.
        config ([`VilaUVisionConfig`]): configuration of the vision tower.
    """
    tokenizer = None
    if config.contrastive_loss_weight:
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer_name_or_path or _source_of(arguments))
    text_config: Any = config.text_config
    size = {"height": config.image_size, "width": config.image_size}
    image_processor = VilaUImageProcessor(size=size, **_reading_settings(arguments))
    return VisionTowerDataCollator(image_processor, tokenizer, text_config.max_position_embeddings)


def _reading_settings(arguments: VisionTowerModelArguments) -> dict[str, Any]:
    """Returns the limits of image files and the EXIF switch of the tower that a recipe starts from, if it has any."""
    if arguments.siglip_name_or_path is not None:
        return {}  # image processors of other models have no such settings
    source = _source_of(arguments)
    if Path(source).is_dir():
        file = Path(source, PROCESSOR_FILE)
        if not file.is_file():
            return {}
    else:
        try:
            file = Path(hf_hub_download(source, PROCESSOR_FILE))
        except EntryNotFoundError:
            return {}
    return {name: value for name, value in read_json(file).items() if name in READING_SETTINGS}


def _source_of(arguments: VisionTowerModelArguments) -> str:
    """Returns the folder or Hub id of the model that a recipe starts from."""
    if arguments.model_name_or_path == "tiny":
        return f"{TINY_CHECKPOINT}/tower"
    return arguments.model_name_or_path or arguments.siglip_name_or_path or ""


def build_tower_datasets(
    data: VisionTowerDataArguments,
    config: VilaUVisionConfig,
    seed: int,
    image_processor: VilaUImageProcessor | VilaUImageProcessorPil | None = None,
) -> TowerDatasets:
    """
    Builds the datasets of a vision tower.

    Args:
        data ([`VisionTowerDataArguments`]): arguments of the data.
        config ([`VilaUVisionConfig`]): configuration of the vision tower.
        seed (`int`): seed for drawing shapes.
        image_processor ([`VilaUImageProcessor`], *optional*): defines the limits of image files, and whether images
            are turned by their EXIF data.

    Returns:
        [`TowerDatasets`]

    Raises:
        ValueError: if `label_column` is not a column of class labels.
    """
    if data.dataset == "drawn_shapes":
        return _drawn_shapes(data, config.image_size, seed)
    # One loader for both datasets, so that it counts all skipped images.
    to_records = partial(
        _to_records,
        data=data,
        loader=MediaLoader(on_bad_media=data.on_bad_media, image_processor=image_processor),
        has_captions=bool(config.contrastive_loss_weight),
    )
    train = load_dataset(data.dataset, data.dataset_config, split=data.train_split)
    result = TowerDatasets(_with_records(train, data, to_records))
    if data.eval_split is None:
        return result
    dataset = load_dataset(data.dataset, data.dataset_config, split=data.eval_split)
    dataset = dataset.select(range(min(data.num_eval_samples, len(dataset))))
    if data.label_column is not None:
        labels = dataset.features[data.label_column]
        if not isinstance(labels, ClassLabel):
            raise ValueError(
                f"`label_column` must be a column of type ClassLabel, but {data.label_column!r} is {labels}."
            )
        result.classes = [data.class_caption.format(name.replace("_", " ")) for name in labels.names]
        result.label_of = _label_of
    result.eval = _with_records(dataset, data, to_records)
    return result


def _label_of(record: dict) -> int:
    return record["label"]


def _with_records(dataset: Dataset, data: VisionTowerDataArguments, to_records: Callable[[dict], dict]) -> Any:
    """Returns a dataset whose rows are converted to records when they are read."""
    # Not decoded by `datasets`: `MediaLoader` opens images, and handles those that cannot be opened.
    dataset = dataset.cast_column(data.image_column, Image(decode=False))
    # Without the other columns, of which `datasets` would decode images, also from URLs.
    used = [name for name in (data.image_column, data.caption_column, data.label_column) if name in dataset.features]
    dataset = dataset.select_columns(used).with_transform(to_records)
    return ReadableRows(dataset) if data.on_bad_media == "skip" else dataset


def _to_records(
    batch: dict[str, list], data: VisionTowerDataArguments, loader: MediaLoader, has_captions: bool
) -> dict[str, list]:
    """Converts the columns of a batch to records with open images."""
    records = {"images": [[image] for image in batch[data.image_column]]}
    if has_captions:
        records["caption"] = batch[data.caption_column]
    if data.label_column in batch:
        records["label"] = batch[data.label_column]
    records = loader(records)
    # The loader has checked the sizes and turned the images. `convert` alone would clip values of 16 bits.
    settings: dict[str, Any] = {"do_exif_transpose": False, "max_image_pixels": None, "max_aspect_ratio": None}
    return {**records, "images": [[to_rgb(image, **settings) for image in images] for images in records["images"]]}


def _drawn_shapes(data: VisionTowerDataArguments, side: int, seed: int) -> TowerDatasets:
    # Not at the top: only this dataset needs `drawn`, which is above `training` in the order of imports.
    from ..drawn import drawn_shapes
    from ..drawn.shapes import COLORS, SHAPES

    settings: dict[str, Any] = {"image_size": side, "tasks": {"text_to_image": 1}}
    pairs = [(color, shape) for color in COLORS for shape in SHAPES]

    def label_of(record: dict) -> int:
        return pairs.index((record["drawing"]["color"], record["drawing"]["shape"]))

    return TowerDatasets(
        drawn_shapes("train", data.num_train_samples, seed=seed, short_captions=0.5, **settings),
        drawn_shapes("test", data.num_eval_samples, **settings),
        [f"a {color} {shape}" for color, shape in pairs],
        label_of,
    )


__all__ = ["TowerDatasets", "build_tower_datasets", "load_empty_tower", "load_tower", "load_tower_collator"]
