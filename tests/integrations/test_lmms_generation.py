import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GenerationConfig

from vilau_hf.evaluation.model_outputs import answer_questions, chat_prompts
from vilau_hf.evaluation.sheets import to_pil, to_uint8
from vilau_hf.integrations.lmms_generation import chunks
from vilau_hf.integrations.lmms_prompts import Prompt, user_turn
from vilau_hf.integrations.lmms_settings import TextSettings

from .conftest import DRAWINGS, caption_prompt


GREEDY = TextSettings.from_task({}, GenerationConfig(max_new_tokens=16))


def test_answers_are_those_of_answer_questions(tiny, questions, shapes):
    records = [{"messages": [*prompt.messages, {}], "images": prompt.images} for prompt in questions]
    expected = answer_questions(tiny.model, tiny.processor, records, max_new_tokens=16)
    assert tiny.answer(questions, GREEDY, [0] * 4) == expected
    assert expected[:3] == [drawing.color for drawing in DRAWINGS]


def test_sampled_answers_depend_on_their_seed_only(tiny):
    settings = TextSettings.from_task({"temperature": 2.0}, GenerationConfig(max_new_tokens=8))
    prompts = [caption_prompt("describe a shape")] * 3
    state = torch.get_rng_state()
    answers = tiny.answer(prompts, settings, [0, 1, 0])
    assert answers[0] == answers[2] != answers[1]
    assert tiny.answer(prompts[:1], settings, [1]) == answers[1:2]
    assert torch.equal(torch.get_rng_state(), state)


def test_images_depend_on_their_seed_only(tiny):
    prompts = [caption_prompt(drawing.caption) for drawing in DRAWINGS[:2]]
    together = tiny.draw(prompts, "image", [5, 6])
    alone = tiny.draw(prompts[1:], "image", [6])
    assert together[1].tobytes() == alone[0].tobytes()
    codes = tiny.model.generate(
        **chat_prompts(tiny.processor, [prompts[1].messages]), generation_mode="image", seed=[6]
    )
    with torch.no_grad():
        expected = to_uint8(tiny.model.decode_image_tokens(codes))[0]
    assert together[1].tobytes() == to_pil(expected).tobytes()


def test_videos_have_the_given_number_of_frames(tiny):
    (frames,) = tiny.draw(
        [caption_prompt("a large red cross moving left on a white background")], "video", [0], num_frames=2
    )
    assert len(frames) == 2


def test_edits_are_guided_by_the_images_of_their_prompts(tiny, shapes):
    content = [{"type": "image"}, {"type": "text", "text": "turn it blue"}]
    prompt = Prompt(user_turn(content), [shapes[0]])
    (image,) = tiny.draw([prompt], "image", [0], image_guidance_scale=2.0)
    (same,) = tiny.draw([prompt], "image", [0], image_guidance_scale=2.0)
    (other,) = tiny.draw([prompt], "image", [0])
    assert image.size == (32, 32)
    assert image.tobytes() == same.tobytes() != other.tobytes()


def test_unconditional_prompt_is_an_empty_chat_where_a_checkpoint_saves_none(tiny, monkeypatch):
    prompt = caption_prompt(DRAWINGS[0].caption)
    (expected,) = tiny.draw([prompt], "image", [0])
    monkeypatch.setattr(tiny.model.generation_config, "unconditional_prompt_ids", None)
    (image,) = tiny.draw([prompt], "image", [0])
    assert image.tobytes() == expected.tobytes()


@torch.no_grad()
def test_scores_are_the_log_probabilities_of_answer_and_end(tiny, questions):
    processor = tiny.processor
    prompt = questions[0]
    ((value, is_greedy),) = tiny.score([prompt], ["red"])
    inputs = chat_prompts(processor, [prompt.messages], images=prompt.images)
    answer = processor.tokenizer(" red", add_special_tokens=False)["input_ids"] + [processor.tokenizer.eos_token_id]
    ids = torch.cat([inputs["input_ids"], torch.tensor([answer])], 1)
    logits = tiny.model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits.log_softmax(-1)
    length = inputs["input_ids"].shape[1]
    expected = sum(logits[0, length - 1 + place, token] for place, token in enumerate(answer))
    assert value == pytest.approx(float(expected), abs=1e-4)
    assert is_greedy


def test_scores_do_not_depend_on_the_batch_and_say_what_greedy_decoding_gives(tiny, questions):
    answers = ["red", "yellow", "green", "a small red cross at the bottom on a white background"]
    together = tiny.score(questions, answers)
    alone = [tiny.score([prompt], [answer])[0] for prompt, answer in zip(questions, answers, strict=True)]
    assert [value for value, _ in together] == pytest.approx([value for value, _ in alone], abs=1e-4)
    greedy = tiny.answer(questions, TextSettings.from_task({}, GenerationConfig(max_new_tokens=40)), [0] * 4)
    assert [flag for _, flag in together] == [a == b for a, b in zip(greedy, answers, strict=True)]
    assert [flag for _, flag in together][:3] == [True, False, True]


def test_scores_open_files_of_images(tiny, questions, shapes, tmp_path):
    shapes[0].save(tmp_path / "shape.png")
    from_file = Prompt(questions[0].messages, [str(tmp_path / "shape.png")])
    assert tiny.score([from_file], ["red"]) == tiny.score(questions[:1], ["red"])
    assert tiny.answer([from_file], GREEDY, [0]) == ["red"]
    exif = Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = 3
    shapes[0].rotate(180).save(tmp_path / "shape.png", exif=exif)
    assert tiny.score([from_file], ["red"]) == tiny.score(questions[:1], ["red"])


def test_scores_answers_to_questions_about_videos(tiny, shapes):
    frames = np.stack([np.asarray(shapes[0])] * 4)
    content = [{"type": "video"}, {"type": "text", "text": "describe the video"}]
    prompt = Prompt(user_turn(content), videos=[frames])
    (answer,) = tiny.answer([prompt], TextSettings.from_task({}, GenerationConfig(max_new_tokens=40)), [0])
    ((value, is_greedy),) = tiny.score([prompt], [answer])
    assert is_greedy
    assert value > tiny.score([prompt], ["a large blue circle"])[0][0]


def test_batches_are_successive():
    assert list(chunks([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
