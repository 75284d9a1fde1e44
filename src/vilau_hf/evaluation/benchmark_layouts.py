"""Folder layouts of image and video benchmarks: the names of files that each benchmark's scorer reads."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..choices import PROMPT_LAYOUTS
from .prompt_files import Prompt


LONGEST_NAME = 255  # bytes of a file name on Linux


@dataclass(frozen=True)
class PlannedFile:
    """
    A file of a layout, before it is drawn.

    Args:
        path (`str`): path in the output folder.
        samples (`tuple[int, ...]`): numbers of the images of its prompt that it holds: one, or those of a grid in the
            order of rows.
    """

    path: str
    samples: tuple[int, ...]


class Layout:
    """
    Files of one benchmark. A subclass is a benchmark, and says where its layout is described.

    Attributes:
        name (`str`): the name for `--layout`.
        scorer_folder (`str`): the subfolder that the scorer reads, or `"."`.
        num_samples (`int`): images or videos of each prompt, unless another number is asked for.
        allowed_samples (`tuple[int, ...]`): the numbers that the scorer accepts. If empty, any number from 1.
        makes_videos (`bool`, *optional*): whether it has videos. `None` if it can have either.
        required_fields (`tuple[str, ...]`): fields of each prompt that the scorer reads.
    """

    name = ""
    scorer_folder = "."
    num_samples = 1
    allowed_samples: tuple[int, ...] = ()
    makes_videos: bool | None = False
    required_fields: tuple[str, ...] = ()

    def check(self, num_samples: int, is_video: bool) -> None:
        """
        Checks the number and the kind of results.

        Args:
            num_samples (`int`): images or videos of each prompt.
            is_video (`bool`): whether videos are drawn.

        Raises:
            ValueError: if the layout cannot hold them.
        """
        allowed = self.allowed_samples
        if num_samples < 1 or (allowed and num_samples not in allowed):
            accepted = " or ".join(map(str, allowed)) if allowed else "at least 1"
            raise ValueError(
                f"`num_images` must be {accepted} for the layout {self.name!r}, got {num_samples}."
            )
        if self.makes_videos is not None and is_video != self.makes_videos:
            expected = "videos" if self.makes_videos else "images"
            raise ValueError(f"the layout {self.name!r} has {expected}, got {'videos' if is_video else 'images'}.")

    def select(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """
        Checks all prompts and leaves out repetitions, which would have the same files.

        Args:
            prompts (`Sequence[Prompt]`): the prompts of a file.

        Returns:
            The prompts in their order. The position of a prompt in it is its index, for seeds and file names.

        Raises:
            ValueError: for a prompt that lacks a field, has no possible file name, or has the file of another prompt.
        """
        selected: list[Prompt] = []
        first: dict[str, Prompt] = {}
        for prompt in prompts:
            missing = [name for name in self.required_fields if name not in prompt.fields]
            if missing:
                raise ValueError(
                    f"{prompt.source}: the layout {self.name!r} needs the field {missing[0]!r}. Its fields are "
                    f"{sorted(prompt.fields) or 'none'}."
                )
            path = self.files(len(selected), prompt, 1)[0].path
            size = len(path.rpartition("/")[2].encode())
            if size > LONGEST_NAME:
                raise ValueError(f"{prompt.source}: the name of its file has {size} bytes, at most {LONGEST_NAME} fit.")
            other = first.setdefault(path, prompt)
            if other is prompt:
                selected.append(prompt)
            elif other.text != prompt.text:
                raise ValueError(f"{prompt.source}: another prompt has its file {path!r}, see {other.source}.")
        return selected

    def files(self, index: int, prompt: Prompt, num_samples: int) -> list[PlannedFile]:
        """
        Returns the images or videos of a prompt.

        Args:
            index (`int`): index of the prompt, from 0.
            prompt ([`Prompt`]): the prompt.
            num_samples (`int`): its number of images or videos.
        """
        raise NotImplementedError

    def texts(self, index: int, prompt: Prompt) -> dict[str, str]:
        """
        Returns the text files of a prompt, as content by path.

        Args:
            index (`int`): index of the prompt, from 0.
            prompt ([`Prompt`]): the prompt.
        """
        return {}


class PlainLayout(Layout):
    """
    Numbered files: `00000.png`, or `00000-0.png` and so on for several images of a prompt.

    Videos have the suffix `.mp4`. The run adds a `metadata.jsonl` with `file_name` and `text` of each file. So the
    folder is a dataset of the loader `imagefolder` (huggingface.co/docs/datasets/image_dataset#imagefolder).
    """

    name = "plain"
    makes_videos = None
    suffix = ".png"

    def files(self, index: int, prompt: Prompt, num_samples: int) -> list[PlannedFile]:
        """Returns one file for each sample."""
        if num_samples == 1:
            return [PlannedFile(f"{index:05d}{self.suffix}", (0,))]
        return [PlannedFile(f"{index:05d}-{sample}{self.suffix}", (sample,)) for sample in range(num_samples)]


class PlainVideoLayout(PlainLayout):
    """Numbered files of videos, see [`PlainLayout`]."""

    makes_videos = True
    suffix = ".mp4"


class GenEvalLayout(Layout):
    """
    `00000/samples/0000.png` and `00000/metadata.jsonl`, with the line of `evaluation_metadata.jsonl`.

    Described in README.md ("Image generation") of github.com/djghosh13/geneval, and read by its
    `evaluation/evaluate_images.py`. The scorer reads `tag` and `include` of the metadata, so the prompts must be the
    lines of `prompts/evaluation_metadata.jsonl`. It ignores other files than numbered folders.
    """

    name = "geneval"
    num_samples = 4
    required_fields = ("tag", "include")

    def files(self, index: int, prompt: Prompt, num_samples: int) -> list[PlannedFile]:
        """Returns one file for each sample, in the folder of the prompt."""
        return [PlannedFile(f"{index:05d}/samples/{sample:04d}.png", (sample,)) for sample in range(num_samples)]

    def texts(self, index: int, prompt: Prompt) -> dict[str, str]:
        """Returns the metadata of the prompt, one JSON object."""
        return {f"{index:05d}/metadata.jsonl": json.dumps(dict(prompt.fields)) + "\n"}


class IdLayout(Layout):
    """
    Files named after the ids of the prompts.

    Attributes:
        id_fields (`tuple[str, ...]`): fields that may hold the id, the first that a prompt has.
    """

    id_fields: tuple[str, ...] = ("id",)

    def prompt_id(self, index: int, prompt: Prompt) -> str:
        """
        Returns the id of a prompt.

        Args:
            index (`int`): index of the prompt, from 0.
            prompt ([`Prompt`]): the prompt.

        Raises:
            ValueError: if it has none.
        """
        name = next((name for name in self.id_fields if name in prompt.fields), None)
        if name is None:
            raise ValueError(
                f"{prompt.source}: the layout {self.name!r} needs the id of the prompt, in a field "
                f"{' or '.join(map(repr, self.id_fields))}."
            )
        value = prompt.fields[name]
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError(f"{prompt.source}: the field {name!r} must be a text or an integer, got {value!r}.")
        return _check_name(str(value), f"the field {name!r}", prompt, self.name)


class DpgLayout(IdLayout):
    """
    `ID.png`, four images of a prompt in a grid of two rows.

    Described in README.md ("DPG-Bench") of github.com/TencentQQGYLab/ELLA, and read by its
    `dpg_bench/compute_dpg_bench.py`. It crops the grid row by row with `--resolution`, the side of an image, and
    `--pic-num`, the number of images. The ids are the names of the files in `dpg_bench/prompts`, or `item_id` in
    `dpg_bench.csv`, which has several lines of each prompt. With one image of a prompt, the file is this image.
    """

    name = "dpg"
    num_samples = 4
    allowed_samples = (1, 4)
    id_fields = ("item_id", "id")

    def files(self, index: int, prompt: Prompt, num_samples: int) -> list[PlannedFile]:
        """Returns the file of the grid."""
        return [PlannedFile(f"{self.prompt_id(index, prompt)}.png", tuple(range(num_samples)))]


class MjhqLayout(IdLayout):
    """
    `CATEGORY/ID.png`, the folders and names of the reference images `CATEGORY/ID.jpg`.

    Described in the data set card of huggingface.co/datasets/playgroundai/MJHQ-30K: FID over all images, and over
    those of each category. `meta_data.json` has prompt and category by id. The format is PNG, because the
    compression of JPEG changes FID (Parmar et al., 2022, arXiv 2104.11222, section 4).
    """

    name = "mjhq"
    allowed_samples = (1,)
    required_fields = ("category",)

    def files(self, index: int, prompt: Prompt, num_samples: int) -> list[PlannedFile]:
        """Returns the file of the prompt."""
        category = prompt.fields["category"]
        if not isinstance(category, str):
            raise ValueError(f"{prompt.source}: the field 'category' must be a text, got {category!r}.")
        folder = _check_name(category, "the field 'category'", prompt, self.name)
        return [PlannedFile(f"{folder}/{self.prompt_id(index, prompt)}.png", (0,))]


class GenAiLayout(IdLayout):
    """
    `00000.jpeg`, named after the ids of GenAI-Bench.

    Written by `genai_bench/generate.py` and read by `genai_bench/evaluate.py` of github.com/linzhiqiu/t2v_metrics, as
    `OUTPUT_DIR/GEN_MODEL/ID.jpeg`. Its `genai_image.json` has the prompts by id. The ids are their numbers with five
    digits. So prompts without ids, in the order of the benchmark, are numbered.
    """

    name = "genai"
    allowed_samples = (1,)
    id_fields = ("id", "prompt_id")

    def prompt_id(self, index: int, prompt: Prompt) -> str:
        """Returns the id, or the number of the prompt."""
        if not set(self.id_fields) & set(prompt.fields):
            return f"{index:05d}"
        prompt_id = super().prompt_id(index, prompt)
        return f"{int(prompt_id):05d}" if prompt_id.isdecimal() else prompt_id

    def files(self, index: int, prompt: Prompt, num_samples: int) -> list[PlannedFile]:
        """Returns the file of the prompt."""
        return [PlannedFile(f"{self.prompt_id(index, prompt)}.jpeg", (0,))]


class VBenchLayout(Layout):
    """
    `videos/PROMPT-0.mp4` to `videos/PROMPT-4.mp4`.

    Described in prompts/README.md ("How to Sample Videos for Evaluation") of github.com/Vchitect/VBench, and read by
    `VBench.build_full_info_json` in its `vbench/__init__.py`. This takes the suffix of all videos from the first name
    in the folder. So the videos have a folder without any other file. The README asks for 25 videos of each prompt of
    the dimension `temporal_flickering`: give their file of prompts with `--num-images 25`.
    """

    name = "vbench"
    scorer_folder = "videos"
    num_samples = 5
    makes_videos = True

    def files(self, index: int, prompt: Prompt, num_samples: int) -> list[PlannedFile]:
        """Returns one video for each sample."""
        name = _check_name(prompt.text, "the prompt", prompt, self.name)
        return [PlannedFile(f"{self.scorer_folder}/{name}-{sample}.mp4", (sample,)) for sample in range(num_samples)]


class WiseLayout(IdLayout):
    """
    `1.png` to `1000.png`, named after `prompt_id`.

    Described in README.md ("Usage Guide") of github.com/PKU-YuanGroup/WISE, and read by its `gpt_eval.py`. The three
    files of prompts in `data` have different ids, so one folder can hold the images of all.
    """

    name = "wise"
    allowed_samples = (1,)
    id_fields = ("prompt_id", "id")

    def files(self, index: int, prompt: Prompt, num_samples: int) -> list[PlannedFile]:
        """Returns the file of the prompt."""
        return [PlannedFile(f"{self.prompt_id(index, prompt)}.png", (0,))]


LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout
    for layout in (PlainLayout, GenEvalLayout, DpgLayout, MjhqLayout, GenAiLayout, VBenchLayout, WiseLayout)
}


def get_layout(name: str, is_video: bool = False) -> Layout:
    """
    Returns a layout by its name.

    Args:
        name (`str`): one of `LAYOUTS`.
        is_video (`bool`, *optional*, defaults to `False`): whether videos are drawn.

    Raises:
        ValueError: if there is no such layout. The message lists all.
    """
    if name not in LAYOUTS:
        raise ValueError(f"`layout` must be one of {', '.join(PROMPT_LAYOUTS)}, got {name!r}.")
    return PlainVideoLayout() if name == "plain" and is_video else LAYOUTS[name]()


def _check_name(name: str, what: str, prompt: Prompt, layout: str) -> str:
    """Returns `name` if it can be the name of a file or folder in the output folder."""
    if not name or name in (".", "..") or any(letter in "/\\\0\r\n" for letter in name):
        raise ValueError(
            f"{prompt.source}: the layout {layout!r} names a file after {what}. So it cannot be empty, and cannot have "
            f"a slash, a backslash, a line end or a zero byte, got {name!r}."
        )
    return name


__all__ = [
    "LAYOUTS",
    "DpgLayout",
    "GenAiLayout",
    "GenEvalLayout",
    "IdLayout",
    "Layout",
    "MjhqLayout",
    "PlainLayout",
    "PlainVideoLayout",
    "PlannedFile",
    "VBenchLayout",
    "WiseLayout",
    "get_layout",
]
