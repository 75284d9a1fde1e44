import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from vilau_hf.data.code_shards import CodeShards, code_dtype, encoded_features


# a grid of 2 x 2 visual tokens with 3 codes in [0, 300)
TOWER = {
    "fingerprint": "0123456789abcdef",
    "config": {"image_size": 8, "patch_size": 4, "code_depth": 3, "codebook_size": 300},
    "images": {},
    "videos": {},
    "weights": "abc",
}


def rows(first, count):
    """Returns encoded records, one with an image and a video of two frames, the others with an image."""
    codes = np.random.default_rng(first).integers(0, 300, (count, 3, 12)).astype(np.uint16)
    messages = [{"role": "document", "content": [{"type": "image", "text": None}]}]
    records = [{"id": str(first + row), "messages": messages, "codes": [codes[row, :1]]} for row in range(count)]
    records[0]["codes"].append(codes[0, 1:])
    return records


def test_code_dtype_is_the_smallest_type():
    for size, name in ((24, "uint8"), (256, "uint8"), (257, "uint16"), (16384, "uint16"), (65537, "uint32")):
        assert code_dtype(size) == name


def test_shards_divide_the_records(tmp_path):
    shards = CodeShards(tmp_path, TOWER, num_records=7, shard_size=3)
    assert [shards.record_range(shard) for shard in range(shards.num_shards)] == [range(3), range(3, 6), range(6, 7)]
    assert shards.header["code_shape"] == [4, 3] and shards.header["code_dtype"] == "uint16"
    with pytest.raises(ValueError, match="`shard_size` must be an integer of at least 1, got 0"):
        CodeShards(tmp_path, TOWER, num_records=7, shard_size=0)


def test_reads_back_the_written_codes(tmp_path):
    shards = CodeShards(tmp_path / "codes", TOWER, num_records=5, shard_size=3)
    shards.begin()
    written = [rows(0, 3), rows(3, 2)]
    assert shards.missing() == [0, 1]
    assert shards.write(1, written[1]) == shards.path(1).stat().st_size
    assert shards.missing() == [0] and not shards.finish()
    with pytest.raises(ValueError, match="are not all encoded yet: run the encoding again to continue"):
        CodeShards.read_index(tmp_path / "codes")
    shards.write(0, written[0])
    assert shards.finish()
    index = CodeShards.read_index(tmp_path / "codes")
    assert index["tower"] == TOWER and [shard["num_records"] for shard in index["shards"]] == [3, 2]
    for file, records in zip(CodeShards.files(tmp_path / "codes", index), written, strict=True):
        expected = [{**row, "codes": [item.tolist() for item in row["codes"]]} for row in records]
        table = pq.read_table(file)
        assert table.to_pylist() == expected
        assert table.schema.equals(encoded_features(12, np.dtype("uint16")).arrow_schema)
    assert shards.read_first(1)["id"] == "3"


def test_rejects_codes_of_another_type(tmp_path):
    shards = CodeShards(tmp_path / "codes", TOWER, num_records=1, shard_size=1)
    shards.begin()
    record = {**rows(0, 1)[0], "codes": [np.zeros((1, 12), np.int64)]}
    with pytest.raises(ValueError, match=r"`codes` must be arrays of uint16 and shape \(F, 12\), got int64"):
        shards.write(0, [record])
    assert shards.missing() == [0]


def test_rejects_a_shard_of_another_tower(tmp_path):
    shards = CodeShards(tmp_path / "codes", TOWER, num_records=1, shard_size=1)
    shards.begin()
    shards.write(0, rows(0, 1))
    other = CodeShards(tmp_path / "codes", {**TOWER, "fingerprint": "other"}, num_records=1, shard_size=1)
    with pytest.raises(ValueError, match="holds codes of the tower 0123456789abcdef, not of other"):
        other.finish()


def test_interrupted_run_resumes_only_with_its_arguments(tmp_path):
    CodeShards(tmp_path, TOWER, num_records=5, shard_size=3).begin()
    before = (tmp_path / "index.json").read_bytes()
    CodeShards(tmp_path, TOWER, num_records=5, shard_size=3).begin()
    for tower, sizes, message in (
        ({**TOWER, "fingerprint": "other"}, (5, 3), "was begun with the tower 0123456789abcdef"),
        (TOWER, (6, 3), "was begun with `num_records` 5, not 6"),
        (TOWER, (5, 4), "was begun with `shard_size` 3, not 4"),
    ):
        with pytest.raises(ValueError, match=message):
            CodeShards(tmp_path, tower, *sizes).begin()
    assert (tmp_path / "index.json").read_bytes() == before
    assert list(json.loads(before)) == ["tower", "code_shape", "code_dtype", "num_records", "shard_size"]
