"""Images through the image processors and the processor."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from vilau_hf.processing.image_processing_pil_vilau import VilaUImageProcessorPil
from vilau_hf.processing.image_processing_vilau import VilaUImageProcessor

from . import pixels
from .classification import Case, Given, Wrong, build
from .models import SIDE, TOKENS, processor
from .values import INTEGERS, array_values, file, odd


NAMES = ("image", "images", "pixels", "PIL", "An image", "image_processor")
SIZE = {"height": SIDE, "width": SIDE}
PROCESSORS = {
    "VilaUImageProcessor": VilaUImageProcessor(size=SIZE),
    "VilaUImageProcessorPil": VilaUImageProcessorPil(size=SIZE),
}
# number of channels of each mode, 0 for arrays of two dimensions
MODES = {
    "1": 0, "L": 0, "P": 0, "I;16": 0, "I": 0, "F": 0, "LA": 2, "RGB": 3, "YCbCr": 3, "HSV": 3, "RGBA": 4, "RGBX": 4,
    "CMYK": 4,
}  # fmt: skip
# Conversions of Pillow that round at several steps, in levels.
ROUNDING = {"YCbCr": 2, "HSV": 3, "CMYK": 1.5}


@dataclass
class Sample:
    """An image, its RGB levels `(h, w, 3)` by naive rules (`None` if it must be refused), and their tolerance."""

    given: Given
    levels: np.ndarray | None
    tolerance: float = 1.01
    is_array: bool = False
    is_batch: bool = False


def _odd_ranges() -> st.SearchStrategy[tuple[float, float]]:
    return st.sampled_from([(0, 1), (0, 255), (-1, 1), (0, 65535), (0, 2), (5, 5), (0, 300), (-128, 127), (0, 1e30)])


@st.composite
def array_samples(draw: Any) -> Sample:
    """Draws an array or a tensor of one image, often with other dimensions, dtypes and ranges than accepted."""
    dtype = draw(st.sampled_from(["bool", "uint8", "uint16", "float16", "float32", "float64", *INTEGERS, "complex64"]))
    usual = {"bool": (0, 1), "uint16": (0, 65535), "complex64": (0, 1)}
    low, high = usual.get(dtype, (0, 1) if dtype.startswith("float") else (0, 255))
    if draw(st.integers(0, 3)) == 0:
        low, high = draw(_odd_ranges())
    if dtype in INTEGERS:  # NumPy wraps values that a dtype does not have
        low, high = (max(np.iinfo(dtype).min, min(np.iinfo(dtype).max, value)) for value in (low, high))
    height, width = draw(st.integers(0, 12)), draw(st.integers(0, 12))
    if draw(st.integers(0, 9)):
        height, width = max(5, height), max(5, width)  # no number of channels
    channels = draw(st.sampled_from([1, 3, 3, 3, 4, 0, 2, 5]))
    layout = draw(st.sampled_from(["hw", "hwc", "chw", "hwc", "chw", "nhwc", "nnhwc", "h", ""]))
    sizes = {"h": height, "w": width, "c": channels, "n": 1}
    shape = tuple(sizes[letter] for letter in layout)
    seed = draw(st.integers(0, 99))
    special = draw(st.sampled_from([None] * 6 + [np.nan, np.inf, -np.inf])) if dtype.startswith("float") else None
    is_tensor = draw(st.booleans())

    with np.errstate(all="ignore"):
        values = array_values("float32" if dtype == "complex64" else dtype, shape, low, high, seed)
    if dtype == "complex64":
        values = values.astype(dtype)
    if special is not None and values.size:
        values.reshape(-1)[0] = special
    order = draw(st.sampled_from(["=", ">"])) if not is_tensor else "="
    stored = values.astype(values.dtype.newbyteorder(order))
    text = f"{'tensor' if is_tensor else 'array'}({order}{dtype}, {shape}, {low}..{high}, {special}, seed {seed})"
    given = Given(text, lambda folder: torch.from_numpy(np.array(values)) if is_tensor else stored)
    expected = None
    ends = shape[-3::2] if len(shape) > 2 else shape
    if layout in ("hw", "hwc", "chw", "nhwc") and values.size and (layout == "hw" or {1, 3, 4} & {*ends}):
        image = values.reshape([size for letter, size in zip(layout, shape, strict=True) if letter != "n"])
        # If the first and the last size could be a number of channels, it is the first, as in transformers.
        image = (
            image[..., None] if layout == "hw" else image.transpose(1, 2, 0) if image.shape[0] in (1, 3, 4) else image
        )
        expected = pixels.levels(image)
        if expected is not None:
            expected = np.repeat(expected, 3, -1) if expected.shape[-1] == 1 else pixels.on_white(expected)
    return Sample(given, expected, 2 if 4 in ends else 1.01, is_array=True, is_batch=len(shape) == 4)


@st.composite
def pil_samples(draw: Any) -> Sample:
    """Draws an open PIL image of any mode."""
    mode = draw(st.sampled_from(sorted(MODES)))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    seed = draw(st.integers(0, 99))
    ranges = {"1": (0, 1), "I;16": (0, 65535), "I": (0, 65535), "F": (0, 1)}
    low, high = ranges.get(mode, (0, 255))
    if mode in ("I", "F") and draw(st.booleans()):
        low, high = draw(st.sampled_from([(0, 255), (-5, 5), (0, 70000), (0, 1), (1, 1), (0, 0)]))
    dtype = {"1": "bool", "I;16": "uint16", "I": "int32", "F": "float32"}.get(mode, "uint8")
    shape = (height, width, MODES[mode]) if MODES[mode] else (height, width)
    values = array_values(dtype, shape, low, high, seed)
    palette = array_values("uint8", (768,), 0, 255, seed + 1).tolist() if mode == "P" else None

    def make(folder: Path) -> Image.Image:
        if mode == "I;16":
            return Image.frombytes(mode, (width, height), values.tobytes())
        if mode == "1":
            return Image.fromarray(values)
        image = Image.frombytes(mode, (width, height), values.tobytes())
        if palette is not None:
            image.putpalette(palette)
        return image

    expected = pixels.rgb_of_mode(mode, values, palette)
    largest = values.max()
    if (mode == "I" and (values.min() < 0 or largest > 65535 or 0 < largest < 256)) or (
        mode == "F" and not (values.min() >= 0 and largest <= 1)
    ):
        expected = None
    given = Given(f"PIL({mode}, {width}x{height}, {low}..{high}, seed {seed})", make)
    return Sample(given, expected, ROUNDING.get(mode, 1.01))


@st.composite
def file_samples(draw: Any) -> Sample:
    """Draws an image file, some of them damaged, and names of files that are none."""
    kind = draw(st.sampled_from(["PNG", "PNG", "BMP", "TIFF", "damaged", "missing", "folder", "name"]))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    seed = draw(st.integers(0, 99))
    values = array_values("uint8", (height, width, 3), 0, 255, seed)
    stream = io.BytesIO()
    orientation = draw(st.sampled_from([1, 1, 3, 6])) if kind == "PNG" else 1
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} if orientation != 1 else {}
    Image.fromarray(values).save(
        stream, "PNG" if kind in ("damaged", "missing", "folder", "name") else kind, **options
    )
    content = stream.getvalue()
    turned = {1: values, 3: values[::-1, ::-1], 6: np.rot90(values, -1)}[orientation]
    if kind == "damaged":
        cut = draw(st.integers(0, len(content) - 1))
        how = draw(st.sampled_from(["cut", "zeros", "text"]))
        damage = {"cut": content[:cut], "zeros": content[:cut] + bytes(len(content) - cut), "text": b"no image"}[how]
        # A zero where a zero was changes nothing, so nothing is known about the result.
        return Sample(file("damaged.png", damage), None)
    if kind == "missing":
        return Sample(Given("missing.png", lambda folder: str(folder / "missing.png")), None)
    if kind == "folder":
        return Sample(Given("folder", lambda folder: str(folder)), None)
    if kind == "name":
        names = [
            "",
            "\0",
            "a" * 300,
            "http://",
            "https://127.0.0.1:9/a.png",
            "s3://b/a.png",
            "data:,",
            "data:image/png;base64,!!",
            "file:///etc/passwd",
            "/dev/null",
            "/etc/passwd",
        ]
        name = draw(st.sampled_from(names))
        return Sample(Given(repr(name), lambda folder: name), None)
    given = file(f"{width}x{height}-{seed}-{orientation}.{kind.lower()}", content)
    if draw(st.booleans()):
        inner = given
        given = Given(f"Path({inner!r})", lambda folder: Path(inner.build(folder)))
    return Sample(given, turned.astype(np.float64))


def large_samples() -> st.SearchStrategy[Sample]:
    """Draws images that are too large or too narrow, and such without pixels."""

    def make(size: tuple[int, int]) -> Sample:
        return Sample(Given(f"PIL(1, {size[0]}x{size[1]})", lambda folder: Image.new("1", size)), None)

    return st.sampled_from([(0, 5), (5, 0), (0, 0), (10_001, 1), (1, 200_000), (14_000, 14_000)]).map(make)


def odd_samples() -> st.SearchStrategy[Sample]:
    """Draws objects that are no images."""
    values = odd().filter(lambda value: "tensor" not in repr(value))
    return values.map(lambda value: Sample(Given(repr(value), lambda folder: build(value, folder)), None))


def samples() -> st.SearchStrategy[Sample]:
    """Draws an image of any kind."""
    return st.one_of(
        array_samples(), array_samples(), pil_samples(), pil_samples(), file_samples(), large_samples(), odd_samples()
    )


# Settings that change the pixels by a rule that the oracle knows.
KNOWN_SETTINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "crop_to_square": pixels.crop_to_square,
    "pad_to_square": pixels.pad_to_square,
}


@st.composite
def settings(draw: Any) -> tuple[dict[str, Any], bool]:
    """Draws settings of a call, and whether the oracle knows their pixels."""
    choice = draw(st.integers(0, 9))
    if choice < 6:
        return {}, True
    if choice < 8:
        name = draw(st.sampled_from([*KNOWN_SETTINGS, "size", "return_tensors"]))
        if name == "size":
            return {name: {"height": draw(st.integers(1, 9)), "width": draw(st.integers(1, 9))}}, True
        return {name: "np" if name == "return_tensors" else True}, True
    name = draw(
        st.sampled_from(
            [
                "do_resize", "do_rescale", "do_normalize", "do_convert_rgb", "size", "resample", "image_mean",
                "image_std", "rescale_factor", "return_tensors", "do_center_crop", "crop_size", "max_image_pixels",
                "max_aspect_ratio", "do_exif_transpose", "resize_before_rgb", "input_data_format", "data_format",
                "nonsense", "do_pad", "pad_size",
            ]
        )
    )  # fmt: skip
    values = odd() | st.sampled_from(
        [
            False,
            {"height": 3},
            {"height": 0, "width": 5},
            {"shortest_edge": 5},
            {"height": -1, "width": 5},
            {"height": 5.5, "width": 5},
            [0.5, 0.5],
            [0.5] * 3,
            [0.0] * 3,
            "np",
            "channels_last",
        ]
    )
    return {name: draw(values)}, False


def _check(samples: list[Sample], settings: dict[str, Any]) -> Callable[[Any], None]:
    """Returns the check of `pixel_values` for each image."""

    def check(result: Any) -> None:
        found = result["pixel_values"]
        if len(found) != len(samples):
            raise Wrong(f"{len(found)} images, not {len(samples)}")
        size = settings.get("size", SIZE)
        for actual, sample in zip(found, samples, strict=True):
            levels = sample.levels
            for name, change in KNOWN_SETTINGS.items():
                # these settings are for images of PIL and files
                levels = change(levels) if name in settings and not sample.is_array else levels
            is_resized = levels.shape[:2] != (size["height"], size["width"])
            wanted = pixels.resize(levels, size["height"], size["width"])
            # The negative weights of the resizing amplify a rounding error of a conversion.
            pixels.check_pixels(np.asarray(actual), wanted, sample.tolerance * (2.5 if is_resized else 1))

    return check


def _check_finite(result: Any) -> None:
    for image in result["pixel_values"]:
        values = np.asarray(image, np.float64)
        if not np.isfinite(values).all() or values.ndim != 3 or 0 in values.shape:
            raise Wrong(f"pixels of shape {values.shape} are not finite or empty")


@st.composite
def cases(draw: Any) -> Case:
    """Draws a call of a processor with one image or several."""
    drawn = draw(st.lists(samples(), min_size=1, max_size=2)) if draw(st.integers(0, 3)) == 0 else [draw(samples())]
    options, is_known = draw(settings())
    is_list = len(drawn) > 1 or draw(st.booleans())
    images = [sample.given for sample in drawn] if is_list else drawn[0].given
    expected = [sample.levels for sample in drawn]
    is_accepted = not any(levels is None for levels in expected)
    # Damaged files can still hold all pixels, and no image means a prompt without images for the processor.
    is_certain = is_accepted or all(sample.levels is not None or _is_certain(sample) for sample in drawn)
    check = None
    if is_accepted:
        known = _check(drawn, options)
        check = known if is_known else _check_finite if options.keys() & {"size", "resample"} else None
    valid = is_accepted if is_certain and is_known else None
    if len({sample.is_batch for sample in drawn}) > 1:
        valid = None  # an array of several images may not be beside single images
    name = draw(st.sampled_from([*PROCESSORS, "VilaUProcessor"]))
    if name in PROCESSORS:
        return Case(name, PROCESSORS[name], {"images": images, **options}, NAMES, valid, check)
    prompt = "a" + "<image>" * len(drawn)

    def check_tokens(result: Any) -> None:
        if check is not None:
            check(result)
        ids = np.asarray(result["input_ids"]).reshape(-1)
        if (ids == processor().image_token_id).sum() != TOKENS * len(drawn):
            raise Wrong("the number of placeholders is not that of the visual tokens")

    if not is_list and isinstance(drawn[0].given, Given) and repr(drawn[0].given) in ("[]", "()", "None"):
        valid = None
    return Case(
        "processor", processor(), {"text": prompt, "images": images, **options}, (*NAMES, "text"), valid, check_tokens
    )


def _is_certain(sample: Sample) -> bool:
    """Returns whether it is certain that a sample must be refused."""
    return "damaged.png" not in repr(sample.given)
