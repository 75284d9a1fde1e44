"""Records whose images and videos were encoded before."""

import pyarrow.parquet
from datasets import Features

from ..code_shards import CodeShards
from .conversion import Converter


class EncodedRecordConverter(Converter):
    """Folders of [`encode_dataset`]: records with `codes` in place of images and videos."""

    fields = ("id", "messages", "codes")

    def list_sources(self, source):
        folders = [source] if isinstance(source, str) else source
        return [str(file) for folder in folders for file in CodeShards.files(folder, CodeShards.read_index(folder))]

    def features(self, files):
        stored = Features.from_arrow_schema(pyarrow.parquet.read_schema(files[0]))
        return Features({**super().features(files), "codes": stored["codes"]})

    def convert(self, row_id, row, source, report):
        return {name: row[name] for name in self.fields}


__all__ = ["EncodedRecordConverter"]
