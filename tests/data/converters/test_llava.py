import gzip
import json

import pytest

from .sources import convert, llava_rows, save_image, turns


@pytest.mark.parametrize("kind", ["json", "jsonl", "jsonl.gz"])
def test_converts_conversations(tmp_path, kind):
    """
    Format: github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md.

    llava_v1_5_mix665k.json, ShareGPT4V's JSON and VILA's finetuning/README.md (no placeholder) have the same fields.
    """
    rows = llava_rows(tmp_path)
    lines = "\n".join(json.dumps(row) for row in rows)
    file = tmp_path / f"mix.{kind}"
    file.write_bytes(gzip.compress(lines.encode()) if kind.endswith("gz") else (lines.encode()))
    if kind == "json":
        file.write_text(json.dumps(rows, indent=2))
    records, report = convert(file, "llava")
    assert [record["id"] for record in records] == ["000000033471", "7", "vila", "wgByO4Y_0", "two"]
    question, answer = "What are the colors of the bus?", "The bus is white and red."
    assert turns(records[0]) == [
        ("user", [("image",), question]),
        ("assistant", [answer]),
        ("user", ["And the sky?"]),
        ("assistant", ["Blue."]),
    ]
    assert turns(records[1])[0] == ("user", ["Describe the image concisely.", ("image",)])
    assert turns(records[2])[0] == ("user", [("image",), question])
    assert turns(records[3]) == [("user", ["hello"]), ("assistant", ["hi"])]
    assert turns(records[4])[0] == ("user", [("image",), ("image",), "Which is older?"])
    paths = [str(tmp_path / "coco/train2017/000000033471.jpg"), str(tmp_path / "vg/1.jpg")]
    assert [image["path"] for image in records[4]["images"]] == paths
    assert report.num_records == 5
    assert report.skipped == {
        "file of an image or video is missing": 1,
        "number of images differs from the number of content parts": 1,
        "unknown speaker 'function'": 1,
        "no target": 1,
    }
    assert report.media == {"images in files": 5}


def test_converts_videos_with_either_placeholder(tmp_path):
    """LLaVA-Video-178K has `<image>` at the position of its `video`, Video-LLaVA `<video>`."""
    save_image(tmp_path / "a.mp4")
    rows = [
        {"id": str(index), "video": "a.mp4", "conversations": [{"from": "human", "value": f"<{word}>\nwhat"}, answer]}
        for index, (word, answer) in enumerate(
            [("image", {"from": "gpt", "value": "it"}), ("video", {"from": "gpt", "value": "it"})]
        )
    ]
    (tmp_path / "videos.json").write_text(json.dumps(rows))
    records, _ = convert(tmp_path / "videos.json", "llava")
    assert [turns(record)[0] for record in records] == [("user", [("video",), "what"])] * 2
    assert [len(record["videos"]) for record in records] == [1, 1] and not records[0]["images"]
