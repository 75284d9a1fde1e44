import io
import json
import math

import pytest

from vilau_hf.data.converters import json_rows
from vilau_hf.data.converters.json_rows import read_json_rows


ROWS = [
    {"text": 'a " [ ] { } , \\ \\" <é熊>', "list": [1, [2, {"a": []}]]},
    {},
    "text, with ] and \\",
    [],
    None,
    3.5,
    {"long": "x" * 1000},
]


def read(data: bytes) -> list:
    return list(read_json_rows(io.BufferedReader(io.BytesIO(data))))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 16])
@pytest.mark.parametrize("indent", [None, 2])
def test_reads_an_array_like_the_json_module(monkeypatch, chunk, indent):
    monkeypatch.setattr(json_rows, "_CHUNK", chunk)
    for ensure_ascii in (True, False):
        text = json.dumps(ROWS, indent=indent, ensure_ascii=ensure_ascii)
        assert read(text.encode()) == ROWS
        assert read(b"\xef\xbb\xbf \n" + text.encode() + b" \n\n") == ROWS
    assert read(b"[]") == read(b" [ \n ] ") == []


def test_reads_lines_with_a_byte_order_mark():
    lines = "\n".join(json.dumps(row) for row in ROWS[:3])
    assert read(b"\xef\xbb\xbf" + lines.encode() + b"\n\n") == ROWS[:3]


@pytest.mark.parametrize("text", ['[{"a": NaN}, {"a": -Infinity}]', '{"a": NaN}\n{"a": -Infinity}'])
def test_reads_numbers_that_are_not_finite(text):
    first, second = read(text.encode())
    assert math.isnan(first["a"]) and second["a"] == -math.inf


def test_gives_an_invalid_element_as_its_bytes():
    deep = b"[" * 100_000 + b"]" * 100_000
    invalid = [b'{"a": tru}', b'{"a" 1}', b'{"a": "\xff"}', b"1 2", b"", deep, b"9" * 5000]
    rows = read(b"[" + b", ".join([b"1", *invalid, b"2"]) + b"]")
    assert rows == [1, *invalid, 2]
    rows = read(b"\n".join([b"1", *[line for line in invalid if line], b"2"]))
    assert rows[0] == 1 and rows[-1] == 2 and all(isinstance(row, bytes) for row in rows[1:-1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[1, {"a": 2}', "it has no end"),
        (b'[1, "a', "it has no end"),
        (b"[1] [2]", "there is more content after it"),
        (json.dumps([1]).encode("utf-16"), "that of UTF-16, but it must be UTF-8"),
    ],
)
def test_rejects_a_damaged_array(data, message):
    with pytest.raises(ValueError, match=message):
        read(data)
