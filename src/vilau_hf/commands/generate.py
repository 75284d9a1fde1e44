"""`vilau generate`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import TINY_CHECKPOINT
from ..choices import PROMPT_LAYOUTS, RANKERS


if TYPE_CHECKING:
    from ..evaluation.drawing_settings import DrawingOptions
    from ..pipelines import VilaUPipeline


HELP = "draw images or videos: one prompt into a file, or a file of prompts into the folder of a benchmark"
# The checkpoint that draws if no other is named.
DEFAULT_MODEL = TINY_CHECKPOINT
# Larger numbers of images are mistakes. Lists of their names and seeds alone could fill the memory.
LARGEST_NUMBER = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.epilog = (
        "The paths of the files are printed, one on each line. On several GPUs: accelerate launch -m vilau_hf.cli "
        "generate --prompts FILE --out DIR. After an interruption, the same command continues the run."
    )
    parser.add_argument("prompt", nargs="?", help="the prompt")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="folder or Hub id of the model (default: the shipped checkpoint)"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub (default: main)")
    parser.add_argument(
        "--out",
        type=_path,
        help="with a prompt: file or folder of the result (default: a file in this folder, named after the prompt); "
        "with --prompts: the folder of the run, which is required",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --out if it exists")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of paths")
    _add_results(parser.add_argument_group("results"))
    _add_sampling(parser.add_argument_group("sampling"))
    _add_files_of_prompts(parser.add_argument_group("files of prompts"))
    parser.add_argument(
        "--device", default="auto", help="device of the model, for example cuda:0 (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="dtype of the weights (default: %(default)s, the dtype of the checkpoint)",
    )


def _path(text: str) -> Path:
    """Returns the path of an argument."""
    # An empty text would be the working folder, for example that of a variable that is not set.
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def _add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--video", action="store_true", help="draw a video instead of an image")
    group.add_argument("--num-frames", type=int, help="number of frames of a video (default: as the model saves)")
    group.add_argument(
        "--edit",
        type=_path,
        action="append",
        metavar="IMAGE",
        help="image that the prompt says how to change (repeat it for several images)",
    )
    group.add_argument(
        "--num-images",
        type=int,
        metavar="N",
        help="number of images or videos of each prompt (default: 1, or the number of the layout)",
    )
    group.add_argument(
        "--candidates",
        type=int,
        default=1,
        metavar="N",
        help="number of images that are drawn for each image, which is the best of them (default: %(default)s)",
    )
    group.add_argument(
        "--rank",
        choices=RANKERS,
        help="how the best candidate is found: by the likelihood of its codes, by the answer of the model to a "
        "question about it, or by a vision tower with a text encoder (default: likelihood)",
    )
    group.add_argument(
        "--tower",
        help="folder or Hub id of the vision tower for --rank tower (default: the folder tower of the model)",
    )


def _add_sampling(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--seed", type=int, default=0, help="seed of the first image; the next have the numbers after it (default: 0)"
    )
    group.add_argument(
        "--guidance-scale",
        type=float,
        help="scale of classifier-free guidance, 1 for none (default here and below: as the model saves)",
    )
    group.add_argument("--image-guidance-scale", type=float, help="scale of guidance by the images of --edit")
    group.add_argument("--negative-prompt", help="prompt that guidance leads away from")
    group.add_argument("--temperature", type=float, help="temperature of sampling")
    group.add_argument("--top-k", type=int, help="number of the most probable codes to sample from, 0 for all")
    group.add_argument("--top-p", type=float, help="share of probability of the codes to sample from")
    group.add_argument(
        "--greedy", action="store_true", help="take the most probable codes instead of sampling at random"
    )
    group.add_argument(
        "--visual-decoding",
        choices=("sequential", "parallel"),
        help="whether one position or several are decoded in each pass of the language model",
    )


def _add_files_of_prompts(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--prompts",
        type=_path,
        nargs="+",
        metavar="FILE",
        help=".txt, .jsonl, .json, .csv or .tsv files, or a folder of .txt files",
    )
    group.add_argument(
        "--layout",
        choices=PROMPT_LAYOUTS,
        default="plain",
        help="names of the files, as the scorer of a benchmark reads them (default: %(default)s)",
    )
    group.add_argument(
        "--batch-size", type=int, default=8, help="number of images that are drawn at once (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Draws the prompt or the file of prompts, and prints where the files are."""
    if (args.prompt is None) == (args.prompts is None):
        raise ValueError("give one prompt, or a file of prompts by `--prompts`, and not both.")
    is_video = args.video or args.layout == "vbench"
    for option, is_given, needed, is_there in (
        ("--num-frames", args.num_frames is not None, "--video", is_video),
        ("--rank", args.rank is not None, "--candidates of at least 2", args.candidates > 1),
        ("--tower", args.tower is not None, "--rank tower", args.rank == "tower"),
        ("--image-guidance-scale", args.image_guidance_scale is not None, "--edit", args.edit is not None),
        ("--layout", args.layout != "plain", "--prompts", args.prompts is not None),
        ("--edit", args.edit is not None, "one prompt, not --prompts", args.prompts is None),
        ("--overwrite", args.overwrite, "one prompt, not --prompts", args.prompts is None),
        ("--prompts", args.prompts is not None, "--out, the folder for the files", args.out is not None),
    ):
        if is_given and not is_there:
            raise ValueError(f"`{option}` needs {needed}.")
    for option, number in (
        ("--num-images", args.num_images),
        ("--candidates", args.candidates),
        ("--batch-size", args.batch_size),
    ):
        if number is not None and not 1 <= number <= LARGEST_NUMBER:
            raise ValueError(f"`{option}` must be from 1 to {LARGEST_NUMBER}, got {number}.")
    if args.prompts is None:
        _draw_one(args)
    else:
        _draw_file(args, is_video)


def _draw_one(args: argparse.Namespace) -> None:
    """Draws one prompt."""
    import json

    from ..data.code_cache import launched_processes
    from ..evaluation.drawing_files import name_files, write_results
    from ..evaluation.drawing_run import check_seeds, draw_rows
    from ..evaluation.prompt_files import check_text
    from ..processing.image_functions_vilau import open_images

    if not args.prompt.strip():
        raise ValueError("`prompt` is empty.")
    check_text(args.prompt, "`prompt`")
    if launched_processes().num_processes > 1:
        raise ValueError("one prompt is drawn by one process. Several processes need `--prompts`.")
    num_images = args.num_images or 1
    # Before the model is loaded, so that a mistake costs no time.
    check_seeds(args.seed, num_images)
    seeds = [args.seed + number for number in range(num_images)]
    paths = name_files(args.out, args.prompt, seeds, args.video, args.overwrite)
    images = None if args.edit is None else open_images(args.edit)
    pipe, options, model = _load(args, args.video, describe=args.json)
    arguments = options.pipeline_arguments(pipe)
    results: list = []
    for begin in range(0, num_images, args.batch_size):
        batch = seeds[begin : begin + args.batch_size]
        if images is not None:
            arguments["image"] = [images] * len(batch)
            arguments["image_guidance_scale"] = args.image_guidance_scale
        results += draw_rows(pipe, [args.prompt] * len(batch), batch, arguments)
    write_results(results, paths, args.overwrite)
    if args.json:
        files = [{"path": str(path), "seed": seed} for path, seed in zip(paths, seeds, strict=True)]
        print(json.dumps({"prompt": args.prompt, "files": files, "model": model}, ensure_ascii=False))
        return
    for path in paths:
        print(path)


def _draw_file(args: argparse.Namespace, is_video: bool) -> None:
    """Draws a file of prompts."""
    import json

    from ..data.code_cache import launched_processes
    from ..evaluation.benchmark_layouts import get_layout
    from ..evaluation.drawing_run import SETTINGS_NAME, DrawingFolder, draw_prompts
    from ..evaluation.prompt_files import read_prompts

    # Before the model is loaded, so that a bad line costs no time.
    layout = get_layout(args.layout, is_video)
    layout.check(args.num_images or layout.num_samples, is_video)
    prompts = layout.select([prompt for path in args.prompts for prompt in read_prompts(path)])
    DrawingFolder(args.out, layout).check_usable()
    is_main_process = launched_processes().is_main_process
    pipe, options, model = _load(args, is_video, describe=is_main_process)
    report = draw_prompts(pipe, prompts, layout, args.out, options, model, args.batch_size)
    if not is_main_process:
        return
    if args.json:
        content = {"folder": str(report.folder), "num_files": report.num_files, "layout": layout.name}
        print(json.dumps({**content, "settings": str(args.out / SETTINGS_NAME)}, ensure_ascii=False))
    else:
        print(report.folder)


def _load(
    args: argparse.Namespace, is_video: bool, describe: bool
) -> tuple["VilaUPipeline", "DrawingOptions", dict[str, Any]]:
    """Loads the pipeline and the ranker. Returns it with the options and, if asked for, the identity of the model."""
    from ..data.code_cache import launched_processes
    from ..evaluation.checkpoint_identity import describe_checkpoint
    from ..evaluation.drawing_model import load_pipeline, load_tower_ranker
    from ..evaluation.drawing_settings import DrawingOptions

    device = launched_processes().device if args.device == "auto" else args.device
    show_progress = args.prompts is None and not args.json
    pipe = load_pipeline(args.model, args.revision, device, args.dtype, show_progress)
    # All weights are read once more for it, so it is made only where it is stored or printed.
    model = describe_checkpoint(args.model, args.revision) if describe else {}
    rank_by: Any = args.rank or "likelihood"
    if rank_by == "tower":
        tower = (args.model, "tower", args.revision) if args.tower is None else (args.tower, "", None)
        name, subfolder, revision = tower
        rank_by = load_tower_ranker(name, subfolder, revision, device)
        if describe:
            model["tower"] = describe_checkpoint(name, revision, subfolder)
    options = DrawingOptions(
        seed=args.seed,
        num_images=args.num_images,
        is_video=is_video,
        num_frames=args.num_frames,
        negative_prompt=args.negative_prompt,
        num_candidates=args.candidates,
        rank_by=rank_by,
        sampling={
            "guidance_scale": args.guidance_scale,
            "temperature": args.temperature,
            "top_k": args.top_k,
            "top_p": args.top_p,
            "do_sample": False if args.greedy else None,
            "visual_decoding": args.visual_decoding,
        },
    )
    return pipe, options, model
