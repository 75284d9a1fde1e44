import pyarrow
import pyarrow.parquet

from .sources import convert, png, turns


def test_converts_img2dataset_for_both_targets(tmp_path):
    """
    Format: github.com/rom1504/img2dataset, README and writer.py.

    Parquet output has the metadata, and the image as `jpg`.
    """
    rows = [
        {"caption": "a red bus ", "url": "http://a", "key": "000000000", "status": "success", "jpg": png(0)},
        {"caption": "gone", "url": "http://b", "key": "000000001", "status": "failed_to_download", "jpg": None},
        {"caption": None, "url": "http://c", "key": "000000002", "status": "success", "jpg": png(1)},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "00000.parquet")
    records, report = convert(tmp_path, "parquet", target="media")
    assert turns(records[0]) == [("user", ["a red bus"]), ("assistant", [("image",)])]
    assert records[0]["id"] == "000000000" and records[0]["images"][0]["bytes"] == png(0)
    assert report.skipped == {"no image or video": 1, "field 'caption' is not a text": 1}
    records, _ = convert(tmp_path, "parquet", target="text")
    assert turns(records[0]) == [("user", [("image",)]), ("assistant", ["a red bus"])]
    records, _ = convert(tmp_path, "parquet", target="text", prompt="Describe it.")
    assert turns(records[0])[0] == ("user", [("image",), "Describe it."])


def test_skips_and_counts_urls_of_coyo(tmp_path):
    """Format: github.com/kakaobrain/coyo-dataset, README, "Attributes"."""
    row = {"id": 2559800550877, "url": "https://artusa.com/a.jpg", "text": "Fuel State Critical", "width": 600}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "part-00000.snappy.parquet")
    options = {"caption_field": "text", "media_field": "url", "id_field": "id"}
    records, report = convert(tmp_path / "*.parquet", "parquet", target="media", **options)
    assert not records
    assert "1  an image or video is a URL: download it first, for example with img2dataset" in str(report)
