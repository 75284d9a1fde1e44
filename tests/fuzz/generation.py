"""`generate` in all four modes."""

from typing import Any

import torch
from hypothesis import strategies as st

from .classification import Case, Given, Wrong
from .models import CODES, DEPTHS, GRID, POSITIONS, SIDE, TOKENS, config, model, processor
from .values import number, odd, tensor


MODES = ("text", "image", "video", "interleaved")
NAMES = ("prompt", "prompts", "positions", "seed", "codes", "images", "pixel_values", "placeholders")


def ids(rows: list[list[int]], dtype: torch.dtype = torch.int64) -> Given:
    """Returns a tensor of ids."""
    return Given(f"ids({rows}, {dtype})", lambda folder: torch.tensor(rows).to(dtype))


def prompt_ids() -> st.SearchStrategy[Given]:
    """Draws prompts, some of which have ids that no model accepts."""
    text = st.lists(st.integers(10, 300), min_size=1, max_size=6)
    rows = st.integers(1, 2).flatmap(
        lambda count: st.integers(1, 6).flatmap(
            lambda length: st.lists(
                st.lists(st.integers(10, 300), min_size=length, max_size=length), min_size=count, max_size=count
            )
        )
    )
    return st.one_of(
        rows.map(ids),
        rows.map(ids),
        rows.map(ids),
        text.map(lambda row: ids([row], torch.int32)),
        st.sampled_from(
            [
                ids([[1, 10**6]]), ids([[-1, 5]]), ids([[5]], torch.uint8), ids([[5]], torch.float32), ids([]),
                ids([[]]),
                ids([[5] * POSITIONS]), ids([[[5]]]), ids([[processor().image_token_id]]),
                ids([[processor().image_start_token_id]]), ids([[0, 0, 5]]),
            ]
        ),
    )  # fmt: skip


def image_arguments() -> st.SearchStrategy[dict[str, Any]]:
    """Draws images for a prompt with the placeholders of one image."""
    prompt = [
        1,
        processor().image_start_token_id,
        *[processor().image_token_id] * TOKENS,
        processor().image_end_token_id,
        20,
    ]
    pixels = st.sampled_from(
        [
            tensor("float32", (1, 3, SIDE, SIDE), -1, 1), tensor("float32", (1, 3, SIDE, SIDE), -9, 9),
            tensor("float32", (1, 3, SIDE, SIDE + 1), -1, 1), tensor("float32", (2, 3, SIDE, SIDE), -1, 1),
            tensor("float32", (1, 1, SIDE, SIDE), -1, 1), tensor("float32", (3, SIDE, SIDE), -1, 1),
            tensor("uint8", (1, 3, SIDE, SIDE), 0, 255), tensor("float32", (0, 3, SIDE, SIDE), -1, 1),
            tensor("float32", (1, 1, 3, SIDE, SIDE), -1, 1),
            Given("NaN", lambda folder: torch.full((1, 3, SIDE, SIDE), float("nan"))),
            tensor("float64", (1, 3, SIDE, SIDE), -1, 1),
        ]
    )  # fmt: skip
    codes = st.sampled_from(
        [
            tensor("int64", (1, TOKENS, DEPTHS), 0, CODES - 1), tensor("uint8", (1, TOKENS, DEPTHS), 0, CODES - 1),
            tensor("int16", (1, TOKENS, DEPTHS), 0, CODES), tensor("float32", (1, TOKENS, DEPTHS), 0, 5),
            tensor("int64", (TOKENS, DEPTHS), 0, 5), tensor("int64", (1, TOKENS, DEPTHS + 1), 0, 5),
            tensor("int8", (1, TOKENS, DEPTHS), -1, -1), tensor("int64", (2, TOKENS, DEPTHS), 0, 5),
        ]
    )  # fmt: skip
    return st.one_of(
        (pixels | odd()).map(lambda value: {"input_ids": ids([prompt]), "pixel_values": value}),
        (codes | odd()).map(lambda value: {"input_ids": ids([prompt]), "codes": value}),
    )


def _per_depth() -> st.SearchStrategy[Any]:
    return st.sampled_from([[1.0] * DEPTHS, [1.0] * (DEPTHS + 1), [0.5, 2, 1]]) | number()


def options() -> st.SearchStrategy[dict[str, Any]]:
    """Draws a few arguments of any name."""
    few = st.sampled_from([1, 2, 3])
    prompts = prompt_ids() | odd()
    masks = st.sampled_from(
        [tensor("int64", (1, 3), 1, 1), tensor("float32", (1, 3), 0.5, 0.5), tensor("bool", (1, 6))]
    )
    named = {
        "guidance_scale": number() | st.sampled_from([1.5, [1.5], [1.5, 2.0], [[1.0] * TOKENS]]) | odd(),
        "image_guidance_scale": number() | odd(),
        "num_frames": few | number() | odd(),
        "first_frames": odd() | st.sampled_from(
            [tensor("float32", (*lead, 3, SIDE, SIDE), -1, 1) for lead in ((1, 1), (1, 3), (1,))]
        ),
        "seed": number() | st.sampled_from([[1], [1, 2], (3,), ["x"]]) | odd(),
        "generator": st.just(Given("Generator(5)", lambda folder: torch.Generator().manual_seed(5))) | odd(),
        "negative_prompt_ids": prompts,
        "negative_prompt_attention_mask": masks | odd(),
        "image_prompt_ids": prompts,
        "attention_mask": masks | odd(),
        "code_logits_processor": odd() | st.sampled_from(
            [[lambda input_ids, scores: scores * float("nan")], [lambda input_ids, scores: scores]]
        ),
        "output_log_probs": st.sampled_from([True, False, None, "x", 1]),
        "return_dict_in_generate": st.sampled_from([True, False, "x"]),
        "max_visual_spans": number() | odd(),
        "allowed_modalities": st.sampled_from([("text",), ("image",), ("x",), (), "text", ["image", "text"]]) | odd(),
        "do_sample": st.sampled_from([True, False, "x", 1]),
        "max_new_tokens": few | number() | odd(),
        "max_length": few | number() | odd(),
        "min_new_tokens": few | number() | odd(),
        "num_return_sequences": few | odd() | st.sampled_from([0, -1, 1.5]),
        "num_beams": st.sampled_from([1, 2, 0, -1, "x"]),
        "temperature": number() | odd(),
        "top_k": number() | odd(),
        "top_p": number() | odd(),
        "repetition_penalty": number() | odd(),
        "no_repeat_ngram_size": number() | odd(),
        "bad_words_ids": odd() | st.sampled_from([[[5]], [[]], [5]]),
        "eos_token_id": number() | odd(),
        "pad_token_id": number() | odd(),
        "visual_temperature": _per_depth() | odd(),
        "visual_top_k": _per_depth() | odd(),
        "visual_top_p": _per_depth() | odd(),
        "visual_min_p": _per_depth() | odd(),
        "stop_strings": odd(),
        "stopping_criteria": odd(),
        "logits_processor": odd(),
        "streamer": odd(),
        "cache_implementation": st.sampled_from(["static", "dynamic", "offloaded", "x", 3]),
        "prefill_chunk_size": few | number() | odd(),
        "use_cache": st.sampled_from([True, False, "x"]),
        "generation_config": odd(),
        "assistant_model": odd(),
        "nonsense": odd(),
    }  # fmt: skip
    return st.lists(st.sampled_from(sorted(named)), max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: named[name] for name in names})
    )


def _check_text(result: torch.Tensor, prompt: list[list[int]]) -> None:
    if not torch.equal(result[: len(prompt), : len(prompt[0])], torch.tensor(prompt)):
        raise Wrong("the result does not begin with the prompt")
    for name in ("token_id", "start_token_id", "end_token_id"):
        for kind in ("image", "video"):
            if (result[:, len(prompt[0]) :] == getattr(config(), f"{kind}_{name}")).any():
                raise Wrong(f"text mode has generated `{kind}_{name}`")


def _check_codes(codes: torch.Tensor, rows: int, frames: int | None) -> None:
    shape = (rows, *([] if frames is None else [frames]), GRID, GRID, DEPTHS)
    if tuple(codes.shape) != shape or codes.dtype != torch.int64:
        raise Wrong(f"codes of shape {tuple(codes.shape)} and {codes.dtype}, not {shape} of int64")
    if codes.min() < 0 or codes.max() >= CODES:
        raise Wrong(f"codes from {codes.min()} to {codes.max()} are not in the codebook")


def _check_spans(output: Any, limit: int | None) -> None:
    if len(output.sequences) != len(output.spans):
        raise Wrong("the rows of sequences and spans differ")
    for spans in output.spans:
        if limit is not None and len(spans) > limit:
            raise Wrong(f"{len(spans)} spans, more than {limit}")
        for span in spans:
            if span.codes is None:
                continue
            expected = (span.num_tokens // TOKENS, GRID, GRID, DEPTHS)[1 if span.kind == "image" else 0 :]
            if tuple(span.codes.shape) != expected or span.codes.min() < 0 or span.codes.max() >= CODES:
                raise Wrong(f"a finished span has codes of shape {tuple(span.codes.shape)}, not {expected}")


def generate(**arguments: Any) -> Any:
    """Generates twice if the samples are chosen by a seed, and compares."""
    result = model().generate(**arguments)
    if isinstance(arguments.get("seed"), int) and isinstance(result, torch.Tensor):
        again = model().generate(**arguments)
        if not torch.equal(result, again):
            raise Wrong("the same seed gives other codes")
    return result


@st.composite
def cases(draw: Any) -> Case:
    """Draws a call in one of the modes, with some odd arguments."""
    mode = draw(st.sampled_from([*MODES, *MODES, *MODES, *MODES, "x", 3, None]))
    inputs = draw(
        prompt_ids().map(lambda value: {"input_ids": value})
        | image_arguments()
        | (odd() | prompt_ids()).map(lambda value: {"input_ids": value})
    )
    arguments = {**inputs, "generation_mode": mode, **draw(options())}
    if mode in ("video", "interleaved"):
        arguments.setdefault("num_frames", 2)
    if mode in ("text", None, "interleaved") and not {"max_new_tokens", "max_length"} & arguments.keys():
        arguments["max_new_tokens"] = draw(st.integers(1, 8))

    def check(result: Any) -> None:
        if not isinstance(result, torch.Tensor):
            if mode == "interleaved" and hasattr(result, "spans"):
                limit = arguments.get("max_visual_spans")
                _check_spans(result, limit if isinstance(limit, int) else None)
            return
        if not isinstance(inputs["input_ids"], Given):
            return  # without a prompt, the library begins with the first token
        prompt = inputs["input_ids"].build(None)
        count = arguments.get("num_return_sequences", 1)
        if mode in ("image", "video"):
            _check_codes(result, len(prompt) * count, None if mode == "image" else arguments["num_frames"])
        elif count == 1 and prompt.ndim == 2:
            _check_text(result, prompt.tolist())

    return Case("generate", generate, arguments, NAMES, None, check)
