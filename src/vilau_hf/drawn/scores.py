"""Scores of a model on held-out drawn shapes, judged by the drawing oracle."""

from collections.abc import Iterator

import torch
from tqdm.auto import tqdm

from ..evaluation.metrics import codebook_usage, exact_match, psnr
from ..evaluation.sheets import to_uint8
from ..evaluation.zero_shot import embed_classes
from .dataset import drawn_shapes
from .oracle import read_drawing, read_motion
from .shapes import COLORS, SHAPES, Drawing, drawings, motions


def chat_prompts(processor, messages: list[list[dict]], **media):
    """Model inputs for conversations that the assistant is to continue."""
    prompts = [processor.apply_chat_template(turns, add_generation_prompt=True) for turns in messages]
    return processor(text=prompts, return_tensors="pt", **media)


def _batches(items: list, size: int, description: str) -> Iterator[list]:
    for begin in tqdm(range(0, len(items), size), desc=description, leave=False):
        yield items[begin : begin + size]


def _evenly(items: list, count: int) -> list:
    """`count` of `items`, as evenly spread and as often repeated as possible."""
    return [
        items[index * len(items) // count] if count < len(items) else items[index % len(items)]
        for index in range(count)
    ]


@torch.no_grad()
def draw_captions(model, processor, captions: list[str], mode: str, seed: int, batch_size: int = 50, **settings):
    """
    Pictures or videos of captions, with the model's own generation settings unless `settings` say otherwise.

    Returns:
        uint8 `(N, 3, S, S)` for mode `"image"`, `(N, F, 3, S, S)` for `"video"`.
    """
    generator, results = torch.Generator(model.device).manual_seed(seed), []
    for part in _batches(captions, batch_size, f"drawing {mode}s"):
        messages = [[{"role": "user", "content": [{"type": "text", "text": caption}]}] for caption in part]
        inputs = chat_prompts(processor, messages).to(model.device)
        codes = model.generate(**inputs, generation_mode=mode, generator=generator, **settings)
        decode = model.decode_image_tokens if mode == "image" else model.decode_video_tokens
        results.append(to_uint8(decode(codes)).cpu())
    return torch.cat(results)


@torch.no_grad()
def answer(model, processor, records: list[dict], batch_size: int = 50) -> list[str]:
    """Greedy answers to the questions about the pictures of `records`, the assistant's turn left out."""
    answers = []
    for part in _batches(records, batch_size, "answering"):
        messages = [record["messages"][:-1] for record in part]
        images = [image for record in part for image in record["images"]]
        inputs = chat_prompts(processor, messages, images=images).to(model.device)
        ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        answers += processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in answers]


def evaluate_pictures(pixels: torch.Tensor, targets: list[Drawing]) -> dict[str, float]:
    """Share of pictures in which the oracle reads each attribute of its target."""
    readings = read_drawing(pixels)
    pairs = list(zip(readings, targets, strict=True))
    names = ("color", "shape", "size", "place", "background")
    right = {name: [getattr(reading, name) == getattr(target, name) for reading, target in pairs] for name in names}
    right["color_and_shape"] = [a and b for a, b in zip(right["color"], right["shape"], strict=True)]
    right["all"] = [all(values) for values in zip(*(right[name] for name in names), strict=True)]
    return {f"picture_{name}": sum(values) / len(values) for name, values in right.items()}


@torch.no_grad()
def evaluate_reconstruction(tower, processor, num_samples: int = 200, seed: int = 0) -> dict[str, float]:
    """PSNR, use of the codebook, and what the oracle still reads off reconstructions of held-out drawings."""
    records = drawn_shapes("test", num_samples, tower.config.image_size, tasks={"text_to_image": 1}, seed=seed)[:]
    pixels = processor.image_processor([images[0] for images in records["images"]], return_tensors="pt")[
        "pixel_values"
    ]
    codes = tower.encode(pixels.to(tower.device)).codes
    reconstruction = to_uint8(tower.decode(codes)).cpu()
    targets = [Drawing(**drawing) for drawing in records["drawing"]]
    scores = evaluate_pictures(reconstruction, targets)
    return {
        "reconstruction_psnr": psnr(reconstruction, to_uint8(pixels), data_range=255),
        "codebook_usage": codebook_usage(codes, tower.config.codebook_size),
        "reconstruction_color_and_shape": scores["picture_color_and_shape"],
    }


@torch.no_grad()
def evaluate_tower(tower, processor, caption_length: int, num_samples: int = 200, seed: int = 0) -> dict[str, float]:
    """
    Zero-shot accuracy of colour and shape, 24 classes named as in "a red cross", on held-out drawings.
    """
    classes = [(color, shape) for color in COLORS for shape in SHAPES]
    captions = [f"a {color} {shape}" for color, shape in classes]
    texts = embed_classes(tower, processor.tokenizer, captions, caption_length)
    records = drawn_shapes("test", num_samples, tower.config.image_size, tasks={"text_to_image": 1}, seed=seed)[:]
    pixels = processor.image_processor([images[0] for images in records["images"]], return_tensors="pt")[
        "pixel_values"
    ]
    images = tower.get_image_features(pixels.to(tower.device)).float()
    chosen = (images @ texts.T).argmax(-1)
    right = [
        classes[index] == (drawing["color"], drawing["shape"])
        for index, drawing in zip(chosen.tolist(), records["drawing"], strict=True)
    ]
    return {"zero_shot_color_and_shape": sum(right) / len(right)}


@torch.no_grad()
def evaluate_model(model, processor, num_samples: int = 200, num_videos: int = 50, seed: int = 0) -> dict[str, float]:
    """All scores of a generative model on held-out combinations, with its saved generation settings."""
    side = model.config.vision_config.image_size
    scores = evaluate_reconstruction(model.model.vision_tower, processor, num_samples, seed)
    targets = _evenly(drawings("test"), num_samples)
    pixels = draw_captions(model, processor, [drawing.caption for drawing in targets], "image", seed)
    scores.update(evaluate_pictures(pixels, targets))
    records = list(drawn_shapes("test", num_samples, side, tasks={"image_to_text": 1}, seed=seed))
    references = [record["messages"][-1]["content"][0]["text"] for record in records]
    scores["answer_exact_match"] = exact_match(answer(model, processor, records), references)
    moving = _evenly(motions("test"), num_videos)
    readings = read_motion(draw_captions(model, processor, [motion.caption for motion in moving], "video", seed))
    pairs = list(zip(readings, moving, strict=True))
    for name in ("direction", "color", "shape"):
        scores[f"video_{name}"] = sum(getattr(a, name) == getattr(b, name) for a, b in pairs) / len(pairs)
    return scores


__all__ = [
    "answer",
    "chat_prompts",
    "draw_captions",
    "evaluate_model",
    "evaluate_pictures",
    "evaluate_reconstruction",
    "evaluate_tower",
]
