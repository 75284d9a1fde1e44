"""Several sources of records, mixed by weight."""

import dataclasses
import math
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, IterableDataset, interleave_datasets, load_dataset

from ..files import read_yaml
from .converters import build_converter, stream_records
from .converters.rows import check_source
from .packing import count_tokens


if TYPE_CHECKING:
    from ..processing import VilaUProcessor


STOPPING_STRATEGIES = ("all_exhausted", "all_exhausted_without_replacement", "first_exhausted")


@dataclass
class MixtureSource:
    """
    One source of a mixture.

    Args:
        source (`str` or `list[str]`): see [`convert_records`].
        format (`str`): see [`convert_records`].
        name (`str`): prefix of the ids of its records.
        weight (`float`, *optional*, defaults to 1.0): share of its records in the mixture, relative to the other
            sources.
        target (`str`, *optional*): the target of training, for formats of captions: `"media"` for the image or video
            of a caption, `"text"` for the caption. In all other formats the target is what the assistant says.
        options (`dict`, *optional*): other options of the converter of this format.
    """

    source: str | list[str]
    format: str
    name: str
    weight: float = 1.0
    target: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"`name` of a source must be a string that is not empty, got {reprlib.repr(self.name)}.")
        # `True` is an `int` in Python, but a mistake in a YAML file.
        is_number = isinstance(self.weight, (int, float)) and not isinstance(self.weight, bool)
        if not is_number or not 0 < self.weight < math.inf:
            raise ValueError(
                f"`weight` of the source {self.name!r} must be a positive number, got {reprlib.repr(self.weight)}."
            )
        if not isinstance(self.options, Mapping) or not all(isinstance(key, str) for key in self.options):
            raise ValueError(
                f"`options` of the source {self.name!r} must be a dictionary of options by name, got "
                f"{reprlib.repr(self.options)}."
            )
        check_source(self.source)
        options = self.options if self.target is None else {"target": self.target, **self.options}
        self.converter = build_converter(self.format, **options)
        # Listed only once, so that all ranks, workers and passes have the same files.
        self.files = self.converter.list_sources(self.source)


@dataclass
class Mixture:
    r"""
    Interleaves sources of records: the source of each record is drawn by weight.

    A YAML file can describe a mixture:

    ```yaml
    seed: 0
    stopping_strategy: all_exhausted
    datasets:
      - {name: chat, format: llava, source: llava_v1_5_mix665k.json, options: {media_folder: images}, weight: 2}
      - {name: coyo, format: parquet, source: "coyo/*.parquet", target: media}
      - {name: coyo-captions, format: parquet, source: "coyo/*.parquet", target: text, weight: 0.5}
      - {name: documents, format: mmc4, source: "mmc4/*.jsonl", options: {media_folder: mmc4/images}}
    ```

    A source of the format `"encoded"` holds the codes of its images and videos (see [`encode_dataset`]). If a mixture
    has such a source, training does not run the vision tower. Its other sources must then be encoded or have text
    only.

    Args:
        sources (`list[MixtureSource]`): at least one source. Their names must differ.
        seed (`int`, *optional*, defaults to 0): seed of the draws.
        stopping_strategy (`str`, *optional*, defaults to `"all_exhausted"`): when a pass ends, as in
            `datasets.interleave_datasets`. With `"all_exhausted"`, a source that ends starts again until each source
            has ended once, so the weights hold for the whole pass. With `"all_exhausted_without_replacement"`, each
            record is read once, and the weights hold until the first source ends. With `"first_exhausted"`, the pass
            ends with the first source.
    """

    sources: list[MixtureSource]
    seed: int = 0
    stopping_strategy: str = "all_exhausted"

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"`sources` must be at least one, with different names, got {names}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"`seed` of a mixture must be an integer of at least 0, got {reprlib.repr(self.seed)}.")
        if self.stopping_strategy not in STOPPING_STRATEGIES:
            raise ValueError(
                f"`stopping_strategy` must be one of {', '.join(STOPPING_STRATEGIES)}, got "
                f"{reprlib.repr(self.stopping_strategy)}."
            )

    @classmethod
    def from_yaml(cls, file: str | os.PathLike) -> "Mixture":
        """
        Reads a mixture from a YAML file. Relative paths in it are relative to the working directory.

        Args:
            file (`str` or `PathLike`): the YAML file.

        Raises:
            ValueError: for keys that are unknown or missing, naming the file and the dataset.
        """
        config = read_yaml(Path(file))
        if not isinstance(config, Mapping) or not isinstance(config.get("datasets"), list):
            raise ValueError(f"`file` {str(file)!r} must hold a key `datasets` with a list.")
        # Unknown keys are errors, because a misspelled key would silently have its default.
        _check_keys(config, {"datasets"}, {"seed", "stopping_strategy"}, f"{str(file)!r}")
        allowed = set(MixtureSource.__dataclass_fields__)
        for index, entry in enumerate(config["datasets"]):
            _check_keys(entry, {"source", "format", "name"}, allowed, f"`datasets[{index}]` of {str(file)!r}")
        sources = [MixtureSource(**entry) for entry in config["datasets"]]
        return cls(sources, **{name: value for name, value in config.items() if name != "datasets"})

    @property
    def encoded_folders(self) -> list[str]:
        """Returns the folders of codes among the sources. [`check_tower`] compares them with the tower of a model."""
        folders = [source.source for source in self.sources if source.format == "encoded"]
        return [name for each in folders for name in ([each] if isinstance(each, str) else each)]

    @property
    def probabilities(self) -> list[float]:
        """Returns the probability of each source to give the next record."""
        total = sum(source.weight for source in self.sources)
        return [source.weight / total for source in self.sources]

    def stream(self, num_shards: int = 1) -> IterableDataset:
        """
        Returns the mixture as a stream of records.

        Args:
            num_shards (`int`, *optional*, defaults to 1): the number of shards of each source is a multiple of this.
        """
        streams = [
            stream_records(source.converter, source.files, num_shards=num_shards, name=source.name)
            for source in self.sources
        ]
        if len(streams) == 1:
            return streams[0]
        return interleave_datasets(streams, self.probabilities, self.seed, stopping_strategy=self.stopping_strategy)

    def dataset(self) -> Dataset:
        """
        Returns the mixture with random access, for length-grouped batches (see [`add_lengths`]).

        All sources must be of the format `"records"`. [`write_records`] converts other formats into it.

        Raises:
            ValueError: for a source of another format.
        """
        for source in self.sources:
            if source.format != "records":
                raise ValueError(
                    f"The source {source.name!r} must be of the format 'records' for random access, got "
                    f"{source.format!r}: write its records to a folder first (`vilau records`)."
                )
        datasets = [
            keep_media_closed(load_dataset("parquet", data_files=source.files, split="train"))
            for source in self.sources
        ]
        if len(datasets) == 1:
            return datasets[0]
        return interleave_datasets(datasets, self.probabilities, self.seed, stopping_strategy=self.stopping_strategy)


def _check_keys(entry: Any, needed: set[str], optional: set[str], where: str) -> None:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} must be a dictionary, got {reprlib.repr(entry)}.")
    missing = needed - set(entry)
    unknown = set(entry) - needed - optional
    if missing or unknown:
        raise ValueError(
            f"{where} must have the keys {', '.join(sorted(needed))}, and may have "
            f"{', '.join(sorted(optional - needed))}; missing: {sorted(missing)}, unknown: {sorted(unknown, key=str)}."
        )


def add_lengths(dataset: Dataset, processor: "VilaUProcessor", column: str = "length") -> Dataset:
    """
    Adds the number of tokens of each record, for `train_sampling_strategy="group_by_length"`.

    No media are opened. All images have the same number of visual tokens. A video file is counted with the number of
    frames that are sampled.

    Args:
        dataset (`datasets.Dataset`): records.
        processor ([`VilaUProcessor`]): counts the tokens.
        column (`str`, *optional*, defaults to `"length"`): name of the new column, the `length_column_name` of the
            trainer.
    """

    def count(batch: Mapping[str, list]) -> dict[str, list[int]]:
        records = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        return {column: count_tokens(records, processor)}

    return dataset.map(count, batched=True)


def keep_media_closed(dataset: Dataset) -> Dataset:
    """
    Returns records whose images and videos are opened by [`MediaLoader`] alone.

    The schema of [`record_features`] says so. With other schemas, `datasets` would open media itself, also from URLs.
    It does so in all columns and nested values.

    Args:
        dataset (`datasets.Dataset`): records.
    """
    for name, feature in dataset.features.items():
        closed = closed_feature(feature)
        if closed != feature:
            dataset = dataset.cast_column(name, closed)
    return dataset


def closed_feature(feature: Any) -> Any:
    """
    Returns a feature of `datasets` whose media are not decoded, also inside of lists and dictionaries.

    Args:
        feature: a feature, or features by name.
    """
    if isinstance(feature, dict):
        return type(feature)({name: closed_feature(each) for name, each in feature.items()})
    if isinstance(feature, list):  # an old form of `List`
        return [closed_feature(each) for each in feature]
    if hasattr(feature, "feature"):
        return dataclasses.replace(feature, feature=closed_feature(feature.feature))
    return dataclasses.replace(feature, decode=False) if getattr(feature, "decode", False) else feature


__all__ = ["Mixture", "MixtureSource", "add_lengths"]
