import numpy as np
import pytest
from PIL import Image

from vilau_hf.integrations.lmms_prompts import PromptReader, clip_range, flatten

from .conftest import levels


@pytest.fixture
def reader(tiny):
    return PromptReader(tiny.processor, num_frames=4)


def test_messages_keep_roles_and_the_order_of_text_and_images(reader, shapes):
    prompt = reader.from_messages(
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "first"}, {"type": "image", "url": shapes[0]}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a cross"}]},
            {"role": "user", "content": [{"type": "image", "url": shapes[1]}, {"type": "text", "text": "second"}]},
        ]
    )
    assert [message["role"] for message in prompt.messages] == ["system", "user", "assistant", "user"]
    assert prompt.messages[1]["content"] == [{"type": "text", "text": "first"}, {"type": "image"}]
    assert prompt.messages[3]["content"] == [{"type": "image"}, {"type": "text", "text": "second"}]
    assert prompt.images == shapes[:2]
    assert prompt.text == "be brief\nfirst\na cross\nsecond"


def test_media_of_simple_tasks_come_before_the_text(reader, shapes, video_file):
    prompt = reader.from_visuals("question", [[shapes[0], "picture.PNG"], str(video_file)])
    kinds = [part["type"] for part in prompt.messages[0]["content"]]
    assert kinds == ["image", "image", "video", "text"]
    assert prompt.images == [shapes[0], "picture.PNG"]
    assert levels(prompt.videos[0]) == [0, 3, 6, 9]


def test_a_text_needs_no_media(reader):
    assert reader.from_visuals("question", None).messages == [
        {"role": "user", "content": [{"type": "text", "text": "question"}]}
    ]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"start_time": 1.0}, [6, 7, 9, 10]),
        ({"start_time": 0.5, "end_time": 1.0}, [3, 3, 4, 5]),
        ({"url": {"video_start": 1.0, "video_end": 2.0}}, [6, 7, 9, 10]),
    ],
)
def test_reads_clips_of_videos(reader, video_file, part, expected):
    source = {**part["url"], "path": str(video_file)} if "url" in part else str(video_file)
    content = [{**part, "type": "video", "url": source}, {"type": "text", "text": "what happens?"}]
    prompt = reader.from_messages([{"role": "user", "content": content}])
    assert levels(prompt.videos[0]) == expected


def test_repeats_frames_of_short_videos(reader):
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (10, 20)]
    prompt = reader.from_messages([{"role": "user", "content": [{"type": "video", "url": frames}]}])
    assert prompt.videos[0].shape == (4, 8, 8, 3)
    assert prompt.videos[0][:, 0, 0, 0].tolist() == [10, 10, 20, 20]


def test_samples_the_frames_that_the_processor_samples(reader, tiny, video_file):
    settings = {"num_frames": 4, "do_resize": False, "return_tensors": "pt"}
    expected = tiny.processor.video_processor(str(video_file), **settings)["pixel_values_videos"]
    found = tiny.processor.video_processor(reader.from_visuals("", [str(video_file)]).videos, **settings)
    assert np.array_equal(found["pixel_values_videos"], expected)


def test_rejects_content_and_media_of_other_types(reader):
    with pytest.raises(ValueError, match="text, images and videos, got content of type 'audio'"):
        reader.from_messages([{"role": "user", "content": [{"type": "audio", "url": "a.wav"}]}])
    with pytest.raises(ValueError, match="PIL image or the name of a file, got int"):
        reader.from_visuals("question", [3])


def test_rejects_clips_without_frames():
    assert clip_range(12, 6.0, None, None) == (0, 12)
    assert clip_range(12, None, None, None) == (0, 12)
    with pytest.raises(ValueError, match="from 2.0 s to 3.0 s has no frame: the video has 12 frames at 6.0 fps"):
        clip_range(12, 6.0, 2.0, 3.0)
    with pytest.raises(ValueError, match="frame rate"):
        clip_range(12, 0.0, 1.0, None)


def test_flattens_nested_lists():
    assert flatten([1, [2, (3,)], None]) == [1, 2, 3]


def test_frames_have_the_levels_of_their_values(reader):
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    frames = [Image.fromarray(levels.astype(np.uint16) * 257)]
    prompt = reader.from_messages([{"role": "user", "content": [{"type": "video", "url": frames}]}])
    assert np.array_equal(prompt.videos[0][0], np.repeat(levels[..., None], 3, -1))
