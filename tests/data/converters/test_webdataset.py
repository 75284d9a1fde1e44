import json
import pickle

from .sources import convert, png, turns, write_tar


def test_converts_samples_of_tar_files(tmp_path):
    """
    Format: github.com/rom1504/img2dataset, README, and github.com/webdataset/webdataset.

    The first describes the webdataset output, the second names and keys.
    """
    meta = json.dumps({"url": "http://a", "caption": "from json", "key": "000000000", "status": "success"}).encode()
    write_tar(
        tmp_path / "00000.tar",
        [
            ("./000000000.jpg", png()),
            ("./000000000.txt", b"a red bus"),
            ("./000000000.json", meta),
            ("./000000001.txt", b"no image"),
            ("./000000001.json", meta),
            ("./000000002.png", png(2)),
            ("./000000002.txt", b"\xff\xfe"),
            ("./000000003.webp", png(3)),
            ("./000000003.pyd", pickle.dumps({"caption": "never read"})),
        ],
    )
    records, report = convert(tmp_path / "00000.tar", "webdataset", target="media")
    assert [turns(record) for record in records] == [[("user", ["a red bus"]), ("assistant", [("image",)])]]
    assert records[0]["id"] == "./000000000" and records[0]["images"][0]["bytes"] == png()
    assert report.skipped == {"no image file": 1, "unreadable .txt file": 1, "no .txt file": 1}
    records, report = convert(tmp_path / "00000.tar", "webdataset", target="text", caption_field="json.caption")
    assert turns(records[0]) == [("user", [("image",)]), ("assistant", ["from json"])]
    assert report.skipped == {"no image file": 1, "no .json file": 2}
    write_tar(tmp_path / "videos.tar", [("a.mp4", b"x"), ("a.txt", b"it moves")])
    records, _ = convert(tmp_path / "videos.tar", "webdataset", target="media", media="video")
    assert turns(records[0])[1] == ("assistant", [("video",)]) and records[0]["videos"][0]["bytes"] == b"x"
