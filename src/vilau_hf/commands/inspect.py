"""`vilau inspect`."""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..choices import IMAGE_DISPLAYS
from .generate import DEFAULT_MODEL


if TYPE_CHECKING:
    import torch
    from PIL import Image
    from rich.console import Console

    from .. import VilaUVisionConfig
    from ..evaluation.code_inspection import InspectedImage
    from ..evaluation.evaluated_model import EvaluatedModel


HELP = "show the codes of images, their use of the codebook, and the quality by the number of codes"
# Images on the sheet. More would make it too large for viewers of images.
SHEET_IMAGES = 32
# Images that are shown in the terminal. Of further images it has the figures.
SHOWN_IMAGES = 8
# Least side of an image on the sheet in pixels, for captions of two lines.
LEAST_SIDE = 128
# Width of an image in the terminal, in characters. It is smaller if all depths then fit side by side, but not below
# the least width, which its caption needs.
COLUMNS = 16
LEAST_COLUMNS = 13


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.epilog = (
        "A map shows the codes of one depth: equal codes have equal colours, and codes with similar embeddings have "
        "similar colours. PSNR compares the image with its reconstruction from the first codes of each position."
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="image, animation or video")
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="folder or Hub id of the model or vision tower (default: the shipped checkpoint)",
    )
    parser.add_argument("--processor", help="folder or Hub id of the processor (default: the processor of the model)")
    parser.add_argument(
        "--num-frames",
        type=int,
        default=4,
        help="number of frames of an animation or a video, uniformly sampled (default: %(default)s)",
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="PNG",
        help=f"file for a sheet of the first {SHEET_IMAGES} images, with reconstructions and maps of codes",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --sheet if it exists")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with all codes, instead of tables")
    parser.add_argument(
        "--images",
        choices=IMAGE_DISPLAYS,
        default="auto",
        help="how images are shown in the terminal (default: as the terminal can, not with NO_COLOR)",
    )
    parser.add_argument("--batch-size", type=int, default=16, help="images encoded at once (default: %(default)s)")
    parser.add_argument(
        "--device", default="cpu", help="device of the vision tower, for example cuda:0 (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Inspects the images, and prints the results as tables or as JSON."""
    from rich.console import Console

    from ..evaluation.code_inspection import CodeUse, code_colors
    from ..evaluation.drawing_files import name_files
    from ..evaluation.evaluated_model import EvaluatedModel
    from ..terminal.image_display import choose_display

    for option, number in (("--num-frames", args.num_frames), ("--batch-size", args.batch_size)):
        if number < 1:
            raise ValueError(f"`{option}` must be at least 1, got {number}.")
    if args.sheet is not None and not args.sheet.suffix:
        raise ValueError(f"`--sheet` must have a suffix of an image, got {str(args.sheet)!r}.")
    # Before the model is loaded, so that a mistake costs no time.
    sheets = [] if args.sheet is None else name_files(args.sheet, "", [0], overwrite=args.overwrite)
    images = _open_files(args.files, args.num_frames)
    model = EvaluatedModel(args.model, processor=args.processor, device=args.device)
    config = model.vision_tower.config
    colors = code_colors(model.vision_tower.quantizer)
    use = CodeUse(config.code_depth, config.codebook_size)
    console = Console(highlight=False)
    display = "none" if args.json else choose_display(console, args.images)
    if not args.json:
        side = config.image_size
        size = f"{side} x {side} pixels, {config.grid_size} x {config.grid_size} positions"
        codes = f"{config.code_depth} codes of {config.codebook_size} at each"
        console.print(f"{Path(args.model).name}: {size}, {codes}", style="dim", markup=False, soft_wrap=True)
    on_sheet: list[tuple[str, InspectedImage]] = []
    described = []
    for index, (name, image) in enumerate(_inspect(images, model, args.batch_size)):
        use.add(image.codes)
        if index < SHEET_IMAGES:
            on_sheet.append((name, image))
        if args.json:
            described.append(_describe(name, image))
        else:
            _print_image(console, name, image, colors, display if index < SHOWN_IMAGES else "none")
    if sheets:
        _write_sheet(sheets[0], on_sheet, colors, max(LEAST_SIDE, config.image_size), args.overwrite)
    rows = use.describe(config.shared_codebook)
    sheet = str(sheets[0]) if sheets else None
    if args.json:
        _print_json(args.model, config, described, rows, sheet)
        return
    _print_use(console, rows, len(images), config.grid_size**2)
    if sheet is not None:
        console.print(f"sheet: {sheet}", markup=False, soft_wrap=True)


def _open_files(files: list[str], num_frames: int) -> list[tuple[str, "Image.Image"]]:
    """Opens the images and the sampled frames of videos, each with its name."""
    from ..evaluation.opened_media import open_media

    images = []
    for file in files:
        kind, frames = open_media(file, num_frames)
        for number, frame in enumerate(frames, 1):
            images.append((f"{file}, frame {number}" if kind == "video" else file, frame))
    return images


def _inspect(
    images: list[tuple[str, "Image.Image"]], model: "EvaluatedModel", batch_size: int
) -> Iterator[tuple[str, "InspectedImage"]]:
    """Yields the name and the result of each image, with a bar of the progress."""
    from tqdm.auto import tqdm

    from ..evaluation.code_inspection import inspect_images

    # `None` shows the bar in terminals alone. The bar of one batch would show nothing.
    is_hidden = True if len(images) <= batch_size else None
    with tqdm(total=len(images), desc="inspecting", unit="image", leave=False, disable=is_hidden) as progress:
        for begin in range(0, len(images), batch_size):
            batch = images[begin : begin + batch_size]
            pixels = model.image_processor([image for _, image in batch], return_tensors="pt")["pixel_values"]
            for (name, _), result in zip(batch, inspect_images(model.vision_tower, pixels), strict=True):
                yield name, result
            progress.update(len(batch))


def _describe(name: str, image: "InspectedImage") -> dict[str, Any]:
    """Returns the results of an image as JSON can hold them. An infinite PSNR is `None`."""
    return {
        "name": name,
        "codes": image.codes.tolist(),
        "psnr": [value if math.isfinite(value) else None for value in image.psnr],
        "distinct_codes": image.distinct_codes,
    }


def _print_image(console: "Console", name: str, image: "InspectedImage", colors: "torch.Tensor", display: str) -> None:
    """Prints the figures of an image, and shows it with its reconstructions and the maps of its codes."""
    from rich.table import Table

    from ..evaluation.code_sheets import code_maps
    from ..evaluation.sheets import to_pil
    from ..terminal.image_display import GAP, show_images

    console.print()
    console.print(name, style="bold", markup=False, soft_wrap=True)
    depth = image.codes.shape[-1]
    if display != "none":
        columns = max(LEAST_COLUMNS, min(COLUMNS, (console.width + GAP) // (depth + 1) - GAP))
        pixels = [to_pil(image.original), *map(to_pil, image.reconstructions)]
        captions = ["image", *(f"codes 1-{number}" if number > 1 else "code 1" for number in range(1, depth + 1))]
        show_images(console, pixels, display, captions, columns)
        # The gap below the image puts each map below the reconstruction that its codes complete.
        maps = [None, *code_maps(image.codes, colors, image.codes.shape[0])]
        captions = ["", *(f"map of code {number}" for number in range(1, depth + 1))]
        show_images(console, maps, display, captions, columns)
    table = Table(box=None, pad_edge=False)
    table.add_column("number of codes")
    for number in range(1, depth + 1):
        table.add_column(str(number), justify="right")
    table.add_row("PSNR in dB", *(f"{value:.1f}" for value in image.psnr))
    table.add_row("distinct codes at this depth", *map(str, image.distinct_codes))
    console.print(table)


def _print_use(console: "Console", rows: list[dict[str, Any]], num_images: int, num_positions: int) -> None:
    """Prints the use of the codebook by all images."""
    from rich.table import Table

    console.print()
    noun = "image" if num_images == 1 else "images"
    console.print(f"Use of the codebook by {num_images} {noun} of {num_positions} positions", style="bold")
    table = Table(box=None, pad_edge=False)
    for column in ("depth", "codes used", "share", "perplexity"):
        table.add_column(column, justify="right")
    for row in rows:
        depth = "all" if row["depth"] is None else str(row["depth"])
        table.add_row(depth, str(row["codes"]), f"{row['share']:.1%}", f"{row['perplexity']:.1f}")
    console.print(table)


def _print_json(
    model: str, config: "VilaUVisionConfig", images: list[dict[str, Any]], use: list[dict[str, Any]], sheet: str | None
) -> None:
    """Prints all results as one JSON object."""
    tower = {name: getattr(config, name) for name in ("image_size", "grid_size", "code_depth", "codebook_size")}
    content = {"model": model, "tower": tower, "images": images, "use": use, "sheet": sheet}
    print(json.dumps(content, ensure_ascii=False))


def _write_sheet(
    path: Path, images: list[tuple[str, "InspectedImage"]], colors: "torch.Tensor", side: int, overwrite: bool
) -> None:
    """Writes the sheet of the images."""
    from ..evaluation.code_sheets import inspection_sheet
    from ..evaluation.drawing_files import write_results

    names = [Path(name).name for name, _ in images]
    write_results([inspection_sheet([image for _, image in images], names, colors, side)], [path], overwrite)
