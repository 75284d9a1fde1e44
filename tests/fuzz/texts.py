"""Texts, videos, chats, training samples and post-processing through the processor."""

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from . import pixels
from .classification import Case, Given, Wrong
from .models import SIDE, TOKENS, processor
from .values import array, array_values, odd, tensor, text


MARKERS = ("image_start_token_id", "image_end_token_id", "video_start_token_id", "video_end_token_id")


def special_counts(ids: list[int]) -> dict[int, int]:
    """Returns how often each special token is in ids."""
    return {index: ids.count(index) for index in processor().tokenizer.all_special_ids}


def _check_prompt(prompt: str, is_placeholder_plain: bool = True) -> Any:
    """Returns the check of the ids of a prompt: they decode to the prompt, where no special token is in it."""

    def check(result: Any) -> None:
        ids = np.asarray(result["input_ids"]).reshape(-1).tolist()
        tokenizer = processor().tokenizer
        decoded = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if "<" not in prompt and decoded.removeprefix("<s>").strip(" ") != prompt.strip(" "):
            raise Wrong(f"ids decode to {decoded!r}")
        if not np.all(result["attention_mask"]):
            raise Wrong("the mask of a single prompt hides tokens")

    return check


@st.composite
def prompts(draw: Any) -> Case:
    """Draws texts for the processor, some with placeholders without media."""
    value = draw(text() | st.lists(text(), max_size=3) | odd())
    options = draw(
        st.just({})
        | st.fixed_dictionaries(
            {},
            optional={
                "padding": st.sampled_from([True, False, "longest", "x", 3]),
                "max_length": st.sampled_from([1, 5, 0, -1, "x"]),
                "truncation": st.sampled_from([True, False, "x"]),
                "return_tensors": st.sampled_from(["pt", "np", None, "x"]),
                "generation_mode": st.sampled_from(["text", "image", "video", "interleaved", "x", 3, None]),
                "audio": st.sampled_from([None, 3]),
            },
        )
    )
    is_text = isinstance(value, str)
    is_plain = is_text and "<image>" not in value and "<video>" not in value
    check = _check_prompt(value) if is_plain and not options else None
    names = ("TruncationStrategy", "PaddingStrategy", "TensorType", "prompts")  # the classes of these arguments
    return Case("processor", processor(), {"text": value, **options}, names, True if check else None, check)


@st.composite
def videos(draw: Any) -> Case:
    """Draws videos as arrays, tensors or lists of frames for the video processor and the processor."""
    frames = draw(st.integers(0, 4))
    height, width = draw(st.integers(5, 9)), draw(st.integers(5, 9))
    dtype = draw(st.sampled_from(["uint8", "uint8", "float32", "bool", "uint16", "int64", "int8"]))
    high = {"float32": 1, "bool": 1, "uint16": 65535, "int8": 127}.get(dtype, 255)
    low = draw(st.sampled_from([0, 0, 0, -1])) if dtype in ("float32", "int64") else 0
    seed = draw(st.integers(0, 99))
    layout = draw(st.sampled_from(["fhwc", "fchw", "hwc", "vfhwc", "vvfhwc"]))
    sizes = {"f": frames, "h": height, "w": width, "c": 3, "v": 1}
    shape = tuple(sizes[letter] for letter in layout)
    make = draw(st.sampled_from([array, tensor]))
    given = make(dtype, shape, low, high, seed)
    form = draw(st.sampled_from(["whole", "frames", "list", "odd"]))
    values = array_values(dtype, shape, low, high, seed)
    if form == "frames" and layout in ("fhwc", "fchw"):
        one = given
        given = Given(f"list({one!r})", lambda folder: list(one.build(folder)))
    elif form == "list":
        given = [given]
    elif form == "odd":
        given = draw(odd())
    levels = pixels.levels(values)
    check = None
    valid = None
    if layout in ("fhwc", "fchw", "vfhwc") and form != "odd" and (layout, form) != ("vfhwc", "list"):
        valid = levels is not None
        if valid:
            frames_levels = levels.reshape(-1, *levels.shape[-3:])
            frames_levels = frames_levels.transpose(0, 2, 3, 1) if layout == "fchw" else frames_levels

            def check(result: Any) -> None:
                found = np.asarray(result["pixel_values_videos"][0])
                if len(found) != frames:
                    raise Wrong(f"{len(found)} frames, not {frames}")
                for actual, wanted in zip(found, frames_levels, strict=True):
                    pixels.check_pixels(actual, pixels.resize(wanted, SIDE, SIDE), 2.5)

    names = ("video", "videos", "frames", "frame", "image", "images")
    if draw(st.booleans()):
        arguments = {"videos": given, "return_tensors": "pt"}
        return Case("VilaUVideoProcessor", processor().video_processor, arguments, names, valid, check)
    return Case(
        "processor",
        processor(),
        {"text": "a<video>", "videos": given},
        (*names, "text"),
        valid if valid is not False or frames else None,
        check,
    )


def contents() -> st.SearchStrategy[Any]:
    """Draws the content of a message."""
    parts = st.one_of(
        text().map(lambda value: {"type": "text", "text": value}),
        st.sampled_from(
            [{"type": "image"}, {"type": "video"}, {"type": "audio"}, {"type": "text"}, {"text": "a"}, {}]
        ),
        odd().map(lambda value: {"type": "text", "text": value}),
        odd(),
    )
    return text() | st.lists(parts, max_size=3) | odd()


def conversations() -> st.SearchStrategy[Any]:
    """Draws the messages of a chat, most with known roles."""
    roles = st.sampled_from(["user", "user", "assistant", "system", "document", "x", None, 3])
    message = st.fixed_dictionaries({"role": roles, "content": contents()})
    return st.lists(message, max_size=3) | st.lists(message | odd(), max_size=2) | odd()


@st.composite
def chats(draw: Any) -> Case:
    """Draws chats for the chat template, half of them one message of the user with any text."""
    names = ("conversation", "message", "messages", "content", "role", "roles", "text", "image", "video")
    if draw(st.booleans()):
        conversation = draw(conversations())
        arguments = {"conversation": conversation, "tokenize": True, "return_dict": True}
        arguments.update(
            draw(st.sampled_from([{}, {"add_generation_prompt": True}, {"continue_final_message": True}]))
        )
        return Case("apply_chat_template", processor().apply_chat_template, arguments, names)
    value = draw(text())
    conversation = [{"role": "user", "content": value}]
    arguments = {"conversation": conversation, "add_generation_prompt": True, "tokenize": True, "return_dict": True}

    def check_turns(result: Any) -> None:
        plain = processor()(
            text=processor().apply_chat_template([{"role": "user", "content": "a"}], add_generation_prompt=True)
        )
        ids = np.asarray(result["input_ids"]).reshape(-1).tolist()
        expected = special_counts(np.asarray(plain["input_ids"]).reshape(-1).tolist())
        if special_counts(ids) != expected:
            raise Wrong("the text of a message has changed the special tokens of the chat")

    valid = True if value.strip() else None
    return Case("apply_chat_template", processor().apply_chat_template, arguments, names, valid, check_turns)


@st.composite
def training_samples(draw: Any) -> Case:
    """Draws conversations with media or codes for training."""
    function = processor().encode_training_samples
    names = (
        "message",
        "messages",
        "content",
        "role",
        "roles",
        "sample",
        "image",
        "video",
        "images",
        "videos",
        "text",
        "placeholders",
    )
    if draw(st.booleans()):
        arguments = {"conversations": draw(st.lists(conversations(), max_size=2) | odd())}
        arguments.update(
            draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "images": odd() | st.sampled_from([[[]], [[array("uint8", (5, 5, 3), 0, 255)]]]),
                        "videos": odd() | st.sampled_from([[[]], [[array("uint8", (2, 5, 5, 3), 0, 255)]]]),
                        "codes": odd()
                        | st.sampled_from(
                            [[[array("uint8", (1, TOKENS, 3), 0, 9)]], [[array("float32", (1, TOKENS, 3))]]]
                        ),
                        "max_length": odd() | st.sampled_from([1, 10, 1000]),
                    },
                )
            )
        )
        return Case("encode_training_samples", function, arguments, names)
    question, answer = draw(text()), draw(text())
    with_image = draw(st.booleans())
    content = [{"type": "image"}] * with_image + [{"type": "text", "text": question}]
    conversation = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    arguments = {"conversations": [conversation]}
    if with_image:
        arguments["images"] = [[array("uint8", (5, 5, 3), 0, 255)]]

    def check(result: Any) -> None:
        ids, labels = result["input_ids"][0], result["labels"][0]
        targets = labels != -100
        if not torch.equal(labels[targets], ids[targets]):
            raise Wrong("labels differ from the ids")
        if processor().tokenizer.eos_token_id not in labels:
            raise Wrong("the end of the answer is no target")
        if (ids == processor().image_token_id).sum() != TOKENS * with_image:
            raise Wrong("the number of placeholders is not that of the visual tokens")
        learned = processor().tokenizer.decode(labels[targets], skip_special_tokens=False)
        if "<" not in answer and learned.replace("</s>", "").strip() != answer.strip():
            raise Wrong(f"the targets are {learned!r}")

    return Case("encode_training_samples", function, arguments, names, True if answer.strip() else None, check)


@st.composite
def outputs(draw: Any) -> Case:
    """Draws generated outputs for post-processing."""
    mode = draw(st.sampled_from(["text", "image", "video", "interleaved", "x", 3, None]))
    low, high = draw(st.sampled_from([(-1, 1), (-3, 3), (0, 0)]))
    special = draw(st.sampled_from([None, None, None, float("nan"), float("inf")]))
    shape = draw(
        st.sampled_from([(1, 3, 4, 4), (2, 3, 4, 4), (1, 2, 3, 4, 4), (1, 1, 4, 4), (0, 3, 4, 4), (3, 4, 4), ()])
    )
    seed = draw(st.integers(0, 99))
    values = array_values("float32", shape, low, high, seed)
    if special is not None and values.size:
        values.reshape(-1)[0] = special
    given: Any = Given(f"tensor({shape}, {low}..{high}, {special})", lambda folder: torch.from_numpy(np.array(values)))
    if draw(st.integers(0, 3)) == 0:
        given = draw(
            odd() | st.sampled_from([[[1, 2]], [[10**9]], [[-1]]]) | st.builds(lambda: tensor("int64", (1, 5), 0, 400))
        )
    valid = None
    check = None
    names = ("pixels", "generated_outputs", "generation_mode")
    if "tensor((" in repr(given) and mode in ("image", "video"):
        fits = len(shape) == (4 if mode == "image" else 5) and shape[-3] == 3 and values.size > 0
        if special is not None and fits:
            valid = False
        if special is None and fits:
            valid = True
            wanted = np.rint((np.clip(values.astype(np.float64), -1, 1) + 1) * 127.5)

            def check(result: Any) -> None:
                if len(result) != shape[0]:
                    raise Wrong(f"{len(result)} results, not {shape[0]}")
                frames = result if mode == "image" else [frame for video in result for frame in video]
                for image, levels in zip(frames, wanted.reshape(-1, *shape[-3:]), strict=True):
                    if np.abs(np.asarray(image).transpose(2, 0, 1) - levels).max() > 1:
                        raise Wrong("a pixel has another level")

    arguments = {"generated_outputs": given, "generation_mode": mode}
    return Case(
        "post_process_multimodal_output", processor().post_process_multimodal_output, arguments, names, valid, check
    )


def cases() -> st.SearchStrategy[Case]:
    """Draws a call of the processor."""
    return st.one_of(prompts(), videos(), chats(), training_samples(), outputs())
