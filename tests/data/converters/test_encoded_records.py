import pytest

from vilau_hf.data.code_shards import CodeShards
from vilau_hf.data.converters import convert_records

from ..test_code_shards import TOWER, rows


def test_reads_records_with_codes_in_their_type(tmp_path):
    shards = CodeShards(tmp_path / "codes", TOWER, num_records=5, shard_size=3)
    shards.begin()
    written = [rows(0, 3), rows(3, 2)]
    for shard, records in enumerate(written):
        shards.write(shard, records)
    with pytest.raises(ValueError, match="are not all encoded yet"):
        convert_records(str(tmp_path / "codes"), "encoded")
    shards.finish()
    dataset = convert_records(str(tmp_path / "codes"), "encoded", num_shards=2)
    assert dataset.num_shards == 2 and "uint16" in str(dataset.features["codes"])
    # The first record of each shard has two items of codes for one content part, so it is skipped.
    assert [record["id"] for record in dataset] == ["1", "2", "4"]
    first = next(iter(dataset))
    assert first["codes"] == [written[0][1]["codes"][0].tolist()] and first["images"] == first["videos"] == []
