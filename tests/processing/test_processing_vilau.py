"""Prompts with images and videos, and the conversion of generated outputs."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from vilau_hf import VilaUProcessor, vilau_chat_template
from vilau_hf.processing.chat_templates_vilau import VICUNA_SYSTEM_PROMPT

from .conftest import IMAGE_SPAN, VIDEO_SPAN, VISUAL_TOKENS, build_processor, build_tokenizer, text, user


def test_replaces_placeholders_by_spans(processor, image, video):
    output = processor(text=["a <image> red", "<video> <image>"], images=[[image], [image]], videos=[[], [video]])
    ids = processor.tokenizer([f"a {IMAGE_SPAN} red", f"{VIDEO_SPAN} {IMAGE_SPAN}"], padding_side="left", padding=True)
    assert output["input_ids"] == ids["input_ids"] and output["attention_mask"] == ids["attention_mask"]
    assert output["attention_mask"][0][0] == 0
    output = processor(text="<video>", videos=[video], return_tensors="pt")
    assert output["pixel_values_videos"].shape == (1, 2, 3, 8, 8)
    assert "pixel_values" not in output


def test_output_names_are_the_model_inputs(processor, image, video):
    output = processor(text=["<image><video>"], images=[image], videos=[video], return_tensors="pt")
    assert set(output) == set(processor.model_input_names)
    assert set(output) == {"input_ids", "attention_mask", "pixel_values", "pixel_values_videos"}


def test_processes_prompts_with_and_without_images(processor, image):
    output = processor(text=["red", "<image>", "a <image>"], images=[[], [image], [image]], return_tensors="pt")
    assert output["pixel_values"].shape[0] == 2
    assert (output["input_ids"] == processor.image_token_id).sum(1).tolist() == [0, 4, 4]
    assert "pixel_values" not in processor(text=["red"], images=[[]])


def test_rejects_other_numbers_of_media_than_placeholders(processor, image, video):
    message = "tokens in the prompts should be the same as the number of"
    with pytest.raises(ValueError, match=f"{message} images.*2 <image> tokens and 1 images"):
        processor(text="<image> <image>", images=[image])
    with pytest.raises(ValueError, match=f"{message} images.*1 <image> tokens and 0 images"):
        processor(text="<image>")
    with pytest.raises(ValueError, match=f"{message} images of each.*\\[2, 0\\] .* \\[1, 1\\]"):
        processor(text=["<image><image>", "a"], images=[[image], [image]])
    with pytest.raises(ValueError, match=f"{message} videos.*0 <video> tokens and 1 videos"):
        processor(text="a", videos=[video])


@pytest.mark.parametrize("prompts", [[], 3, ["a", 4], [["a"]], {"a": 1}])
def test_rejects_wrong_prompts_before_opening_images(processor, prompts):
    with pytest.raises(ValueError, match="`text`"):
        processor(text=prompts, images=["no such file.png"])


def test_rejects_no_input_and_an_unknown_mode(processor):
    with pytest.raises(ValueError, match="`text`, `images` or `videos` must be given"):
        processor()
    with pytest.raises(ValueError, match="generation_mode"):
        processor(text="a", generation_mode="audio")
    assert processor(text="a", generation_mode="image")["input_ids"] == processor(text="a")["input_ids"]


def test_rejects_a_tokenizer_without_visual_tokens(processor):
    tokenizer = build_tokenizer(visual_tokens={name: VISUAL_TOKENS[name] for name in list(VISUAL_TOKENS)[:-1]})
    with pytest.raises(ValueError, match="video_end_token"):
        VilaUProcessor(processor.image_processor, tokenizer, processor.video_processor)


def test_chat_template_opens_media(processor, image, video, tmp_path):
    image.save(tmp_path / "image.png")
    for source in (image, str(tmp_path / "image.png")):
        messages = [user({"type": "image", "image": source}, text("what"), {"type": "video", "video": video})]
        output = processor.apply_chat_template(
            [messages, [user(text("draw"))]],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        prompt = f"<s>{VICUNA_SYSTEM_PROMPT} USER:{IMAGE_SPAN} what{VIDEO_SPAN} ASSISTANT:"
        assert output["input_ids"][0].tolist() == processor.tokenizer(prompt)["input_ids"]
        assert output["attention_mask"].sum(1)[0] > output["attention_mask"].sum(1)[1]
        expected = processor.image_processor(image, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(output["pixel_values"], expected)
        assert output["pixel_values_videos"].shape == (1, 2, 3, 8, 8)


def test_unconditional_prompt_is_an_empty_or_the_negative_prompt(processor):
    ids = processor.unconditional_prompt_ids()
    assert ids == processor.tokenizer(f"<s>{VICUNA_SYSTEM_PROMPT} USER: ASSISTANT:")["input_ids"]
    negative = processor.unconditional_prompt_ids("a green square")
    assert negative == processor.tokenizer(f"<s>{VICUNA_SYSTEM_PROMPT} USER: a green square ASSISTANT:")["input_ids"]


def test_multimodal_token_counts_equal_those_of_a_call(processor, image, video):
    output = processor(
        text=["<image> <video>"], images=[image], videos=[video], return_mm_token_type_ids=True, return_tensors="pt"
    )
    counts = processor._get_num_multimodal_tokens(image_sizes=[(12, 20)], video_sizes=[(2, 12, 20)])
    kinds = output["mm_token_type_ids"]
    assert counts["num_image_tokens"] == [(kinds == 1).sum()]
    assert counts["num_video_tokens"] == [(kinds == 2).sum()]


def test_converts_outputs_to_strings_images_and_frames(processor, image, video):
    ids = processor.tokenizer(["<s>a red square</s>", f"{IMAGE_SPAN} blue"], padding=True)["input_ids"]
    assert processor.post_process_image_text_to_text(ids) == ["a red square", "blue"]
    assert processor.post_process_multimodal_output(torch.tensor(ids)) == ["a red square", "blue"]
    assert processor.batch_decode(ids) == processor.tokenizer.batch_decode(ids)
    kept = processor.post_process_multimodal_output(ids, skip_special_tokens=False, generation_mode="text")
    assert "<image_start>" in kept[1]

    size = {"height": 12, "width": 20}
    pixels = processor.image_processor(video, size=size, return_tensors="pt")["pixel_values"]
    images = processor.post_process_multimodal_output(pixels, generation_mode="image")
    assert [np.array_equal(image, frame) for image, frame in zip(images, video, strict=True)] == [True, True]
    videos = processor.post_process_multimodal_output(pixels[None], generation_mode="video")
    assert len(videos) == 1 and [np.array_equal(a, b) for a, b in zip(videos[0], video, strict=True)] == [True, True]
    with pytest.raises(ValueError, match="audio"):
        processor.post_process_multimodal_output(pixels, generation_mode="audio")
    with pytest.raises(ValueError, match="shape"):
        processor.post_process_multimodal_output(pixels, generation_mode="video")


def test_loads_what_was_saved(processor, tmp_path):
    processor = build_processor(num_visual_tokens=9, chat_template=vilau_chat_template("draw"))
    processor.save_pretrained(tmp_path)
    for loaded in (VilaUProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is VilaUProcessor
        assert loaded.to_dict() == processor.to_dict()
        assert loaded.num_visual_tokens == 9
        assert loaded.chat_template == processor.chat_template
        assert loaded.unconditional_prompt_ids() == processor.unconditional_prompt_ids()
    assert AutoTokenizer.from_pretrained(tmp_path).image_token == "<image>"
    assert AutoVideoProcessor.from_pretrained(tmp_path).to_dict() == processor.video_processor.to_dict()
    for backend in ("torchvision", "pil"):
        image_processor = AutoImageProcessor.from_pretrained(tmp_path, backend=backend)
        assert image_processor.to_dict() == processor.image_processor.to_dict()
        assert image_processor.backend == backend


def test_without_context_markers_text_after_an_image_begins_with_a_space(image, video):
    processor = build_processor(context_markers=False, tokenizer="llama")
    four = "<image>" * 4
    for prompt, expected in (
        ("draw <image>what", f"draw {four} what"),
        ("draw <image>\nwhat", f"draw {four} \nwhat"),
        ("<image></s>", f"{four}</s>"),
        ("<image>", four),
    ):
        ids = processor(text=prompt, images=[image])["input_ids"][0]
        assert ids == processor.tokenizer(expected)["input_ids"], prompt
    frames = "<video>" * 4 * len(video)
    ids = processor(text="<video>it", videos=[video])["input_ids"][0]
    assert ids == processor.tokenizer(f"{frames} it")["input_ids"]


def test_stored_pixels_of_images_are_used_on_request(image):
    processor = build_processor()
    exif = Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = 6
    data = io.BytesIO()
    image.save(data, "PNG", exif=exif)
    photo = Image.open(data)
    stored = processor(text="<image>", images=[photo], do_exif_transpose=False, return_tensors="pt")["pixel_values"]
    assert torch.equal(stored, processor(text="<image>", images=[image], return_tensors="pt")["pixel_values"])
    upright = processor(text="<image>", images=[photo], return_tensors="pt")["pixel_values"]
    assert not torch.equal(upright, stored)


def test_frames_of_a_video_can_be_on_separate_lines(video, tmp_path):
    processor = build_processor(context_markers=False, video_as_images=True, tokenizer="llama")
    processor.save_pretrained(tmp_path)
    for each in (processor, VilaUProcessor.from_pretrained(tmp_path)):
        ids = each(text="<video>\nit", videos=[video])["input_ids"][0]
        frames = " \n".join(["<video>" * 4] * len(video))
        assert ids == each.tokenizer(f"{frames} \nit")["input_ids"]
    with pytest.raises(ValueError, match="`video_as_images=True` needs `context_markers=False`"):
        build_processor(video_as_images=True)


@pytest.mark.parametrize("number", [0, -4, 2.0, "4", True, None])
def test_rejects_numbers_of_visual_tokens_that_no_image_has(processor, number):
    components = (processor.image_processor, processor.tokenizer, processor.video_processor)
    with pytest.raises(ValueError, match="`num_visual_tokens` must be an integer of at least 1, got"):
        VilaUProcessor(*components, num_visual_tokens=number)
