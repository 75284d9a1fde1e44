"""Records that were written by `vilau records`."""

from .conversion import ConversionReport, Converter


class StoredRecordConverter(Converter):
    """
    Reads parquet files of [`write_records`], with the columns of [`record_features`].

    Rows that are not valid records are skipped and counted.
    """

    fields = ("id", "messages", "images", "videos")

    def convert(self, row_id: str, row: dict, source: str, report: ConversionReport) -> dict:
        """Returns the row, which is a record already."""
        # Fields may be missing or `None`. `validate_record` checks the rest.
        return {name: row.get(name) or [] for name in ("messages", "images", "videos")} | {
            "id": row_id if row.get("id") is None else row["id"]
        }


__all__ = ["StoredRecordConverter"]
