"""Datasets of the Hub with an image and a caption in each row."""

from datasets import load_dataset
from datasets.distributed import split_dataset_by_node

from .captions import CaptionConverter


class HubCaptionConverter(CaptionConverter):
    """
    A dataset of the Hub (or a folder that `load_dataset` reads, as an imagefolder) with columns of images and
    captions, read as a stream: nothing is downloaded that is not reached.

    Args:
        target (`str`): see [`CaptionConverter`], as all others not named here.
        caption_field (`str`, *optional*, defaults to `"caption"`), media_field (`str`, *optional*, defaults to
            `"image"`): columns.
        config_name (`str`, *optional*): configuration of the dataset.
        split (`str`, *optional*, defaults to `"train"`).
    """

    def __init__(
        self,
        target,
        caption_field="caption",
        media_field="image",
        id_field=None,
        media="image",
        prompt=None,
        config_name=None,
        split="train",
    ):
        super().__init__(target, caption_field, media_field, id_field, media, prompt=prompt)
        self.config_name = config_name
        self.split = split

    def list_sources(self, source):
        return [source] if isinstance(source, str) else list(source)

    def rows(self, source, part, num_parts):
        yield from hub_rows(source, self.config_name, self.split, part, num_parts)


def hub_rows(source: str, config_name: str | None, split: str, part: int, num_parts: int):
    """Names and rows of a share of a dataset that `load_dataset` reads, media as they are stored."""
    dataset = load_dataset(source, config_name, split=split, streaming=True).decode(False)
    for index, row in enumerate(split_dataset_by_node(dataset, part, num_parts)):
        yield f"{split}:{part}:{index}" if num_parts > 1 else f"{split}:{index}", row


__all__ = ["HubCaptionConverter", "hub_rows"]
