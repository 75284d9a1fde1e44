import json

from datasets import Dataset, Image

from vilau_hf.data.media import MediaLoader

from ...processing.conftest import build_processor
from .sources import convert, png, save_image, turns


def test_converts_an_imagefolder(tmp_path):
    """Format: huggingface.co/docs/datasets/image_dataset: an imagefolder with metadata.jsonl."""
    for index in range(3):
        save_image(tmp_path / "data/train" / f"{index}.png", index)
    lines = [{"file_name": f"{index}.png", "caption": f"image {index}"} for index in range(3)]
    (tmp_path / "data/train/metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    for num_shards in (1, 2):
        records, _ = convert(tmp_path / "data", "hub", target="media", num_shards=num_shards)
        assert sorted(turns(record)[0][1][0] for record in records) == ["image 0", "image 1", "image 2"]
        assert len({record["id"] for record in records}) == 3
    opened = MediaLoader(build_processor()).load(records[0])["images"][0]
    assert opened.size == (8, 6)


def test_converts_a_parquet_dataset(tmp_path):
    """Format: huggingface.co/docs/datasets/image_load: a column of images is stored as `{"bytes", "path"}`."""
    dataset = Dataset.from_dict({"image": [{"bytes": png(), "path": "a.png"}], "text": ["a bus"], "n": [1]})
    dataset = dataset.cast_column("image", Image())
    (tmp_path / "data").mkdir()
    dataset.to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
    records, _ = convert(tmp_path / "data", "hub", target="text", caption_field="text", id_field="n")
    assert turns(records[0]) == [("user", [("image",)]), ("assistant", ["a bus"])]
    assert records[0]["images"][0]["bytes"] == png() and records[0]["id"] == "1"
