"""Training samples, compared with samples assembled by hand and with the masks of the library."""

import numpy as np
import pytest
import torch

from vilau_hf.processing.chat_templates_vilau import VICUNA_SYSTEM_PROMPT

from .conftest import IMAGE, IMAGE_SPAN, VIDEO, VIDEO_SPAN, assistant, build_processor, text, user


@pytest.mark.parametrize("tokenizer", ["words", "bytes", "llama"])
@pytest.mark.parametrize("target", [text("red"), IMAGE, VIDEO])
def test_a_prompt_has_the_same_ids_in_training_and_at_inference(tokenizer, image, video, target):
    processor = build_processor(tokenizer=tokenizer)
    messages = [user(text("draw a circle")), assistant(target)]
    prompt = processor.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=True)[0]
    images, videos = [[image] * (target is IMAGE)], [[video] * (target is VIDEO)]
    sample = processor.encode_training_samples([messages], images, videos)
    assert sample["input_ids"][0, : len(prompt)].tolist() == prompt
    assert sample["labels"][0, : len(prompt)].eq(-100).all()
    rest = {"text": " red", "image": IMAGE_SPAN, "video": VIDEO_SPAN}[target["type"]] + "</s>"
    answer = sample["input_ids"][0, len(prompt) :].tolist()
    assert processor.decode(answer).replace(" ", "") == rest.replace(" ", "")
    assert sample["labels"][0, len(prompt) :].tolist() == answer


CONVERSATIONS = [
    [user(IMAGE, text("what is this")), assistant(text("a red square"))],
    [user(text("draw a circle and a square")), assistant(IMAGE)],
    [user(text("it moves")), assistant(VIDEO)],
    [user(VIDEO), {"role": "assistant", "content": "it moves"}, user(text("draw it")), assistant(text("a"), IMAGE)],
    [user(text("draw")), assistant(text("red"), IMAGE, text("then green"), IMAGE, text("blue"))],
    [{"role": "system", "content": "draw"}, {"role": "user", "content": "what"}, assistant(text("a"))],
    [{"role": "document", "content": [text("a red"), IMAGE, text("square"), VIDEO, IMAGE]}],
    [{"role": "document", "content": "a red square"}],
]


def naive_sample(processor, messages):
    """Assembles ids and labels of a sample from pieces of text, each with whether it is a target."""
    pieces = [("<s>", False)]
    if messages[0]["role"] not in ("system", "document"):
        pieces.append((VICUNA_SYSTEM_PROMPT, False))
    for message in messages:
        role, content = message["role"], message["content"]
        pieces += {"user": [("USER :", False)], "assistant": [("ASSISTANT :", False)]}.get(role, [])
        for item in [text(content)] if isinstance(content, str) else content:
            words = {"image": IMAGE_SPAN, "video": VIDEO_SPAN, "text": item.get("text")}[item["type"]]
            pieces.append((words, role == "assistant" or (role == "document" and item["type"] == "text")))
        if role in ("assistant", "document"):
            pieces.append(("</s>", True))
    ids, labels = [], []
    for words, is_target in pieces:
        piece = processor.tokenizer(words)["input_ids"]
        ids += piece
        labels += piece if is_target else [-100] * len(piece)
    return ids, labels


def media_of(messages, kind, item):
    contents = [message["content"] for message in messages if not isinstance(message["content"], str)]
    return [item for content in contents for content_part in content if content_part["type"] == kind]


def encode(processor, image, video, **kwargs):
    images = [media_of(messages, "image", image) for messages in CONVERSATIONS]
    videos = [media_of(messages, "video", video) for messages in CONVERSATIONS]
    return processor.encode_training_samples(CONVERSATIONS, images, videos, **kwargs)


def test_training_samples_equal_samples_assembled_by_hand(processor, image, video):
    batch = encode(processor, image, video)
    for row, messages in enumerate(CONVERSATIONS):
        ids, labels = naive_sample(processor, messages)
        length = len(ids)
        assert batch["input_ids"][row, :length].tolist() == ids
        assert batch["labels"][row, :length].tolist() == labels
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (batch["labels"].shape[1] - length)
        assert batch["labels"][row, length:].eq(-100).all()
        assert batch["input_ids"][row, length:].eq(processor.tokenizer.pad_token_id).all()
    assert batch["pixel_values"].shape == (7, 3, 8, 8)
    assert batch["pixel_values_videos"].shape == (3, 2, 3, 8, 8)


@pytest.mark.parametrize("tokenizer", ["words", "bytes", "llama"])
def test_labels_are_the_assistant_mask_of_the_library(tokenizer, image, video):
    processor = build_processor(tokenizer=tokenizer)
    batch = encode(processor, image, video)
    for row, messages in enumerate(CONVERSATIONS):
        filled = [dict(message) for message in messages]
        for message in filled:
            if not isinstance(message["content"], str):
                sources = {"image": {"image": image}, "video": {"video": video}, "text": {}}
                message["content"] = [{**item, **sources[item["type"]]} for item in message["content"]]
        output = processor.apply_chat_template(
            [filled], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = np.array(output["input_ids"][0]), np.array(output["assistant_masks"][0])
        assert np.array_equal(batch["input_ids"][row, : len(ids)], ids)
        assert np.array_equal(batch["labels"][row, : len(ids)], np.where(mask == 1, ids, -100))


def test_rejects_a_sample_with_other_media_than_placeholders(processor, image):
    messages = [user(IMAGE), assistant(text("red"))]
    with pytest.raises(ValueError, match="0 <image> tokens and 1 images in sample 1"):
        processor.encode_training_samples([messages, [user(), assistant(text("a"))]], [[image], [image]])
    with pytest.raises(ValueError, match="1 <image> tokens and 0 images in sample 0"):
        processor.encode_training_samples([messages])
    with pytest.raises(ValueError, match="conversations"):
        processor.encode_training_samples([])


def test_max_length_cuts_text_but_no_image(processor, image):
    answer = [user(text("what")), assistant(text("a red square"))]
    full = processor.encode_training_samples([answer])["labels"]
    cut = processor.encode_training_samples([answer], max_length=full.shape[1] - 2)
    assert torch.equal(cut["labels"], full[:, :-2]) and cut["input_ids"].shape == cut["labels"].shape
    drawn = [user(text("draw")), assistant(IMAGE)]
    length = processor.encode_training_samples([drawn], [[image]])["labels"].shape[1]
    assert processor.encode_training_samples([drawn], [[image]], max_length=length - 1)["labels"][0, -1] > 0
    with pytest.raises(ValueError, match="max_length"):
        processor.encode_training_samples([drawn], [[image]], max_length=length - 2)


def test_training_samples_always_have_markers(image):
    sample = [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "a square"}]
    ids = [
        build_processor(context_markers=markers).encode_training_samples([sample], [[image]])["input_ids"]
        for markers in (True, False)
    ]
    assert torch.equal(*ids)
    assert build_processor().image_start_token_id in ids[0]
