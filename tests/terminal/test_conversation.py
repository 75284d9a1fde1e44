"""A conversation: what the model reads and generates, and what is kept of it."""

import numpy as np
import pytest
import torch

from vilau_hf.drawn import drawn_shapes
from vilau_hf.terminal.conversation import Conversation


CROSS = "a small red cross at the bottom on a white background"


@pytest.fixture(scope="module")
def shape():
    return drawn_shapes("test", 1, tasks={"text_to_image": 1})[0]["images"][0]


def ask(shapes, content, **settings):
    """The answer of `generate` to one message, with pixels instead of codes."""
    model, processor = shapes
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    return inputs, model.generate(**inputs, **settings)


def test_draws_the_image_of_generate_and_streams_it(shapes, view):
    model, processor = shapes
    conversation = Conversation(*shapes)
    answer = conversation.answer([CROSS], view, seed=3)
    _, output = ask(shapes, CROSS, generation_mode="interleaved", seed=3, max_new_tokens=80)
    (span,) = output.spans[0]
    (medium,) = answer.parts
    assert medium.kind == "image" and torch.equal(medium.codes, span.codes.flatten(0, 1)[None])
    pixels = model.decode_image_tokens(span.codes[None])
    expected = processor.post_process_multimodal_output(pixels, generation_mode="image")
    assert np.array_equal(medium.frames[0], expected[0])
    assert [(position, total) for position, total, _ in view.progress] == [(n, 64) for n in range(1, 65)]
    assert [n for n, _, preview in view.progress if preview is not None] == list(range(8, 65, 8))
    assert view.media == [medium] and view.is_closed and view.text == "" and answer.num_cut_off == 0


def test_answers_questions_about_attached_images(shapes, shape, view):
    _, processor = shapes
    conversation = Conversation(*shapes)
    answer = conversation.answer([conversation.encode("image", [shape]), "describe the image"], view, seed=0)
    content = [{"type": "image", "image": shape}, {"type": "text", "text": "describe the image"}]
    inputs, ids = ask(shapes, content, max_new_tokens=30)
    expected = processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert view.text == expected and answer.parts == [expected] and view.order == ["text"]


def test_tells_stories_of_texts_and_images_in_order(shapes, view):
    conversation = Conversation(*shapes, max_visual_spans=1)
    answer = conversation.answer(["tell a story of a yellow circle"], view, seed=0)
    kinds = ["text" if isinstance(part, str) else part.kind for part in answer.parts]
    assert kinds == view.order and kinds[:2] == ["text", "image"] and kinds.count("image") == 1
    assert "yellow circle" in answer.parts[0]


def test_can_require_a_video(shapes, view):
    conversation = Conversation(*shapes, settings={"num_frames": 2})
    answer = conversation.answer(["a large red circle moving left on a black background"], view, 0, "video")
    (medium,) = answer.parts
    assert medium.kind == "video" and len(medium.frames) == 2 and medium.codes.shape == (2, 64, 4)
    assert view.progress[-1][:2] == (128, 128)


def test_reads_the_messages_before_unless_told_not_to(shapes, shape, view):
    conversation = Conversation(*shapes)
    medium = conversation.encode("image", [shape])
    conversation.answer([medium, "describe the image"], view, seed=0)
    (_, asked), (role, answered) = conversation.messages
    inputs = conversation._encode_prompt([*conversation.messages, ("user", ["what color is the shape?"])])
    text = shapes[1].decode(inputs["input_ids"][0])
    assert role == "assistant" and answered[0] in text and text.count("USER:") == 2
    assert asked[0] is medium and torch.equal(inputs["codes"], medium.codes)
    alone = Conversation(*shapes, keeps_history=False)
    alone.answer([medium, "describe the image"], view, seed=0)
    assert alone.messages == []


def test_a_conversation_that_is_too_long_is_refused_and_stays_as_it_was(shapes, shape, view):
    conversation = Conversation(*shapes)
    medium = conversation.encode("image", [shape])
    with pytest.raises(ValueError, match="positions"):
        conversation.answer([medium] * 16, view, seed=0)
    assert conversation.messages == [] and view.is_closed


def test_says_how_much_of_an_image_was_cut_off(shapes, shape, view):
    conversation = Conversation(*shapes)
    medium = conversation.encode("image", [shape])
    # 15 images leave room for some of the positions of the next one
    answer = conversation.answer([*[medium] * 15, CROSS], view, seed=0)
    assert 0 < answer.num_cut_off == len(view.progress) < 64 and view.media == []
