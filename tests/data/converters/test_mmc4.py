import pytest

from .sources import convert, turns, write_mmc4


def test_converts_documents(tmp_path):
    """
    Format: github.com/allenai/mmc4, README.

    The JSON lines are zipped, and images are downloaded from `raw_url` to `image_name`.
    """
    records, report = convert(write_mmc4(tmp_path), "mmc4", media_folder=str(tmp_path / "images"))
    first, second, third = (
        "When you lock the door, all lock.",
        "Press the <IMAGE> switch.",
        "When you unlock, all unlock.",
    )
    assert turns(records[0]) == [("document", [first, ("image",), second, ("image",), third])]
    assert [image["path"][-16:] for image in records[0]["images"]] == ["db1c21bc8474.jpg", "b9040a0dbb22.jpg"]
    assert turns(records[1]) == [("document", [first, ("image",), f"{second} {third}"])]
    assert [record["id"] for record in records] == ["http://www.hfitinfo.com/hofi-48.html", "http://half"]
    assert report.skipped == {"document without images": 1, "malformed row": 1}
    assert report.examples["malformed row"][0].startswith("docs_no_face_shard_0_v3:3 in ")
    assert report.dropped == {"file of an image or video is missing": 2}


def test_limits_images_by_number_and_similarity(tmp_path):
    file = write_mmc4(tmp_path)
    records, report = convert(file, "mmc4", media_folder=str(tmp_path / "images"), min_similarity=0.3)
    assert [len(record["images"]) for record in records] == [1, 1]
    assert report.dropped["image less similar than 0.3"] == 3
    records, report = convert(file, "mmc4", media_folder=str(tmp_path / "images"), max_images=1)
    assert records[0]["images"][0]["path"].endswith("b9040a0dbb22.jpg")  # the first one that the document names
    assert report.dropped["image beyond the first 1 of a document"] == 1
    with pytest.raises(ValueError, match="`max_images` must be at least 1, got 0"):
        convert(file, "mmc4", max_images=0)
