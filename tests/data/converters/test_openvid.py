import csv

from .sources import convert, save_image, turns


def test_converts_captions_of_videos(tmp_path):
    """
    Format: huggingface.co/datasets/nkp37/OpenVid-1M, data/train/OpenVid-1M.csv.

    The videos are unpacked to the folder `video`.
    """
    header = "video,caption,aesthetic score,motion score,temporal consistency score,camera motion,frame,fps,seconds"
    with open(tmp_path / "OpenVid-1M.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerow(["celebv_1_0.mp4", 'A woman says "hi",\nthen leaves.', 4.8, 5.1, 0.99, "static", 84, 24, 3.5])
        writer.writerow(["gone.mp4", "Nothing.", 4.8, 5.1, 0.99, "pan_left", 84, 24, 3.5])
    save_image(tmp_path / "video/celebv_1_0.mp4")
    options = {"media_folder": str(tmp_path / "video")}
    records, report = convert(tmp_path / "OpenVid-1M.csv", "openvid", target="media", **options)
    assert turns(records[0]) == [("user", ['A woman says "hi",\nthen leaves.']), ("assistant", [("video",)])]
    assert records[0]["videos"] == [{"path": str(tmp_path / "video/celebv_1_0.mp4"), "bytes": None}]
    assert records[0]["id"] == "celebv_1_0.mp4" and report.skipped == {"file of an image or video is missing": 1}
    records, _ = convert(tmp_path / "OpenVid-1M.csv", "openvid", target="text", prompt="What happens?", **options)
    assert turns(records[0])[0] == ("user", [("video",), "What happens?"])
