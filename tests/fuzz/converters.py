"""Record converters and the writing of records."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from hypothesis import strategies as st

from vilau_hf.data.converters import ConversionReport, convert_records, write_records

from ..data.converters.sources import mmc4_document, png, save_image
from .classification import Case, Given, Wrong
from .values import odd


MEDIA = [
    "a.png",
    "none.png",
    "../a.png",
    "/etc/passwd",
    "s3://b/a.png",
    "http://x/a.png",
    "",
    None,
    3,
    {"path": "a.png"},
]
TURNS = [
    {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "a bus"}]},
    {"role": "assistant", "content": "b"},
]
TALK = [{"from": "human", "value": "<image>\nwhat"}, {"from": "gpt", "value": "that"}]
# a good row of each format, and its options
FORMATS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llava": ({"id": "1", "image": "a.png", "conversations": TALK}, {}),
    "mmc4": ({**mmc4_document(), "image_info": [{**mmc4_document()["image_info"][0], "image_name": "a.png"}]}, {}),
    "parquet": ({"key": "0", "caption": "a red circle", "jpg": "a.png"}, {"target": "text"}),
    "openvid": (
        {"video": "a.png", "caption": "a"},
        {"target": "media", "media_folder": Given("FOLDER/data", lambda folder: str(folder / "data"))},
    ),
    "vflan": ({"question": "q", "answer": "a", "image": ["a.png"]}, {}),
    "chat": ({"id": "0", "messages": TURNS, "images": ["a.png"]}, {}),
    "records": ({"id": "0", "messages": TURNS, "images": [{"path": "a.png", "bytes": None}], "videos": []}, {}),
}
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*MEDIA, "<image>", "\ud83d", "</s>"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def rows(draw: Any, good: Any) -> Any:
    """Draws a row in which values at any depth are replaced or missing."""
    if draw(st.integers(0, 5)) == 0:
        return draw(JSON_VALUES)
    if isinstance(good, dict) and good:
        name = draw(st.sampled_from(sorted(good)))
        if draw(st.integers(0, 4)) == 0:
            return {key: value for key, value in good.items() if key != name}
        return {**good, name: draw(rows(good[name]))}
    if isinstance(good, list) and good:
        index = draw(st.integers(0, len(good) - 1))
        return [*good[:index], draw(rows(good[index])), *good[index + 1 :]]
    return good


def convert(source: Any, format: Any, folder: str, **options: Any) -> tuple[ConversionReport, list[dict]]:
    """Converts a source, writes the records, and reads what was written."""
    report = ConversionReport()
    records = convert_records(source, format, report=report, **options)
    try:
        files = write_records(records, Path(folder) / "out", records_per_file=3)
    except ValueError as error:
        if "has no records" not in str(error):
            raise
        files = []
    return report, [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]


def _naive_faults(record: dict) -> str | None:
    """Returns what is wrong in a written record by a naive reading of the schema."""
    messages = record["messages"]
    roles = [message["role"] for message in messages]
    parts = [part for message in messages for part in message["content"]]
    if not set(roles) & {"assistant", "document"} or not set(roles) <= {"system", "user", "assistant", "document"}:
        return f"roles {roles}"
    for kind in ("image", "video"):
        if sum(part["type"] == kind for part in parts) != len(record[f"{kind}s"] or []):
            return f"{len(record[f'{kind}s'] or [])} {kind}s"
    for part in parts:
        if part["type"] == "text" and (not isinstance(part["text"], str) or "<image>" in part["text"]):
            return f"text {part['text']!r}"
    return None


def _check(count: int | None, folder_of: list[str], format: str = "") -> Any:
    """
    Returns the check of a conversion of `count` rows, `None` where a damaged file has an unknown number.

    Stored records keep the paths that they have.
    """

    def check(result: Any) -> None:
        report, records = result
        if report.num_records != len(records):
            raise Wrong(f"{report.num_records} records in the report, {len(records)} in the files")
        if count is not None and report.num_records + report.skipped.total() != count:
            raise Wrong(f"{report.num_records} records and {report.skipped.total()} skipped of {count} rows")
        for record in records:
            fault = _naive_faults(record)
            if fault is not None:
                raise Wrong(f"a written record has {fault}")
            for item in [*(record["images"] or []), *(record["videos"] or [])]:
                path = item["path"]
                is_web = isinstance(path, str) and path.startswith(("http://", "https://"))
                is_outside = path is not None and not Path(path).resolve().is_relative_to(folder_of[0])
                if format != "records" and item["bytes"] is None and not is_web and is_outside:
                    raise Wrong(f"a record refers to {path!r}, outside of the folder of the source")

    return check


def _source(name: str, content: bytes, folder_of: list[str]) -> Given:
    """Returns a source file in a folder with one image."""

    def write(folder: Path) -> str:
        data = folder / "data"
        save_image(data / "a.png")
        (folder / "a.png").write_bytes(b"outside")
        (data / name).write_bytes(content)
        folder_of[:] = [str(data.resolve())]
        return str(data / name)

    return Given(f"{name}({content[:150]!r}, {len(content)} bytes)", write)


@st.composite
def row_cases(draw: Any) -> Case:
    """Draws files of rows, each of which may have any value."""
    format = draw(st.sampled_from(sorted(FORMATS)))
    good, options = FORMATS[format]
    given = draw(st.lists(rows(good), min_size=1, max_size=4))
    kind = draw(st.sampled_from(["jsonl", "json", "json.zip"]))
    text = "\n".join(json.dumps(row) for row in given) if kind == "jsonl" else json.dumps(given)
    content = text.encode()
    # A file whose first line is an array is read as this array.
    count = None if kind == "jsonl" and isinstance(given[0], list) else len(given)
    if kind == "json.zip":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("rows.json", content)
        content = stream.getvalue()
    folder_of: list[str] = []
    arguments = {"source": _source(f"rows.{kind}", content, folder_of), "format": format, **options}
    names = ("source", "rows", "FOLDER")
    folder = Given("FOLDER", str)
    return Case(
        "convert",
        convert,
        {**arguments, "folder": folder},
        names,
        None if count is None else True,
        _check(count, folder_of, format),
    )


@st.composite
def file_cases(draw: Any) -> Case:
    """Draws damaged files of any type."""
    format = draw(st.sampled_from(sorted(FORMATS)))
    good, options = FORMATS[format]
    kind = draw(
        st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet", "tar", "jsonl.gz", "pkl", "txt", "json.zip"])
    )
    content = json.dumps(good).encode()
    if kind == "parquet":
        stream = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"caption": "a", "jpg": png()}] * 3), stream)
        content = stream.getvalue()
    if kind == "tar":
        content = draw(st.sampled_from([b"", b"\0" * 1024, _tar_content()]))
    length = len(content)
    how = draw(st.sampled_from(["cut", "flip", "none", "random", "repeat"]))
    position = draw(st.integers(0, max(0, length - 1)))
    damaged = {
        "cut": content[:position],
        "flip": content[:position] + bytes([(content[position] if length else 0) ^ 0xFF]) + content[position + 1 :],
        "none": content,
        "random": draw(st.binary(max_size=40)),
        "repeat": content * 2,
    }[how]
    folder_of: list[str] = []
    source = _source(f"rows.{kind}", damaged, folder_of)
    names = ("source", "rows", "FOLDER", "format", f"rows.{kind}", "file")
    if draw(st.integers(0, 4)) == 0:
        return Case(
            "convert",
            convert,
            {"source": source, "format": "webdataset", "target": "text", "folder": Given("FOLDER", str)},
            names,
            None,
            _check(None, folder_of),
        )
    return Case(
        "convert",
        convert,
        {"source": source, "format": format, **options, "folder": Given("FOLDER", str)},
        names,
        None,
        _check(None, folder_of, format),
    )


def _tar_content() -> bytes:
    """Returns a tar archive with one sample."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in (("0.png", png()), ("0.txt", b"a red circle")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@st.composite
def argument_cases(draw: Any) -> Case:
    """Draws odd arguments of the converters and of the writer."""
    folder_of: list[str] = []
    source = draw(
        st.just(_source("rows.jsonl", json.dumps(FORMATS["vflan"][0]).encode(), folder_of))
        | odd()
        | st.sampled_from(["", "none.jsonl", "/dev/zero", "\0", ["a.jsonl"], "a" * 300])
    )
    arguments = {"source": source, "format": draw(st.sampled_from(["vflan", "llava", "pickle", "x"]) | odd())}
    for name in draw(
        st.lists(
            st.sampled_from(["target", "media_folder", "num_shards", "name", "nonsense"]), max_size=2, unique=True
        )
    ):
        arguments[name] = draw(odd())
    arguments["folder"] = Given("FOLDER", str)
    return Case(
        "convert",
        convert,
        arguments,
        ("file", "option", "Options", "options", *([source] if isinstance(source, str) and source else [])),
        None,
        None,
    )


def cases() -> st.SearchStrategy[Case]:
    """Draws a conversion."""
    return st.one_of(row_cases(), row_cases(), row_cases(), file_cases(), argument_cases())
