"""Files of prompts, in the formats in which benchmarks publish theirs."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


# Fields with the text of a prompt, the first that an entry has. The second is the name in WISE, the third in VBench,
# the last in DPG-Bench.
TEXT_FIELDS = ("prompt", "Prompt", "prompt_en", "text")


@dataclass(frozen=True)
class Prompt:
    """
    One prompt of a file.

    Args:
        text (`str`): the prompt.
        source (`str`): file and line, for error messages.
        fields (`Mapping[str, Any]`): all fields of its entry. A file of a folder has the field `id`, its name.
    """

    text: str
    source: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def read_prompts(path: str | Path) -> list[Prompt]:
    """
    Reads all prompts of a file, in its order.

    These are the formats, by the suffix of the file. All are UTF-8.

    - `.txt`: one prompt on each line.
    - `.jsonl`: an object on each line, with the prompt in one of `TEXT_FIELDS`.
    - `.csv` and `.tsv`: a first line with names, one of which is in `TEXT_FIELDS`.
    - `.json`: a list of prompts or of objects, or an object that has them by their ids.
    - a folder of `.txt` files: one prompt in each, with the name of the file as id, in the order of names.

    Args:
        path (`str` or `Path`): the file or the folder.

    Returns:
        The prompts, at least one.

    Raises:
        ValueError: if the file cannot be read, has no prompts, or has a bad line. The message has file, line and
            reason.
    """
    path = Path(path)
    if path.is_dir():
        prompts = _read_folder(path)
    elif path.suffix.lower() not in READERS:
        known = ", ".join(READERS)
        raise ValueError(f"{path}: the suffix must be one of {known}, or the path a folder of .txt files.")
    else:
        prompts = READERS[path.suffix.lower()](path, _read_text(path))
    if not prompts:
        raise ValueError(f"{path} has no prompts.")
    return prompts


def _read_text(path: Path) -> str:
    """Returns the content of a file. Editors on Windows begin it with a byte order mark, which is left out."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: the text is not UTF-8 ({error.reason}).") from error


def _lines(path: Path, text: str) -> list[tuple[str, str]]:
    """Returns source and content of each line, without line ends. Empty lines at the end are left out."""
    # Not `splitlines`, which also splits at characters that a prompt may have, such as a vertical tab.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return [(f"{path}, line {number}", line) for number, line in enumerate(lines, 1)]


def _read_lines(path: Path, text: str) -> list[Prompt]:
    return [_prompt(line, source) for source, line in _lines(path, text)]


def _read_json_lines(path: Path, text: str) -> list[Prompt]:
    prompts = []
    for source, line in _lines(path, text):
        # An empty line would shift the numbers of the prompts after it, which are their seeds and file names.
        if not line.strip():
            raise ValueError(f"{source}: the line is empty.")
        prompts.append(_prompt_of_entry(_parse_json(line, source), source))
    return prompts


def _parse_json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source}: not valid JSON, {error.msg} at column {error.colno}.") from error
    except RecursionError as error:
        raise ValueError(f"{source}: not valid JSON, it is nested too deeply.") from error


def _read_json(path: Path, text: str) -> list[Prompt]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not valid JSON, {error.msg}.") from error
    except RecursionError as error:
        raise ValueError(f"{path}: not valid JSON, it is nested too deeply.") from error
    if isinstance(content, list):
        return [_prompt_of_entry(entry, f"{path}, entry {number}") for number, entry in enumerate(content, 1)]
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a list or an object, got {type(content).__name__}.")
    prompts = []
    for key, entry in content.items():
        prompt = _prompt_of_entry(entry, f"{path}, entry {key!r}")
        prompts.append(Prompt(prompt.text, prompt.source, {**prompt.fields, "id": key}))
    return prompts


def _read_table(path: Path, text: str, delimiter: str) -> list[Prompt]:
    lines = io.StringIO(text.rstrip("\r\n"), newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names: list[str] | None = None
    prompts = []
    line = 1
    try:
        for row in reader:
            source = f"{path}, line {line}"
            line = reader.line_num + 1  # a row with line ends in quotes has several lines
            if names is None:
                names = row
                if not set(TEXT_FIELDS) & set(names):
                    expected = ", ".join(TEXT_FIELDS)
                    raise ValueError(f"{source}: the names of the columns must have one of {expected}, got {names}.")
                continue
            if len(row) != len(names):
                raise ValueError(f"{source}: {len(row)} cells, but the first line has {len(names)} names.")
            prompts.append(_prompt_of_entry(dict(zip(names, row, strict=True)), source))
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: not valid CSV, {error}.") from error
    return prompts


def _read_folder(path: Path) -> list[Prompt]:
    prompts = []
    for file in sorted(path.glob("*.txt")):
        text = " ".join(_read_text(file).split())
        prompts.append(_prompt(text, str(file), {"id": file.stem}))
    return prompts


def _prompt_of_entry(entry: Any, source: str) -> Prompt:
    """Returns the prompt of a string or of an object."""
    if isinstance(entry, str):
        return _prompt(entry, source)
    if not isinstance(entry, dict):
        raise ValueError(f"{source}: expected an object with the field 'prompt', got {type(entry).__name__}.")
    name = next((name for name in TEXT_FIELDS if name in entry), None)
    if name is None:
        raise ValueError(f"{source}: no field {', '.join(map(repr, TEXT_FIELDS))}; it has {sorted(entry)}.")
    if not isinstance(entry[name], str):
        raise ValueError(f"{source}: the field {name!r} must be a text, got {type(entry[name]).__name__}.")
    return _prompt(entry[name], source, entry)


def _prompt(text: str, source: str, fields: Mapping[str, Any] | None = None) -> Prompt:
    if not text.strip():
        raise ValueError(f"{source}: the prompt is empty.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # JSON can hold one as an escape sequence. No tokenizer and no file name can.
        raise ValueError(f"{source}: the prompt has half of a surrogate pair, {text[error.start]!r}.") from error
    return Prompt(text.strip(), source, fields or {})


def _read_commas(path: Path, text: str) -> list[Prompt]:
    return _read_table(path, text, ",")


def _read_tabs(path: Path, text: str) -> list[Prompt]:
    return _read_table(path, text, "\t")


READERS: dict[str, Callable[[Path, str], list[Prompt]]] = {
    ".txt": _read_lines,
    ".jsonl": _read_json_lines,
    ".csv": _read_commas,
    ".tsv": _read_tabs,
    ".json": _read_json,
}


__all__ = ["TEXT_FIELDS", "Prompt", "read_prompts"]
