import json
import math
import os

import pytest

from vilau_hf.data.converters import build_converter, convert_records, write_records
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

from .sources import llava_rows, mmc4_document, png, save_image


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
    assert report.examples["malformed row"] == ["2 in a.jsonl"]


def test_report_prints_a_table():
    report = ConversionReport()
    for index in range(5):
        report.skip("no image or video", f"row:{index}")
    report.skip("no target", "x")
    report.drop("image without a sentence", "row:7")
    report.add({"images": [{"path": None, "bytes": b"x"}, {"path": "a.png", "bytes": None}], "videos": []})
    assert str(report).splitlines() == [
        "1 records, 6 rows skipped",
        "         5  no image or video  (row:0, row:1, row:2)",
        "         1  no target  (x)",
        "left out of records",
        "         1  image without a sentence  (row:7)",
        "1 images in files",
        "1 images within the records",
    ]


def test_finds_media_in_bytes_dictionaries_and_files(tmp_path):
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
        ("media/a.png", None, in_file),
        ({"path": "a.png", "bytes": None}, str(tmp_path / "media"), in_file),
        (str(tmp_path / "media/a.png"), None, in_file),
        ("a.png", [str(tmp_path / "media"), "elsewhere"], in_file),
        (str(tmp_path / "media/a.png"), ["elsewhere", str(tmp_path / "media")], in_file),
        ({"path": math.nan, "bytes": b"x"}, None, in_memory),
    ):
        assert find_media(value, folder, source) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no image or video"),
        ({"path": ""}, "no image or video"),
        (3, "an image or video is neither bytes nor a file name"),
        (math.nan, "no image or video"),
        ({"path": None, "bytes": b""}, "no image or video"),
        ({"path": "a.png", "bytes": "text"}, "the bytes of an image or video are no bytes"),
        ({"path": {}}, "an image or video is neither bytes nor a file name"),
        ("none.png", "file of an image or video is missing"),
        ("a" * 300, "file of an image or video is missing"),
        ("\ud83d.png", "file of an image or video is missing"),
        ("../outside.png", "an image or video cannot be used: it is outside of the folders of media"),
        ("/etc/passwd", "an image or video cannot be used: it is outside of the folders of media"),
        ("link.png", "an image or video cannot be used: it is outside of the folders of media"),
        ("fifo.png", "an image or video cannot be used: it is not a regular file"),
        ("nul\0.png", "an image or video cannot be used: a file name must not contain a null character"),
        *(
            (url, "an image or video is a URL: download it first, for example with img2dataset")
            for url in (
                "https://example.org/a.png",
                "s3://bucket/a.png",
                "file:///etc/passwd",
                "zip://a.png::http://127.0.0.1/x.zip",
                "data:,a",
            )
        ),
    ],
)
def test_skips_rows_without_media(tmp_path, value, reason):
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "outside.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    os.mkfifo(folder / "fifo.png")
    with pytest.raises(SkipRow, match=reason):
        find_media(value, None, str(folder / "rows.jsonl"))


def test_reads_fields_of_a_row():
    assert get_text({"text": " a "}, "text") == "a"
    assert get_id({"key": 3}, "key", "rows:0") == "3"
    assert get_id({"key": None}, "key", "rows:0") == get_id({}, None, "rows:0") == "rows:0"
    assert as_list(None) == [] and as_list("a") == as_list(["a"]) == ["a"]
    assert decode_base64("YQ==") == b"a"
    with pytest.raises(SkipRow, match="image is not base64"):
        decode_base64("no base64!")
    for value in ([1], {}, True):
        with pytest.raises(SkipRow, match="field 'key' is neither a text nor a number"):
            get_id({"key": value}, "key", "rows:0")
    assert get_id({"key": math.nan}, "key", "rows:0") == "rows:0" and as_list(math.nan) == []
    with pytest.raises(SkipRow, match="field 'text' is not a text"):
        get_text({"text": 3}, "text")


ODD_VALUES = [
    None, True, 0, -1, 10**400, math.nan, math.inf, "", " ", "\ud83d", "\0", "<image>", "a" * 300, "../../etc/passwd",
    "/dev/zero", "s3://bucket/a.png", [], [None], [[]], [1, "a"], ["human"], {}, {"": None}, {"path": math.nan},
    {"bytes": "x"}, {"type": "text"}, [{"type": ["text"]}], [{"from": ["human"]}], [{"role": {}, "content": 1}],
]  # fmt: skip


def variants(value):
    """Yields copies of a row in which one value at any depth is missing or replaced by an odd value."""
    yield from ODD_VALUES
    if isinstance(value, dict):
        for key in value:
            yield {name: item for name, item in value.items() if name != key}
            yield from ({**value, key: other} for other in variants(value[key]))
    elif isinstance(value, list):
        for index in range(min(len(value), 2)):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in variants(value[index]))


def rows_of_formats(folder):
    """Returns a good row and the options of each format of JSON lines."""
    caption = {"key": "0", "caption": "a red circle", "jpg": "a.png"}
    content = [{"type": "image", "text": None}, {"type": "text", "text": "a bus"}]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "b"}]
    return {
        "llava": (llava_rows(folder)[0], {}),
        "mmc4": ({**mmc4_document(), "image_info": [{**mmc4_document()["image_info"][0], "image_name": "a.png"}]}, {}),
        "parquet": (caption, {"target": "text"}),
        "openvid": ({"video": "a.png", "caption": "a"}, {"target": "media", "media_folder": str(folder)}),
        "vflan": ({"question": "q", "answer": "a", "image": ["a.png"]}, {}),
        "chat": ({"id": "0", "messages": turns, "images": ["a.png"]}, {}),
        "records": (
            {"id": "0", "messages": turns, "images": [{"path": "a.png", "bytes": None}], "videos": []},
            {},
        ),
    }


@pytest.mark.parametrize("format", ["llava", "mmc4", "parquet", "openvid", "vflan", "chat", "records"])
def test_every_row_becomes_a_record_or_a_reason_with_its_file_and_position(tmp_path, format):
    save_image(tmp_path / "a.png")
    good, options = rows_of_formats(tmp_path)[format]
    lines = [json.dumps(row) for row in (good, *variants(good), good)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    report = ConversionReport()
    records = convert_records(str(tmp_path / "rows.jsonl"), format, report=report, **options)
    # Writing shows that each record can be stored, and no record is lost in it.
    write_records(records, tmp_path / "out")
    assert report.num_records >= 2 and report.num_records + report.skipped.total() == len(lines)
    for reason in report.skipped:
        assert all(f" in {tmp_path}/rows.jsonl" in example for example in report.examples[reason])
    assert not [reason for reason in report.skipped if "Error" in reason]


def test_an_error_of_a_converter_is_a_reason_like_others():
    class Careless(Documents):
        def convert(self, row_id, row, source, report):
            return {"id": row_id, "messages": row["texts"]}

    report = ConversionReport()
    assert list(Careless().records("a.jsonl", 0, 1, report)) == []
    assert report.skipped == {"malformed row (KeyError)": 3, "malformed row": 1}


def test_a_damaged_file_costs_no_other_file(tmp_path):
    good = json.dumps({"question": "2 + 2?", "answer": "4"})
    (tmp_path / "a.jsonl").write_text("\n".join([good] * 3))
    (tmp_path / "b.json").write_text(f"[{good}, {good}")
    (tmp_path / "c.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00" + b"\xff" * 64)
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no table")
    (tmp_path / "e.jsonl").write_text(good)
    report = ConversionReport()
    records = list(convert_records(str(tmp_path), "vflan", report=report))
    assert len(records) == 5 and report.skipped.total() == 3
    examples = sorted(example for listed in report.examples.values() for example in listed)
    assert examples == [
        f"after row b:0 in {tmp_path}/b.json",
        f"before the first row in {tmp_path}/c.jsonl.gz",
        f"before the first row in {tmp_path}/d.parquet",
    ]
    # Without a report, as in training, the error has the same facts.
    with pytest.raises(ValueError, match=r"Cannot read '.*b.json': ValueError: .* \(after row b:0\)"):
        list(convert_records(str(tmp_path), "vflan"))


def test_stores_only_the_fields_of_the_schema(tmp_path):
    content = [{"type": "image", "text": None, "index": 3}, {"type": "text", "text": "a", "image": None}]
    row = {
        "id": "0",
        "messages": [{"role": "user", "content": content, "name": "x"}, {"role": "assistant", "content": "b"}],
        "images": [{"path": None, "bytes": None, "url": "x"}],
    }

    class Given(Documents):
        def convert(self, row_id, row_, source, report):
            return {**row, "images": [{**row["images"][0], "bytes": png()}]}

    record = next(Given().records("a.jsonl", 0, 1, ConversionReport()))
    assert record["images"] == [{"path": None, "bytes": png()}]
    assert record["messages"] == [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "a"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    ]


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("llava", {"media_folder": 3}, "`media_folder` of the format 'llava' must be .*str.*, got 3"),
        ("mmc4", {"max_images": "6"}, "`max_images` of the format 'mmc4' must be int, got '6'"),
        ("mmc4", {"max_images": True}, "`max_images`"),
        ("mmc4", {"min_similarity": None}, "`min_similarity` of the format 'mmc4' must be float, got None"),
        ("vflan", {"question_field": ["q"]}, "`question_field`"),
        ([], {}, "`format` must be one of .*, got "),
    ],
)
def test_rejects_options_of_a_wrong_type(format, options, message):
    with pytest.raises(ValueError, match=message):
        build_converter(format, **options)
    build_converter("mmc4", min_similarity=1, media_folder=["a", "b"])
