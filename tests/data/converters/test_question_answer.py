import base64
import json

from .sources import convert, png, save_image, turns


def test_converts_questions_and_answers(tmp_path):
    """
    Format: github.com/NVlabs/VILA, fields of data_prepare/sft/preprocess_m3it.py.

    Images are a list of base64 strings, as in M3IT. `<image>` is removed from the question, as in
    llava/data/dataset.py.
    """
    rows = [
        {"question": "<image>\nWhat is it?", "answer": "a cat", "image": [base64.b64encode(png()).decode()]},
        {"question": "2 + 2?", "answer": "4", "image": None},
        {"question": "What?", "answer": "", "image": []},
        {"question": "What?", "answer": "x", "image": ["no base64!"]},
        {"question": "What?"},
    ]
    (tmp_path / "vqa.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    records, report = convert(tmp_path / "vqa.jsonl", "vflan", image_encoding="base64")
    assert turns(records[0]) == [("user", [("image",), "What is it?"]), ("assistant", ["a cat"])]
    assert records[0]["images"][0]["bytes"] == png()
    assert turns(records[1]) == [("user", ["2 + 2?"]), ("assistant", ["4"])]
    assert report.skipped == {"field 'answer' is empty": 1, "image is not base64": 1, "no field 'answer'": 1}
    assert [record["id"] for record in records] == ["vqa:0", "vqa:1"]
    row = {"q": "Which?", "answer:": "b", "image:": "a.jpg", "id": 3}
    save_image(tmp_path / "media/a.jpg")
    (tmp_path / "files.jsonl").write_text(json.dumps(row))
    options = {"question_field": "q", "answer_field": "answer:", "image_field": "image:", "id_field": "id"}
    records, _ = convert(tmp_path / "files.jsonl", "vflan", media_folder=str(tmp_path / "media"), **options)
    assert records[0]["id"] == "3" and records[0]["images"][0]["path"].endswith("media/a.jpg")
