"""Records that were written before."""

from .conversion import Converter


class StoredRecordConverter(Converter):
    """Parquet of [`write_records`], in the columns of [`record_features`]; anything else is skipped and counted."""

    fields = ("id", "messages", "images", "videos")

    def convert(self, row_id, row, source, report):
        return {name: row.get(name) or [] for name in ("messages", "images", "videos")} | {
            "id": row_id if row.get("id") is None else row["id"]
        }


__all__ = ["StoredRecordConverter"]
