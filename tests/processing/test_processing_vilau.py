import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from vilau_hf import VilaUProcessor, original_chat_template, vilau_chat_template
from vilau_hf.processing.chat_templates_vilau import VICUNA_SYSTEM_PROMPT

from .conftest import VISUAL_TOKENS, build_processor, build_tokenizer


IMAGE_SPAN = "<image_start>" + "<image>" * 4 + "<image_end>"
VIDEO_SPAN = "<video_start>" + "<video>" * 8 + "<video_end>"  # two frames


def user(*content):
    return {"role": "user", "content": list(content)}


def assistant(*content):
    return {"role": "assistant", "content": list(content)}


def text(words):
    return {"type": "text", "text": words}


IMAGE, VIDEO = {"type": "image"}, {"type": "video"}


@pytest.fixture
def video(picture):
    return [picture, picture.rotate(180)]


def test_prompts_have_the_wording_of_vicuna(processor):
    messages = [user(text("what is this ")), assistant(text("a square")), user(text("draw it"))]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert prompt == f"<s>{VICUNA_SYSTEM_PROMPT} USER: what is this ASSISTANT: a square</s>USER: draw it ASSISTANT:"


def test_media_keep_their_order_and_strings_are_content(processor):
    messages = [
        {"role": "system", "content": "draw a circle"},
        user(text("what"), IMAGE, text("then"), VIDEO, IMAGE),
        {"role": "assistant", "content": "red"},
    ]
    expected = "<s>draw a circle USER: what<image> then<video><image> ASSISTANT: red</s>"
    assert processor.apply_chat_template(messages) == expected
    bare = build_processor(chat_template=vilau_chat_template(""))
    assert bare.apply_chat_template(messages[1:]) == expected.replace("draw a circle ", "")
    quoted = build_processor(chat_template=vilau_chat_template('Say "\\n" or\nit\'s'))
    assert quoted.apply_chat_template([user()]) == '<s>Say "\\n" or\nit\'s USER:'


def test_a_document_has_no_prompt_and_its_text_is_kept_as_it_is(processor):
    messages = [{"role": "document", "content": [text("a red "), IMAGE, text("\nsquare")]}]
    assert processor.apply_chat_template(messages) == "<s>a red <image>\nsquare</s>"


@pytest.mark.parametrize("message", [{"role": "tool", "content": "a"}, user({"type": "audio"})])
def test_unknown_roles_and_content_are_refused(processor, message):
    with pytest.raises(Exception, match="must be"):
        processor.apply_chat_template([user(text("a")), message])


def test_placeholders_become_spans(processor, picture, video):
    output = processor(text=["a <image> red", "<video> <image>"], images=[[picture], [picture]], videos=[[], [video]])
    ids = processor.tokenizer([f"a {IMAGE_SPAN} red", f"{VIDEO_SPAN} {IMAGE_SPAN}"], padding_side="left", padding=True)
    assert output["input_ids"] == ids["input_ids"] and output["attention_mask"] == ids["attention_mask"]
    assert output["attention_mask"][0][0] == 0
    output = processor(text="<video>", videos=[video], return_tensors="pt")
    assert output["pixel_values_videos"].shape == (1, 2, 3, 8, 8)
    assert "pixel_values" not in output


def test_output_names_are_the_model_inputs(processor, picture, video):
    output = processor(text=["<image><video>"], images=[picture], videos=[video], return_tensors="pt")
    assert set(output) == set(processor.model_input_names)
    assert set(output) == {"input_ids", "attention_mask", "pixel_values", "pixel_values_videos"}


def test_rows_with_and_without_pictures(processor, picture):
    output = processor(text=["red", "<image>", "a <image>"], images=[[], [picture], [picture]], return_tensors="pt")
    assert output["pixel_values"].shape[0] == 2
    assert (output["input_ids"] == processor.image_token_id).sum(1).tolist() == [0, 4, 4]
    assert "pixel_values" not in processor(text=["red"], images=[[]])


def test_counts_that_differ_are_named(processor, picture, video):
    message = "tokens in the prompts should be the same as the number of"
    with pytest.raises(ValueError, match=f"{message} images.*2 <image> tokens and 1 images"):
        processor(text="<image> <image>", images=[picture])
    with pytest.raises(ValueError, match=f"{message} images.*1 <image> tokens and 0 images"):
        processor(text="<image>")
    with pytest.raises(ValueError, match=f"{message} images of each.*\\[2, 0\\] .* \\[1, 1\\]"):
        processor(text=["<image><image>", "a"], images=[[picture], [picture]])
    with pytest.raises(ValueError, match=f"{message} videos.*0 <video> tokens and 1 videos"):
        processor(text="a", videos=[video])


@pytest.mark.parametrize("prompts", [[], 3, ["a", 4], [["a"]], {"a": 1}])
def test_wrong_prompts_are_refused_before_any_work(processor, prompts):
    with pytest.raises(ValueError, match="`text`"):
        processor(text=prompts, images=["no such file.png"])


def test_no_input_and_unknown_mode_are_refused(processor):
    with pytest.raises(ValueError, match="at least one input"):
        processor()
    with pytest.raises(ValueError, match="generation_mode"):
        processor(text="a", generation_mode="audio")
    assert processor(text="a", generation_mode="image")["input_ids"] == processor(text="a")["input_ids"]


def test_a_tokenizer_without_the_visual_tokens_is_refused(processor):
    tokenizer = build_tokenizer(visual_tokens={name: VISUAL_TOKENS[name] for name in list(VISUAL_TOKENS)[:-1]})
    with pytest.raises(ValueError, match="video_end_token"):
        VilaUProcessor(processor.image_processor, tokenizer, processor.video_processor)


def test_chat_template_with_media(processor, picture, video, tmp_path):
    picture.save(tmp_path / "picture.png")
    for source in (picture, str(tmp_path / "picture.png")):
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
        expected = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(output["pixel_values"], expected)
        assert output["pixel_values_videos"].shape == (1, 2, 3, 8, 8)


@pytest.mark.parametrize("tokenizer", ["words", "bytes", "llama"])
@pytest.mark.parametrize("target", [text("red"), IMAGE, VIDEO])
def test_the_prompt_has_the_same_ids_in_training_and_at_inference(tokenizer, picture, video, target):
    processor = build_processor(tokenizer=tokenizer)
    messages = [user(text("draw a circle")), assistant(target)]
    prompt = processor.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=True)[0]
    images, videos = [[picture] * (target is IMAGE)], [[video] * (target is VIDEO)]
    sample = processor.encode_training_samples([messages], images, videos)
    assert sample["input_ids"][0, : len(prompt)].tolist() == prompt
    assert sample["labels"][0, : len(prompt)].eq(-100).all()
    rest = {"text": " red", "image": IMAGE_SPAN, "video": VIDEO_SPAN}[target["type"]] + "</s>"
    answer = sample["input_ids"][0, len(prompt) :].tolist()
    assert processor.decode(answer).replace(" ", "") == rest.replace(" ", "")
    assert sample["labels"][0, len(prompt) :].tolist() == answer


def test_unconditional_prompt(processor):
    ids = processor.unconditional_prompt_ids()
    assert ids == processor.tokenizer(f"<s>{VICUNA_SYSTEM_PROMPT} USER: ASSISTANT:")["input_ids"]
    negative = processor.unconditional_prompt_ids("a green square")
    assert negative == processor.tokenizer(f"<s>{VICUNA_SYSTEM_PROMPT} USER: a green square ASSISTANT:")["input_ids"]


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
    """The sample, written down piece by piece: words, then whether they are a target."""
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
    return [item for content in contents for part in content if part["type"] == kind]


def encode(processor, picture, video, **kwargs):
    images = [media_of(messages, "image", picture) for messages in CONVERSATIONS]
    videos = [media_of(messages, "video", video) for messages in CONVERSATIONS]
    return processor.encode_training_samples(CONVERSATIONS, images, videos, **kwargs)


def test_training_samples_are_those_written_down_by_hand(processor, picture, video):
    batch = encode(processor, picture, video)
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
def test_labels_are_the_assistant_mask_of_the_library(tokenizer, picture, video):
    processor = build_processor(tokenizer=tokenizer)
    batch = encode(processor, picture, video)
    for row, messages in enumerate(CONVERSATIONS):
        filled = [dict(message) for message in messages]
        for message in filled:
            if not isinstance(message["content"], str):
                sources = {"image": {"image": picture}, "video": {"video": video}, "text": {}}
                message["content"] = [{**item, **sources[item["type"]]} for item in message["content"]]
        output = processor.apply_chat_template(
            [filled], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = np.array(output["input_ids"][0]), np.array(output["assistant_masks"][0])
        assert np.array_equal(batch["input_ids"][row, : len(ids)], ids)
        assert np.array_equal(batch["labels"][row, : len(ids)], np.where(mask == 1, ids, -100))


def test_media_of_a_sample_must_match_its_placeholders(processor, picture):
    messages = [user(IMAGE), assistant(text("red"))]
    with pytest.raises(ValueError, match="0 <image> tokens and 1 images in sample 1"):
        processor.encode_training_samples([messages, [user(), assistant(text("a"))]], [[picture], [picture]])
    with pytest.raises(ValueError, match="1 <image> tokens and 0 images in sample 0"):
        processor.encode_training_samples([messages])
    with pytest.raises(ValueError, match="conversations"):
        processor.encode_training_samples([])


def test_max_length_cuts_text_but_no_image(processor, picture):
    answer = [user(text("what")), assistant(text("a red square"))]
    full = processor.encode_training_samples([answer])["labels"]
    cut = processor.encode_training_samples([answer], max_length=full.shape[1] - 2)
    assert torch.equal(cut["labels"], full[:, :-2]) and cut["input_ids"].shape == cut["labels"].shape
    drawn = [user(text("draw")), assistant(IMAGE)]
    length = processor.encode_training_samples([drawn], [[picture]])["labels"].shape[1]
    assert processor.encode_training_samples([drawn], [[picture]], max_length=length - 1)["labels"][0, -1] > 0
    with pytest.raises(ValueError, match="max_length"):
        processor.encode_training_samples([drawn], [[picture]], max_length=length - 2)


def test_multimodal_token_counts_are_those_of_a_call(processor, picture, video):
    output = processor(
        text=["<image> <video>"], images=[picture], videos=[video], return_mm_token_type_ids=True, return_tensors="pt"
    )
    counts = processor._get_num_multimodal_tokens(image_sizes=[(12, 20)], video_sizes=[(2, 12, 20)])
    kinds = output["mm_token_type_ids"]
    assert counts["num_image_tokens"] == [(kinds == 1).sum()]
    assert counts["num_video_tokens"] == [(kinds == 2).sum()]


def test_outputs_become_strings_images_and_frames(processor, picture, video):
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


def test_save_and_load(processor, tmp_path):
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
        part = AutoImageProcessor.from_pretrained(tmp_path, backend=backend)
        assert part.to_dict() == processor.image_processor.to_dict() and part.backend == backend


def test_without_context_markers_text_after_a_picture_begins_like_a_text(picture, video):
    processor = build_processor(context_markers=False, tokenizer="llama")
    four = "<image>" * 4
    for prompt, expected in (
        ("draw <image>what", f"draw {four} what"),
        ("draw <image>\nwhat", f"draw {four} \nwhat"),
        ("<image></s>", f"{four}</s>"),
        ("<image>", four),
    ):
        ids = processor(text=prompt, images=[picture])["input_ids"][0]
        assert ids == processor.tokenizer(expected)["input_ids"], prompt
    frames = "<video>" * 4 * len(video)
    ids = processor(text="<video>it", videos=[video])["input_ids"][0]
    assert ids == processor.tokenizer(f"{frames} it")["input_ids"]


def test_frames_of_a_video_may_stand_on_lines_of_their_own(video, tmp_path):
    processor = build_processor(context_markers=False, video_as_images=True, tokenizer="llama")
    processor.save_pretrained(tmp_path)
    for each in (processor, VilaUProcessor.from_pretrained(tmp_path)):
        ids = each(text="<video>\nit", videos=[video])["input_ids"][0]
        frames = " \n".join(["<video>" * 4] * len(video))
        assert ids == each.tokenizer(f"{frames} \nit")["input_ids"]
    with pytest.raises(ValueError, match="`video_as_images=True` needs `context_markers=False`"):
        build_processor(video_as_images=True)


def test_training_samples_have_markers_whatever_prompts_have(picture):
    sample = [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "a square"}]
    ids = [
        build_processor(context_markers=markers).encode_training_samples([sample], [[picture]])["input_ids"]
        for markers in (True, False)
    ]
    assert torch.equal(*ids)
    assert build_processor().image_start_token_id in ids[0]


def test_original_template_drops_what_stands_around_an_empty_message():
    processor = build_processor(chat_template=original_chat_template())

    def render(content, **kwargs):
        return processor.apply_chat_template([{"role": "user", "content": content}], **kwargs)

    assert render(" ", add_generation_prompt=True).endswith(" USER:ASSISTANT:")
    assert render("draw it", add_generation_prompt=True).endswith(" USER: draw it ASSISTANT:")
    assert render([{"type": "image"}, {"type": "text", "text": "it"}]).endswith(" USER: <image>\nit ")
    for mode, marker in (("image", "<im_start>"), ("video", "<vi_start>")):
        assert render("it", add_generation_prompt=True, generation_mode=mode).endswith(f"ASSISTANT: {marker}")
    ids = processor.unconditional_prompt_ids()
    assert ids == processor.tokenizer(f"{VICUNA_SYSTEM_PROMPT} USER:ASSISTANT:")["input_ids"]
