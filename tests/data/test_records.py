import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from vilau_hf.data.records import RecordError, media_content_part, record_features, text_content_part, validate_record


def record(*content, role="assistant", **fields):
    return {"id": "r1", "messages": [{"role": role, "content": list(content)}], **fields}


def build_image():
    return Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


def test_stored_records_are_read_back_with_closed_media(tmp_path):
    path = tmp_path / "a.png"
    build_image().save(path)
    content = [media_content_part("image")] * 4 + [text_content_part("four times"), media_content_part("video")]
    images = [str(path), path, path.read_bytes(), build_image()]
    made = record(*content, images=images, videos=[{"path": "no/such.mp4", "bytes": None}])
    validate_record(made)
    stored = Dataset.from_list([made], features=record_features())[0]
    validate_record(stored)
    assert stored["messages"] == made["messages"]
    assert [image["path"] for image in stored["images"]] == [str(path), str(path), None, None]
    assert stored["images"][2]["bytes"] == path.read_bytes()
    assert stored["images"][3]["bytes"][:4] == b"\x89PNG"
    assert stored["videos"] == [{"path": "no/such.mp4", "bytes": None}]  # not looked at


@pytest.mark.parametrize(
    "good",
    [
        {"messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": "that"}]},
        record(text_content_part("a"), media_content_part("image"), role="document", images=["a.png"], videos=None),
        record({"type": "video"}, videos=[[build_image(), build_image()]]),
        record(media_content_part("video"), videos=[np.zeros((2, 4, 4, 3), np.uint8)]),
        record(media_content_part("image"), images=["https://example.org/a.png"]),
    ],
)
def test_accepts_records_in_memory(good):
    validate_record(good)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"id": 3, "messages": []}, r"Record 3: `id` must be a string, got int"),
        ({"id": "r1"}, "Record 'r1': `messages` must be a list of at least one message, got None"),
        ({"messages": [{"role": "user"}]}, r"`messages\[0\]` must be a dictionary with 'role' and 'content'"),
        (
            record(text_content_part("a"), role="tool"),
            r"`role` of `messages\[0\]` must be one of system, user.*got 'tool'",
        ),
        (record(text_content_part("a"), role="user"), "there must be an assistant turn or a document, got user"),
        ({"messages": [{"role": "assistant", "content": 3}]}, r"`content` of `messages\[0\]` must be a string or a"),
        (record({"type": "audio"}), "must be of type text, image or video, got {'type': 'audio'}"),
        (
            record({"type": "text", "text": None}),
            r"the `text` of a content part of `messages\[0\]` must be a string, got None",
        ),
        (record(text_content_part("see <image>")), r"the text of `messages\[0\]` must not contain '<image>'"),
        (record(media_content_part("image")), "1 content parts of type 'image', but `images` has 0 items"),
        (
            record(text_content_part("a"), videos=["a.mp4"]),
            "0 content parts of type 'video', but `videos` has 1 items",
        ),
        (record(media_content_part("image"), images="a.png"), "`images` must be a list, got str"),
        (
            record(media_content_part("image"), images=[{"path": None, "bytes": None}]),
            r"`images\[0\]` must be a file name",
        ),
        (record(media_content_part("image"), images=[["a.png"]]), r"`images\[0\]` must be a file name, bytes"),
        (
            {"messages": [{"role": "document", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "`document` must be the only message, got document, assistant",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a"}, {"role": "system", "content": "b"}]},
            "`system` may only be the first role, got assistant, system",
        ),
    ],
)
def test_rejects_invalid_records(bad, message):
    with pytest.raises(RecordError, match=message):
        validate_record(bad)


def test_rejects_codes_that_do_not_fit_the_messages():
    content = [{"type": "image"}, {"type": "text", "text": "a circle"}]
    record = {"id": "a", "messages": [{"role": "document", "content": content}]}
    validate_record({**record, "codes": [[[0]]]})
    with pytest.raises(RecordError, match="have 1 content parts of type image or video, but `codes` has 2 items"):
        validate_record({**record, "codes": [[[0]], [[0]]]})
    with pytest.raises(RecordError, match="`codes` replace `images` and `videos`"):
        validate_record({**record, "codes": [[[0]]], "images": ["a.png"]})
