"""Checks of messages, training samples and generated outputs, and readable errors of the libraries."""

import numpy as np
import pytest
import torch

from vilau_hf.processing.input_checks_vilau import (
    check_conversations,
    check_generated_ids,
    check_generated_spans,
    check_max_length,
    check_samples,
    check_video_lists,
    readable_errors,
)

from .conftest import IMAGE, assistant, text, user


CHAT = [user(IMAGE, text("what")), assistant(text("a"))]


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        (None, "`conversation` must be a list of messages"),
        ([], "`conversation` must be a list of messages"),
        ("hello", "`conversation` must be a list of messages"),
        (torch.zeros(2, 3), r"got Tensor of shape \(2, 3\)"),
        ([CHAT, []], r"`conversation\[1\]` must be a list of messages"),
        ([3], r"`conversation\[0\]` must be a dictionary with a string `role`, got 3"),
        ([{"content": "a"}], r"`conversation\[0\]` must be a dictionary with a string `role`"),
        ([{"role": 3, "content": "a"}], r"`conversation\[0\]` must be a dictionary with a string `role`"),
        ([{"role": "user"}], r"`content` of `conversation\[0\]` must be a string or a list"),
        ([{"role": "user", "content": None}], r"`content` of `conversation\[0\]` must be a string or a list"),
        ([{"role": "user", "content": 3}], r"`content` of `conversation\[0\]` must be a string or a list"),
        ([user("a")], r"A content part of `conversation\[0\]` must be a dictionary with a string `type`"),
        ([user({"text": "a"})], r"A content part of `conversation\[0\]` must be a dictionary with a string `type`"),
        ([user({"type": "text"})], r"A content part of `conversation\[0\]` of type text must have a string `text`"),
        ([user(text(None))], r"A content part of `conversation\[0\]` of type text must have a string `text`"),
    ],
)
def test_rejects_messages_of_another_structure(processor, conversation, message):
    for function in (check_conversations, processor.apply_chat_template):
        with pytest.raises(ValueError, match=message):
            function(conversation)


def test_accepts_one_conversation_several_and_those_of_pipelines():
    class Chat:
        messages = CHAT

    for conversation in (CHAT, tuple(CHAT), [CHAT, CHAT], Chat(), [Chat(), Chat()]):
        check_conversations(conversation)
    check_conversations([{"role": "assistant", "content": None, "tool_calls": []}])


def test_a_message_that_the_template_rejects_is_a_value_error(processor):
    for message in ({"role": "wizard", "content": "a"}, user({"type": "audio"})):
        with pytest.raises(ValueError, match="The chat template cannot render the messages"):
            processor.apply_chat_template([message])
        with pytest.raises(ValueError, match="The chat template cannot render the messages"):
            processor.encode_training_samples([[message]])


def test_a_setting_of_another_type_is_a_value_error(processor, image):
    with pytest.raises(ValueError, match="do_resize"):
        processor.image_processor(image, do_resize="x")
    with pytest.raises(ValueError, match="do_resize"):
        processor(text="a <image>", images=image, do_resize="x")
    with pytest.raises(ValueError, match="do_resize"):
        processor.video_processor([image, image], do_resize="x")
    with pytest.raises(KeyError), readable_errors():
        raise KeyError("other errors stay as they are")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conversations": []}, "`conversations` must be a list with the messages of at least one sample"),
        ({"conversations": 3}, "`conversations` must be a list"),
        ({"conversations": torch.zeros(1)}, "`conversations` must be a list"),
        ({"conversations": CHAT}, r"`conversations\[0\]` must be a list of messages"),
        ({"conversations": [CHAT, []]}, r"`conversations\[1\]` must be a list of messages"),
        ({"images": 3}, "`images` must be a list with a list for each sample"),
        ({"videos": [3]}, "`videos` must be a list with a list for each sample"),
        ({"codes": torch.zeros(1)}, "`codes` must be a list with a list for each sample"),
        ({"images": [[], []]}, "`images` must have a list for each of the 1 samples, got 2 lists"),
        *(
            ({"max_length": value}, "`max_length` must be an integer of at least 1")
            for value in (0, -1, "x", True, 1.5)
        ),
    ],
)
def test_rejects_samples_of_another_structure(processor, arguments, message):
    for function in (check_samples, processor.encode_training_samples):
        with pytest.raises(ValueError, match=message):
            function(**{"conversations": [CHAT], **arguments})


def test_rejects_lengths_of_texts_that_are_no_positive_integers(processor):
    for value in ("x", -1, 0, 1.5):
        with pytest.raises(ValueError, match="`max_length` must be an integer of at least 1"):
            processor(text="a", max_length=value, truncation=True)
    check_max_length(None)


@pytest.mark.parametrize(
    "outputs", [None, 3, "ab", [["a"]], [[1.5]], [[-1]], torch.zeros(2, 3), torch.zeros(1, 2, 3, 4)]
)
def test_rejects_outputs_that_are_no_ids(processor, outputs):
    with pytest.raises(ValueError, match=r"`generated_outputs` of text must be ids of shape \(B, T\)"):
        processor.post_process_multimodal_output(outputs)


def test_accepts_ids_as_tensors_arrays_and_lists(processor):
    ids = [[11, 12], [12, 13]]
    expected = processor.post_process_multimodal_output(ids)
    for outputs in (torch.tensor(ids), np.array(ids), [torch.tensor(row) for row in ids]):
        assert processor.post_process_multimodal_output(outputs) == expected
    check_generated_ids([[1], [2, 3]])


@pytest.mark.parametrize("mode", ["image", "video", "interleaved"])
@pytest.mark.parametrize("outputs", [None, 3, [[1, 2]], torch.zeros(2, 3, 4, dtype=torch.int64)])
def test_rejects_outputs_of_another_mode(processor, mode, outputs):
    with pytest.raises(ValueError, match="`(generated_outputs|pixels)`.* must"):
        processor.post_process_multimodal_output(outputs, generation_mode=mode)
    with pytest.raises(ValueError, match="must be the result of `generate` in interleaved mode"):
        check_generated_spans(outputs)


def test_rejects_integers_as_pixels(processor):
    with pytest.raises(ValueError, match="`pixels` must be a tensor of floats in"):
        processor.image_processor.postprocess(torch.full((1, 3, 4, 4), 200, dtype=torch.uint8))


def test_rejects_arrays_of_several_videos_in_a_list(processor):
    videos = np.zeros((1, 2, 5, 5, 3), np.uint8)
    check_video_lists(videos)
    assert processor.video_processor(videos)["pixel_values_videos"][0].shape == (2, 3, 8, 8)
    for nested in ([videos], [[videos]]):
        for call in (
            lambda: processor.video_processor(nested),  # noqa: B023
            lambda: processor(text="a <video>", videos=nested),  # noqa: B023
        ):
            with pytest.raises(ValueError, match="`videos` must have one video in each entry of a list"):
                call()


def test_rejects_a_call_without_any_input(processor):
    with pytest.raises(ValueError, match="`text`, `images` or `videos` must be given"):
        processor()
    with pytest.raises(TypeError, match="An image must be a PIL image, an array, a tensor or a file name, got int"):
        processor(text="a <image>", images=[3])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resample", "x"),
        ("resample", 99),
        ("resample", True),
        ("resample", {"height": 5}),
        ("pad_size", ()),
        ("size", {}),
    ],
)
def test_rejects_filters_and_sizes_that_do_not_exist(processor, image, name, value):
    for call in (
        processor.image_processor,
        lambda images, **settings: processor.video_processor([images], **settings),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must"):
            call(image, **{name: value})


def test_rejects_grey_images_that_are_normalised_by_three_channels(processor, image):
    for mode in ("L", "1", "LA", "RGBA"):
        with pytest.raises(ValueError, match="`do_convert_rgb` must be True for an image of mode"):
            processor.image_processor(image.convert(mode), do_convert_rgb=False)


def test_rejects_arrays_of_several_images_beside_single_images(processor, image):
    several = np.zeros((2, 5, 5, 3), np.uint8)
    assert len(processor.image_processor(several)["pixel_values"]) == 2
    with pytest.raises(ValueError, match="`images` must not have arrays of several images beside single images"):
        processor.image_processor([image, several])
