"""Records whose images and videos were encoded by `vilau encode`."""

import pyarrow.parquet
from datasets import Features

from ..code_shards import CodeShards
from .conversion import ConversionReport, Converter


class EncodedRecordConverter(Converter):
    """Reads folders of [`encode_dataset`]: records with `codes` instead of images and videos."""

    fields = ("id", "messages", "codes")

    def list_sources(self, source: str | list[str]) -> list[str]:
        """Returns the shards of one or several folders."""
        folders = [source] if isinstance(source, str) else source
        return [str(file) for folder in folders for file in CodeShards.files(folder, CodeShards.read_index(folder))]

    def features(self, files: list[str]) -> Features:
        """Returns the schema of records with `codes` in the type of the files."""
        stored = Features.from_arrow_schema(pyarrow.parquet.read_schema(files[0]))
        # `images` and `videos` stay in the schema, because `records` adds them as empty lists.
        return Features({**super().features(files), "codes": stored["codes"]})

    def convert(self, row_id: str, row: dict, source: str, report: ConversionReport) -> dict:
        """Returns the row, which is a record already."""
        return {name: row[name] for name in self.fields}


__all__ = ["EncodedRecordConverter"]
