import pytest
import torch
from PIL import Image

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.evaluation.model_outputs import (
    answer_questions,
    chat_prompts,
    generate_from_captions,
    generate_from_messages,
    user_message,
)
from vilau_hf.evaluation.sheets import to_uint8


CAPTIONS = ["a red circle", "a large blue cross", "a small green square"]


@pytest.fixture(scope="module")
def tiny():
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()
    return model, VilaUProcessor.from_pretrained(TINY_CHECKPOINT)


def test_prompts_end_where_the_assistant_begins(tiny):
    processor = tiny[1]
    inputs = chat_prompts(processor, [user_message([{"type": "text", "text": text}]) for text in CAPTIONS])
    texts = processor.batch_decode(inputs["input_ids"])
    assert all(text.rstrip().endswith("ASSISTANT:") for text in texts)
    assert all(caption in text for caption, text in zip(CAPTIONS, texts, strict=True))


def test_images_are_those_of_generate(tiny):
    model, processor = tiny
    images = generate_from_captions(model, processor, CAPTIONS, "image", seed=3)
    inputs = chat_prompts(processor, [user_message([{"type": "text", "text": text}]) for text in CAPTIONS])
    codes = model.generate(**inputs, generation_mode="image", generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = to_uint8(model.decode_image_tokens(codes))
    assert torch.equal(images, expected)


def test_every_conversation_gets_its_own_images(tiny):
    model, processor = tiny
    side = model.config.vision_config.image_size
    colors = ["red", "green", "blue"]
    images = [[Image.new("RGB", (side, side), color)] for color in colors]
    messages = [user_message([{"type": "image"}, {"type": "text", "text": "turn it blue"}])] * 3
    settings = {"visual_guidance_scale": 1.0, "do_sample": False}
    together = generate_from_messages(model, processor, messages, "image", 0, images, batch_size=2, **settings)
    alone = [generate_from_messages(model, processor, messages[:1], "image", 0, [each], **settings) for each in images]
    assert together.shape == (3, 3, side, side)
    assert torch.equal(together, torch.cat(alone))


def test_answers_do_not_see_the_expected_answer(tiny):
    model, processor = tiny
    side = model.config.vision_config.image_size
    question = user_message([{"type": "image"}, {"type": "text", "text": "what color is the background?"}])
    records = [
        {
            "messages": [*question, {"role": "assistant", "content": [{"type": "text", "text": answer}]}],
            "images": [Image.new("RGB", (side, side), "white")],
        }
        for answer in ("white", "black")
    ]
    first, second = answer_questions(model, processor, records, batch_size=1)
    assert first == second and first
    assert answer_questions(model, processor, records, max_new_tokens=1)[0] != ""
