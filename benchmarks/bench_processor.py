"""Times the image processors beside the CLIP processor of transformers, with JPEG decoding (C11).

    python benchmarks/bench_processor.py

It takes about half a minute on one CPU core. Times are CPU times of one thread: the variants run in turn, and the
median counts. Each call processes one file.
"""

import tempfile
from pathlib import Path

import numpy as np
import PIL
import torch
from bench_depth import times
from figures import argument_parser, save_results
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from vilau_hf import VilaUImageProcessor, VilaUImageProcessorPil


SIZES = ((640, 480), (1024, 768), (2048, 1536))
SIDE = 256
GOAL = 1.3
REPEATS = 31


def photo(width: int, height: int) -> Image.Image:
    """Returns noise of all scales. Its JPEG file is about as large as that of a photograph."""
    rng = np.random.default_rng(0)
    total = np.zeros((height, width, 3))
    scale = 4
    while scale <= width:
        noise = rng.normal(size=(scale * height // width, scale, 3)).astype(np.float32)
        for channel in range(3):
            plane = Image.fromarray(noise[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += np.asarray(plane) * scale**-0.4
        scale *= 2
    low, high = np.percentile(total, (1, 99))
    return Image.fromarray(np.clip(255 * (total - low) / (high - low), 0, 255).astype(np.uint8))


def measure(file: Path, width: int, height: int) -> dict:
    photo(width, height).save(file, quality=90)
    settings = {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processors = {
        "library": CLIPImageProcessorPil(do_center_crop=False, **settings),
        "pil": VilaUImageProcessorPil(**settings),
        "torchvision": VilaUImageProcessor(**settings),
    }

    def run(processor):
        return lambda: processor(str(file), return_tensors="pt")["pixel_values"]

    expected = run(processors["library"])()
    for name, processor in processors.items():
        if not torch.equal(run(processor)(), expected):
            raise ValueError(f"the pixels of the {name} processor differ from those of the library")

    def bound():  # the least work that gives these pixels
        Image.open(file).resize((SIDE, SIDE), Image.Resampling.BICUBIC)

    runs = {name: run(processor) for name, processor in processors.items()}
    found = times({**runs, "decode_and_resize": bound}, REPEATS)
    return {
        "size": f"{width}x{height}",
        "file_kb": round(file.stat().st_size / 1e3),
        **{f"{name}_images_per_s": round(1e3 / value, 1) for name, value in found.items()},
        "pil_times_library": round(found["library"] / found["pil"], 2),
        "torchvision_times_library": round(found["library"] / found["torchvision"], 2),
        "equal_pixels": True,
        "goal": GOAL,
    }


def main():
    out = argument_parser(__doc__).parse_args().out
    torch.set_num_threads(1)
    results = []
    print(
        f"{'image':>10} {'library':>8} {'pil':>8} {'torchvision':>12} {'bound':>8}   images/s; goal {GOAL} x library"
    )
    with tempfile.TemporaryDirectory() as folder:
        for width, height in SIZES:
            results.append(measure(Path(folder) / "photo.jpg", width, height))
            row = results[-1]
            columns = ("library", "pil", "torchvision", "decode_and_resize")
            numbers = [f"{row[f'{name}_images_per_s']:8.1f}" for name in columns]
            ratios = f"{row['pil_times_library']:.2f} x, {row['torchvision_times_library']:.2f} x"
            print(f"{row['size']:>10} {numbers[0]} {numbers[1]}     {numbers[2]} {numbers[3]}   {ratios}", flush=True)
    save_results("processor", out, side=SIDE, jpeg_quality=90, results=results, pillow=PIL.__version__)


if __name__ == "__main__":
    main()
