import pytest

from vilau_hf.data.converters.captions import CaptionConverter, plain_text
from vilau_hf.data.converters.conversion import ConversionReport, SkipRow

from .sources import turns


ROW = {"json": {"caption": "a red bus"}, "jpg": b"x", "key": 7}


def convert(row=ROW, **options):
    converter = CaptionConverter(**{"caption_field": "json.caption", "media_field": "jpg", **options})
    return converter.convert("a:0", row, "a.jsonl", ConversionReport())


def test_target_is_the_last_turn():
    assert turns(convert(target="media")) == [("user", ["a red bus"]), ("assistant", [("image",)])]
    assert turns(convert(target="text")) == [("user", [("image",)]), ("assistant", ["a red bus"])]
    record = convert(target="text", media="video", prompt="What is it?")
    assert turns(record)[0] == ("user", [("video",), "What is it?"])
    assert record["videos"] == [{"path": None, "bytes": b"x"}]


def test_id_is_the_field_or_the_name_of_the_row():
    assert convert(target="media")["id"] == "a:0"
    assert convert(target="media", id_field="key")["id"] == "7"


def test_reads_only_the_fields_it_needs():
    converter = CaptionConverter("media", "json.caption", "jpg", "key")
    assert converter.fields == ("json", "jpg", "key")


@pytest.mark.parametrize(
    ("row", "reason"),
    [({"jpg": b"x"}, "no field 'json.caption'"), ({"json": {"caption": "a"}}, "no field 'jpg'")],
)
def test_skips_rows_without_a_field(row, reason):
    with pytest.raises(SkipRow, match=reason):
        convert(row, target="media")


def test_plain_text_has_no_placeholders():
    assert plain_text("<p> <image> <video>") == "<p> <IMAGE> <VIDEO>"
