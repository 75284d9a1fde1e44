"""`score` and the functions that decode codes into pixels."""

from typing import Any

import torch
from hypothesis import strategies as st

from vilau_hf.modeling.outputs_vilau import VisualSpan

from .classification import Case, Given, Wrong
from .generation import ids, prompt_ids
from .models import CODES, DEPTHS, GRID, SIDE, TOKENS, model, processor
from .values import array_values, number, odd, tensor


NAMES = ("codes", "labels", "prompt", "positions", "spans", "images", "pixel_values", "placeholders", "span.codes")


def score(**arguments: Any) -> Any:
    """Computes the scores without gradients."""
    with torch.no_grad():
        return model().score(**arguments)


def _check_scores(result: Any) -> None:
    total = result.text_log_probs.sum(-1) + result.code_log_probs.sum((-1, -2))
    if not torch.isfinite(result.log_probs).all() or (result.log_probs > 1e-4).any():
        raise Wrong(f"log-probabilities are {result.log_probs.tolist()}")
    if not torch.allclose(total, result.log_probs, atol=1e-4):
        raise Wrong("the sum differs from the sum of its terms")


@st.composite
def scores(draw: Any) -> Case:
    """Draws prompts with labels, images and odd arguments."""
    start, end = processor().image_start_token_id, processor().image_end_token_id
    image = [processor().image_token_id] * TOKENS
    row = draw(st.sampled_from([[1, 20, 30, 40], [1, 20, start, *image, end, 50], [start, *image, end], [20, *image]]))
    label = draw(st.sampled_from(["all", "last", "none", "shifted"]))
    labels = {
        "all": row,
        "last": [-100] * (len(row) - 1) + row[-1:],
        "none": [-100] * len(row),
        "shifted": [*row[1:], 5],
    }[label]
    arguments: dict[str, Any] = {"input_ids": ids([row]), "labels": ids([labels])}
    if image[0] in row:
        name = draw(st.sampled_from(["codes", "pixel_values"]))
        given = {
            "codes": tensor("int64", (1, TOKENS, DEPTHS), 0, CODES - 1),
            "pixel_values": tensor("float32", (1, 3, SIDE, SIDE), -1, 1),
        }
        arguments[name] = given[name]
    is_plain = draw(st.booleans())
    if not is_plain:
        odd_arguments = {
            "input_ids": prompt_ids() | odd(),
            "labels": prompt_ids() | odd(),
            "attention_mask": odd() | st.just(tensor("int64", (1, len(row)), 1, 1)),
            "codes": odd() | st.sampled_from(
                [tensor("uint8", (1, TOKENS, DEPTHS), 0, CODES), tensor("int64", (1, TOKENS), 0, 3)]
            ),
            "pixel_values": odd() | st.just(tensor("float32", (1, 3, SIDE, 3), -1, 1)),
            "pixel_values_videos": odd() | st.just(tensor("float32", (1, 2, 3, SIDE, SIDE), -1, 1)),
            "visual_codes": odd() | st.just(tensor("int64", (1, len(row), DEPTHS), -1, CODES - 1)),
            "guidance_scale": number() | odd() | st.sampled_from([[2.0], [1.0, 2.0], [[1.0] * TOKENS]]),
            "image_guidance_scale": number() | odd(),
            "negative_prompt_ids": prompt_ids() | odd(),
            "negative_prompt_attention_mask": odd(),
            "image_prompt_ids": prompt_ids() | odd(),
        }  # fmt: skip
        for name in draw(st.lists(st.sampled_from(sorted(odd_arguments)), min_size=1, max_size=2, unique=True)):
            arguments[name] = draw(odd_arguments[name])
    is_labelled = is_plain and label != "shifted"

    def check(result: Any) -> None:
        _check_scores(result)
        if not is_labelled:
            return
        # the naive way: one pass of `forward`, and its text logits
        inputs = {name: value.build(None) for name, value in arguments.items() if name != "labels"}
        with torch.no_grad():
            logits = model()(**inputs).logits.float().log_softmax(-1)
        for index in range(1, len(row)):
            is_text = labels[index] not in (-100, image[0])
            wanted = float(logits[0, index - 1, row[index]]) if is_text else 0.0
            if abs(wanted - float(result.text_log_probs[0, index])) > 1e-3:
                raise Wrong(
                    f"the log-probability at {index} is {result.text_log_probs[0, index]:.4f}, not {wanted:.4f}"
                )

    return Case("score", score, arguments, NAMES, True if is_labelled else None, check)


@st.composite
def decoded(draw: Any) -> Case:
    """Draws code grids for the functions that decode them."""
    name, lead = draw(st.sampled_from([("decode_image_tokens", 1), ("decode_video_tokens", 2)]))
    dtype = draw(st.sampled_from(["int64", "int32", "uint8", "int8", "int16", "float32", "bool", "uint16"]))
    shape = tuple(draw(st.integers(0 if draw(st.integers(0, 4)) == 0 else 1, 2)) for _ in range(lead))
    grid = draw(
        st.sampled_from([(GRID, GRID, DEPTHS)] * 4 + [(GRID, GRID), (GRID + 1, GRID, DEPTHS), (GRID, GRID, 1)])
    )
    low, high = draw(st.sampled_from([(0, CODES - 1)] * 3 + [(0, CODES), (-1, 5), (0, 0)]))
    low = 0 if dtype.startswith("u") or dtype == "bool" else low
    shape += grid
    given: Any = tensor(dtype, shape, low, high)
    argument = "image_tokens" if lead == 1 else "video_tokens"
    if draw(st.integers(0, 5)) == 0:
        return Case(name, getattr(model(), name), {argument: draw(odd())}, NAMES)
    values = array_values(dtype, shape, low, high, 0)
    is_right = grid == (GRID, GRID, DEPTHS) and dtype not in ("float32", "bool") and values.size > 0
    is_right = is_right and values.min() >= 0 and values.max() < CODES

    def check(result: torch.Tensor) -> None:
        if tuple(result.shape[:lead]) != shape[:lead] or result.abs().max() > 1 or not result.isfinite().all():
            raise Wrong(f"pixels of shape {tuple(result.shape)} outside of [-1, 1]")
        # row by row, through the vision tower alone
        flat = torch.from_numpy(values.astype("int64")).reshape(-1, TOKENS, DEPTHS)
        with torch.no_grad():
            rows = torch.cat([model().model.vision_tower.decode(row[None]) for row in flat]).clamp(-1, 1)
        if (rows.reshape(result.shape) - result).abs().max() > 1e-3:
            raise Wrong("pixels differ from those of each row alone")

    return Case(name, getattr(model(), name), {argument: given}, NAMES, is_right, check)


@st.composite
def spans(draw: Any) -> Case:
    """Draws spans as interleaved generation returns them, some with codes of another shape."""
    kind = draw(st.sampled_from(["image", "video", "x", None]))
    codes = draw(
        st.sampled_from(
            [
                tensor("int64", (GRID, GRID, DEPTHS), 0, CODES - 1),
                tensor("int64", (2, GRID, GRID, DEPTHS), 0, CODES - 1),
                tensor("uint8", (GRID, GRID, DEPTHS), 0, 200),
                tensor("float32", (GRID, GRID, DEPTHS), 0, 1),
                None,
                "x",
            ]
        )
    )  # fmt: skip
    span = Given(
        f"VisualSpan({kind}, {codes})",
        lambda folder: VisualSpan(
            kind=kind, begin=1, num_tokens=TOKENS, codes=codes.build(folder) if isinstance(codes, Given) else codes
        ),
    )
    value = draw(st.sampled_from([[[span]], [[span, span]], [span], span, [[]], []]) | odd())

    def check(result: Any) -> None:
        for row in result:
            for each in row:
                if each.codes is not None and (each.pixels is None or each.pixels.abs().max() > 1):
                    raise Wrong("a finished span has no pixels in [-1, 1]")

    return Case("decode_visual_spans", model().decode_visual_spans, {"spans": value}, NAMES, None, check)


def cases() -> st.SearchStrategy[Case]:
    """Draws a call of one of the functions."""
    return st.one_of(scores(), scores(), decoded(), decoded(), spans())
