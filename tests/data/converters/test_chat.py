import json

from datasets import Dataset, Image, List

from .sources import convert, png, save_image, turns


def chat_rows(folder):
    save_image(folder / "a.png")
    said = {"role": "assistant", "content": "a cat"}
    return [
        {"messages": [{"role": "user", "content": "What is it?"}, said], "images": ["a.png"]},
        {"prompt": [{"role": "user", "content": "What?"}], "completion": [said], "image": "a.png"},
        {"prompt": "The sky is", "completion": " blue."},
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
            ],
            "images": ["a.png"],
        },
        {"prompt": "The sky is"},
        {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]},
    ]


def check_chats(records, report):
    assert turns(records[0]) == [("user", [("image",), "What is it?"]), ("assistant", ["a cat"])]
    assert turns(records[1]) == [("user", [("image",), "What?"]), ("assistant", ["a cat"])]
    assert turns(records[2]) == [("user", ["The sky is"]), ("assistant", [" blue."])]
    assert turns(records[3])[:2] == [("system", ["Be brief."]), ("user", ["What?", ("image",)])]
    assert report.skipped == {"neither messages nor prompt and completion": 1, "unknown role": 1}


def test_converts_json_lines(tmp_path):
    """
    Format: huggingface.co/docs/trl/dataset_formats.

    The position of images is that of trl's `prepare_multimodal_messages`.
    """
    rows = chat_rows(tmp_path)
    (tmp_path / "chats.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    check_chats(*convert(tmp_path / "chats.jsonl", "chat"))


def test_converts_a_table_with_typed_columns(tmp_path):
    """As huggingface.co/datasets/trl-lib/llava-instruct-mix: in typed columns all content parts have a `text`."""
    row = chat_rows(tmp_path)[3] | {"images": [{"bytes": png(), "path": "a.png"}]}
    dataset = Dataset.from_list([row]).cast_column("images", List(Image()))
    assert dataset[0]["messages"][1]["content"][1] == {"type": "image", "text": None}
    (tmp_path / "data").mkdir()
    dataset.to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
    records, _ = convert(tmp_path / "data", "chat")
    assert turns(records[0])[1] == ("user", ["What?", ("image",)])
    assert records[0]["images"][0]["bytes"] == png()
