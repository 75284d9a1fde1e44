"""Reads rows of values that are separated by a delimiter, so that a row with broken quotes costs itself alone."""

import csv
from collections import deque
from collections.abc import Iterator
from typing import Any, TextIO


def read_csv_rows(text: TextIO, delimiter: str) -> Iterator[Any]:
    """
    Yields each row as a dictionary by the names of the first row.

    A row with broken quotes is given as its text, and a row with more values than names as a list. Such rows are
    skipped and counted. Missing values at the end of a row are `None`.

    Args:
        text (`TextIO`): an open file, whose line breaks are not converted.
        delimiter (`str`): sign between values.

    Raises:
        csv.Error: if the first row has broken quotes.
    """
    lines = _RepeatableLines(text)
    # Without `strict`, a quote that is never closed makes one value of all following rows.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names: list[str] = []
    while True:
        lines.begin_row()
        try:
            values = next(reader, None)
        except csv.Error:
            if not names:
                raise
            yield lines.repeat_after_first()
            continue
        if values is None:
            return
        if not names:
            names = values
        elif any(values[len(names) :]):
            yield values
        elif values:
            yield {name: values[index] if index < len(values) else None for index, name in enumerate(names)}


class _RepeatableLines:
    """Gives lines one by one, and those after the first line of a row again."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._row: list[str] = []  # lines that were given since the row began
        self._repeated: deque[str] = deque()

    def __iter__(self) -> "_RepeatableLines":
        return self

    def __next__(self) -> str:
        line = self._repeated.popleft() if self._repeated else next(self._text)
        self._row.append(line)
        return line

    def begin_row(self) -> None:
        """Forgets the lines of the last row."""
        self._row = []

    def repeat_after_first(self) -> str:
        """Returns the first line of the current row. The other lines are given again."""
        self._repeated.extendleft(reversed(self._row[1:]))
        return self._row[0]


__all__ = ["read_csv_rows"]
