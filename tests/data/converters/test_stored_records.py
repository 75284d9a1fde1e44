import pyarrow
import pyarrow.parquet

from vilau_hf.data.converters import write_records

from .sources import convert


DOCUMENT = [{"role": "document", "content": [{"type": "text", "text": "a red circle"}]}]


def test_reads_records_as_they_were_written(tmp_path):
    record = {"id": "a", "messages": DOCUMENT, "images": [], "videos": []}
    write_records([record], tmp_path / "records")
    assert convert(tmp_path / "records", "records")[0] == [record]


def test_skips_rows_that_are_not_records(tmp_path):
    rows = [{"id": None, "messages": DOCUMENT, "other": 1}, {"id": "b", "messages": None, "other": 2}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    records, report = convert(tmp_path / "rows.parquet", "records")
    assert [record["id"] for record in records] == ["rows:0"]
    assert report.skipped == {"no messages": 1}
