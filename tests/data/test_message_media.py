import base64

import numpy as np
import pytest
import torch
from PIL import Image

from vilau_hf.data import MediaError, VilaUDataCollator
from vilau_hf.data.message_media import collect_media
from vilau_hf.data.packing import count_tokens
from vilau_hf.data.records import RecordError

from ..processing.conftest import build_processor
from .converters.sources import png


IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
PLACEHOLDER = {"type": "image", "text": None}


def record(*content_parts, **fields):
    user = {"role": "user", "content": [*content_parts, {"type": "text", "text": "what is this"}]}
    return {"id": "r1", "messages": [user, {"role": "assistant", "content": "a circle"}], **fields}


def test_moves_media_of_messages_into_fields():
    frames = [IMAGE, IMAGE]
    given = record({"type": "image", "image": IMAGE}, {"type": "video", "video": frames}, images=[])
    collected = collect_media(given)
    assert collected["images"] == [IMAGE] and collected["videos"] == [frames]
    assert collected["messages"][0]["content"][:2] == [PLACEHOLDER, {"type": "video", "text": None}]
    assert given["messages"][0]["content"][0]["image"] is IMAGE and given["images"] == []
    without = record(PLACEHOLDER, images=[IMAGE])
    assert collect_media(without) is without


def test_makes_the_same_batch_as_with_fields(tmp_path):
    processor = build_processor()
    collator = VilaUDataCollator(processor, unconditional_probability=0)
    (tmp_path / "a.png").write_bytes(png())
    expected = collator([record(PLACEHOLDER, images=[png()])])
    for content_part in (
        {"type": "image", "image": Image.open(tmp_path / "a.png")},
        {"type": "image", "image": str(tmp_path / "a.png")},
        {"type": "image", "image": png()},
        {"type": "image", "path": str(tmp_path / "a.png")},
        {"type": "image", "base64": base64.b64encode(png()).decode()},
    ):
        batch = collator([record({**content_part, "text": None})])
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
    given = record({"type": "image", "image": IMAGE}, {"type": "video", "video": [IMAGE] * 3})
    stored = record(PLACEHOLDER, {"type": "video", "text": None}, images=[IMAGE], videos=[[IMAGE] * 3])
    assert count_tokens([given], processor) == count_tokens([stored], processor)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (record({"type": "image", "image": IMAGE}, PLACEHOLDER), "1 of 2 content parts hold one"),
        (
            record({"type": "image", "image": IMAGE}, images=[IMAGE]),
            "1 of 1 content parts hold one, and",
        ),
        (record({"type": "image", "base64": "no base64!"}), "must be an image in base64"),
        (record(PLACEHOLDER, images=IMAGE), "`images` must be a list, got Image: put a single one into a list"),
        (record(PLACEHOLDER, images="a.png"), "`images` must be a list, got str"),
        (record({"type": "text", "text": None}), "must be a string, got None"),
        (record({"type": "audio"}), "must be of type text, image or video"),
        (
            {"id": "r1", "messages": [{"role": "user", "content": None}]},
            "`content` of `messages.0.` must be a",
        ),
        ({"id": "r1", "messages": None}, "`messages` must be a list of at least one message, got None"),
        ({"id": "r1", "messages": [{"role": ["user"], "content": ""}]}, "`role` of `messages.0.` must be one of"),
    ],
)
def test_collator_names_the_record_of_wrong_messages(given, message):
    with pytest.raises(RecordError, match=f"Record 'r1': .*{message}"):
        VilaUDataCollator(build_processor())([given])


def test_collator_downloads_nothing():
    given = record({"type": "image", "url": "http://127.0.0.1:9/a.png"})
    with pytest.raises(MediaError, match=r"images\[0\] of record 'r1' .*it is a URL, download it first"):
        VilaUDataCollator(build_processor())([given])
