"""Reads JSON lines, and JSON arrays of any size element by element."""

import gzip
import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any


# binary files that can be read without being unpacked first
BinaryFile = io.BufferedReader | gzip.GzipFile | zipfile.ZipExtFile

UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_CHUNK = 1 << 16

# Strings as a whole, so that signs within them are skipped. A quotation mark alone begins a string that goes on in the
# next chunk. The repetition without alternatives keeps the search linear.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{},]', re.DOTALL)


def read_json_rows(file: BinaryFile) -> Iterator[Any]:
    """
    Yields the elements of a JSON array, or the values of JSON lines.

    `NaN` and `Infinity` are read as floats, as Python writes them. An element that is not valid JSON is given as its
    bytes: such a row is skipped and counted.

    Args:
        file (`BinaryFile`): UTF-8, with or without a byte order mark.

    Raises:
        ValueError: if the file is not UTF-8 by its byte order mark, or an array does not end.
    """
    refuse_utf16(file)
    # An array begins with a bracket, after a byte order mark and blanks. Everything else is read as JSON lines.
    if file.peek(64).removeprefix(UTF8_MARK).lstrip().startswith(b"["):
        yield from _array_elements(file)
        return
    for line in file:
        if line.strip():
            yield _parse(line)


def refuse_utf16(file: BinaryFile) -> None:
    """Raises a `ValueError` for a file with the byte order mark of UTF-16 or UTF-32."""
    if file.peek(2)[:2] in _UTF16_MARKS:
        raise ValueError("its byte order mark is that of UTF-16, but it must be UTF-8.")


def _parse(text: bytes) -> Any:
    """Returns the value of a JSON text, or the text itself if it is invalid."""
    try:
        return json.loads(text)
    # `json` raises `RecursionError` for values that are nested too deeply.
    except (ValueError, RecursionError):
        return text


def _array_elements(file: BinaryFile) -> Iterator[Any]:
    """Yields the elements of the array that a file holds. Only brackets and commas are looked at to separate them."""
    buffer = b""
    size = _CHUNK
    depth = 0
    begin = 0  # of the current element in `buffer`
    position = 0  # in `buffer`, up to which tokens were read
    while chunk := file.read(size):
        buffer = buffer[begin:] + chunk
        position -= begin
        begin = 0
        for token in _TOKEN.finditer(buffer, position):
            sign = token[0]
            if sign == b'"':
                break
            position = token.end()
            if sign in b"[{":
                depth += 1
                if depth == 1:
                    begin = position
            elif sign in b"]}":
                depth -= 1
            ends_array = depth == 0
            if ends_array or (depth == 1 and sign == b","):
                element = buffer[begin : position - 1].strip()
                begin = position
                # The last element may be empty: `[]`, or a comma before the bracket.
                if element or not ends_array:
                    yield _parse(element)
            if ends_array:
                _refuse_content_after(buffer[position:], file)
                return
        # An element longer than the buffer is searched again from `position`. Doubling keeps the sum of copies linear.
        size = _CHUNK if begin else 2 * size
    raise ValueError("the JSON array is invalid: it has no end.")


def _refuse_content_after(rest: bytes, file: BinaryFile) -> None:
    while not rest.strip():
        rest = file.read(_CHUNK)
        if not rest:
            return
    raise ValueError("the JSON array is invalid: there is more content after it.")


__all__ = ["BinaryFile", "read_json_rows", "refuse_utf16"]
