import pytest

from vilau_hf.data.converters.conversion import (
    ConversionReport,
    Converter,
    SkipRow,
    as_list,
    decode_base64,
    find_media,
    get_id,
    get_text,
)
from vilau_hf.data.records import text_content_part


class Documents(Converter):
    """Converts rows with a `text`, and drops rows with another field."""

    def rows(self, source, shard, num_shards):
        yield from [("0", {"text": "a"}), ("1", {"text": ""}), ("2", "no row"), ("3", {"text": "see <image>"})]

    def convert(self, row_id, row, source, report):
        content = [text_content_part(get_text(row, "text"))]
        return {"id": row_id, "messages": [{"role": "document", "content": content}]}


def test_yields_valid_records_and_counts_the_others():
    report = ConversionReport()
    records = list(Documents().records("a.jsonl", 0, 1, report))
    assert [(record["id"], record["images"], record["videos"]) for record in records] == [("0", [], [])]
    assert report.num_records == 1
    assert report.skipped == {"field 'text' is empty": 1, "malformed row": 1, "placeholder in text": 1}
    assert report.examples["malformed row"] == ["2"]


def test_report_prints_a_table():
    report = ConversionReport()
    for index in range(5):
        report.skip("no image or video", f"row:{index}")
    report.skip("no target", "x")
    report.add({"images": [{"path": None, "bytes": b"x"}, {"path": "a.png", "bytes": None}], "videos": []})
    assert str(report).splitlines() == [
        "1 records, 6 rows skipped",
        "         5  no image or video  (row:0, row:1, row:2)",
        "         1  no target  (x)",
        "1 images in files",
        "1 images within the records",
    ]


def test_finds_media_in_bytes_dictionaries_urls_and_files(tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media/a.png").write_bytes(b"x")
    source = str(tmp_path / "rows.jsonl")
    in_memory = {"path": None, "bytes": b"x"}
    in_file = {"path": str(tmp_path / "media/a.png"), "bytes": None}
    for value, folder, expected in (
        (b"x", None, in_memory),
        (bytearray(b"x"), None, in_memory),
        ({"path": b"x"}, None, in_memory),
        ({"path": "a.png", "bytes": b"x"}, None, {"path": "a.png", "bytes": b"x"}),
        ("https://example.org/a.png", None, {"path": "https://example.org/a.png", "bytes": None}),
        ("media/a.png", None, in_file),
        ({"path": "a.png", "bytes": None}, str(tmp_path / "media"), in_file),
    ):
        assert find_media(value, folder, source) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no image or video"),
        ({"path": ""}, "no image or video"),
        (3, "an image or video is neither bytes nor a file name"),
        ("none.png", "file of an image or video is missing"),
    ],
)
def test_skips_rows_without_media(tmp_path, value, reason):
    with pytest.raises(SkipRow, match=reason):
        find_media(value, None, str(tmp_path / "rows.jsonl"))


def test_reads_fields_of_a_row():
    assert get_text({"text": " a "}, "text") == "a"
    assert get_id({"key": 3}, "key", "rows:0") == "3"
    assert get_id({"key": None}, "key", "rows:0") == get_id({}, None, "rows:0") == "rows:0"
    assert as_list(None) == [] and as_list("a") == as_list(["a"]) == ["a"]
    assert decode_base64("YQ==") == b"a"
    with pytest.raises(SkipRow, match="image is not base64"):
        decode_base64("no base64!")
    with pytest.raises(SkipRow, match="field 'text' is not a text"):
        get_text({"text": 3}, "text")
