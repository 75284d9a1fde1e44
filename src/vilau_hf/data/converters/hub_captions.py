"""Datasets of the Hub with an image and a caption in each row."""

from collections.abc import Iterator
from typing import Any

from datasets import load_dataset
from datasets.distributed import split_dataset_by_node

from .captions import CaptionConverter


class HubCaptionConverter(CaptionConverter):
    """
    Converts a dataset of the Hub, or a folder that `load_dataset` reads (such as an imagefolder).

    The dataset is read as a stream, so only the rows that are read are downloaded.

    Args:
        target (`str`): see [`CaptionConverter`], also for all arguments that are not listed here.
        caption_field (`str`, *optional*, defaults to `"caption"`): column of the captions.
        media_field (`str`, *optional*, defaults to `"image"`): column of the images.
        config_name (`str`, *optional*): configuration of the dataset.
        split (`str`, *optional*, defaults to `"train"`): split of the dataset.
    """

    def __init__(
        self,
        target: str,
        caption_field: str = "caption",
        media_field: str = "image",
        id_field: str | None = None,
        media: str = "image",
        prompt: str | None = None,
        config_name: str | None = None,
        split: str = "train",
    ) -> None:
        super().__init__(target, caption_field, media_field, id_field, media, prompt=prompt)
        self.config_name = config_name
        self.split = split

    def list_sources(self, source: str | list[str]) -> list[str]:
        """Returns the names of the datasets."""
        return [source] if isinstance(source, str) else list(source)

    def rows(self, source: str, shard: int, num_shards: int) -> Iterator[tuple[str, Any]]:
        """Yields names and rows of one shard of the dataset."""
        yield from hub_rows(source, self.config_name, self.split, shard, num_shards)


def hub_rows(
    source: str, config_name: str | None, split: str, shard: int, num_shards: int
) -> Iterator[tuple[str, dict]]:
    """
    Yields names and rows of one shard of a dataset that `load_dataset` reads.

    Args:
        source (`str`): id of the dataset, or a folder.
        config_name (`str`, *optional*): configuration of the dataset.
        split (`str`): split of the dataset.
        shard (`int`): index of the shard.
        num_shards (`int`): number of shards.
    """
    # Not decoded, so that media stay as they are stored, like in records.
    dataset = load_dataset(source, config_name, split=split, streaming=True).decode(False)
    # The index counts the rows of this shard, so names have to contain the shard.
    for index, row in enumerate(split_dataset_by_node(dataset, shard, num_shards)):
        yield f"{split}:{shard}:{index}" if num_shards > 1 else f"{split}:{index}", row


__all__ = ["HubCaptionConverter", "hub_rows"]
