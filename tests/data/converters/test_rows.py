import errno
import json
import pickle

import pyarrow
import pyarrow.parquet
import pytest

from vilau_hf.data.converters import convert_records, rows
from vilau_hf.data.converters.rows import read_rows

from .sources import convert, png, write_tar


def test_reads_an_array_element_by_element(tmp_path):
    row = json.dumps({"id": "a", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})
    (tmp_path / "broken.json").write_text(f"[{', '.join([row] * 2000)}, oops")
    records = iter(convert_records(str(tmp_path / "broken.json"), "llava"))
    assert next(records)["id"] == "a"  # before the end is seen
    with pytest.raises(ValueError, match=r"Cannot read '.*broken.json': ValueError: the JSON array is invalid"):
        list(records)


def test_names_a_truncated_tar_file(tmp_path):
    write_tar(tmp_path / "whole.tar", [("a.jpg", png()), ("a.txt", b"a"), ("b.jpg", b"0" * 4000), ("b.txt", b"b")])
    (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:4000])
    with pytest.raises(ValueError, match=r"Cannot read '.*cut.tar': ReadError"):
        list(read_rows(str(tmp_path / "cut.tar")))
    records, report = convert(tmp_path / "cut.tar", "webdataset", target="media")
    assert [record["id"] for record in records] == ["a"]
    assert "rest of a file cannot be read (ReadError" in str(report) and "cut.tar" in str(report)


def test_one_value_that_python_cannot_hold_costs_one_row(tmp_path):
    text = pyarrow.array([b"a", b"\xff", b"c"]).cast(pyarrow.string(), safe=False)
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), tmp_path / "a.parquet")
    assert [row for _, row in read_rows(str(tmp_path / "a.parquet"))] == [{"text": "a"}, None, {"text": "c"}]


def test_reads_long_fields_and_bytes_that_are_no_text_of_csv(tmp_path):
    lines = ["key,caption", "0,a", f"1,{'x' * 200_000}", "2,\udcff", "3,b"]
    (tmp_path / "a.csv").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    found = [row for _, row in read_rows(str(tmp_path / "a.csv"))]
    assert [row["key"] for row in found] == ["0", "1", "2", "3"] and len(found[1]["caption"]) == 200_000
    (tmp_path / "b.csv").write_bytes("key\n1".encode("utf-16"))
    with pytest.raises(ValueError, match="Cannot read '.*b.csv': ValueError: its byte order mark is that of UTF-16"):
        list(read_rows(str(tmp_path / "b.csv")))


def test_errors_of_the_system_stop_a_conversion(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text("{}")

    def fail(file):
        raise PermissionError(errno.EACCES, "Permission denied", file)

    monkeypatch.setitem(rows._READERS, ".jsonl", fail)
    with pytest.raises(PermissionError):
        convert(tmp_path / "a.jsonl", "vflan")


@pytest.mark.parametrize("name", ["coyo_1m.pkl", "disguised.json"])
def test_rejects_pickles(tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    (tmp_path / name).write_bytes(pickle.dumps([Bomb()]))
    for source in (tmp_path / name, tmp_path):
        if name.endswith("json") and source is tmp_path:
            continue
        with pytest.raises(ValueError, match="is a pickle. Loading a pickle can run any code of its author"):
            convert(source, "vflan")
    with pytest.raises(ValueError, match="`format` 'pickle' is not supported: the source is a pickle"):
        convert(tmp_path / name, "pickle")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet", "csv", "tar"])
def test_shards_of_a_file_have_each_row_once(tmp_path, kind):
    numbers = [str(number) for number in range(23)]
    (tmp_path / "a.jpg").write_bytes(b"x")
    rows = [{"key": number, "caption": f"no {number}", "jpg": "a.jpg"} for number in numbers]
    file, format, options = tmp_path / f"rows.{kind}", "parquet", {"target": "media"}
    if kind == "json":
        file.write_text(json.dumps(rows))
    elif kind == "jsonl":
        file.write_text("\n".join(json.dumps(row) for row in rows))
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=5)
    elif kind == "csv":
        file.write_text("key,caption,jpg\n" + "".join(f"{n},no {n},a.jpg\n" for n in numbers))
    else:
        members = [(f"{n}.{end}", data) for n in numbers for end, data in (("jpg", b"x"), ("txt", b"a"))]
        write_tar(file, members)
        format = "webdataset"
    for num_shards in (1, 2, 4, 7, 40):  # of parquet: by row group up to 5, by row from then on
        dataset = convert_records(str(file), format, num_shards=num_shards, **options)
        assert dataset.num_shards == num_shards
        shards = [list(dataset.shard(num_shards, index)) for index in range(num_shards)]
        assert sorted(record["id"] for shard in shards for record in shard) == sorted(numbers)
        assert num_shards > 5 or all(shards)
