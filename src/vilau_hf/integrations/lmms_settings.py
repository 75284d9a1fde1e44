"""Settings of the lmms-eval adapter, from `--model_args`, and of text generation, from the tasks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from transformers import GenerationConfig
from transformers.utils import logging

from ..modeling.generation_settings_vilau import VISUAL_GENERATION_DEFAULTS


logger = logging.get_logger(__name__)

MODES = ("understanding", "generate", "edit", "video", "visual_cot")
OUTPUT_FORMS = ("json", "folder", "path")
# Arguments of `generate` that `--model_args` may have. `num_frames` is a field of its own.
VISUAL_SETTINGS = (
    "guidance_scale",
    "image_guidance_scale",
    *(name for name in VISUAL_GENERATION_DEFAULTS if name not in ("num_frames", "unconditional_prompt_ids")),
)
# Prompt of the image that is drawn before the answer, where a task has none. It is that of the adapters of lmms-eval
# (`bagel_unig2u`, read in 0.7.3).
DRAWING_PROMPT = "Generate a detailed visual diagram or illustration to help answer this question: {question}"
# Distance between the seeds of two images of one document. No benchmark has more documents.
SEED_STEP = 1_000_000
# Limit of an answer for tasks and checkpoints that give none, as in most adapters of lmms-eval.
MAX_NEW_TOKENS = 1024
# settings of tasks for text, by the name that `generate` has too
_TEXT_SETTINGS = ("max_new_tokens", "num_beams", "repetition_penalty", "temperature", "top_k", "top_p")
# What tasks say to other models: how these prepare images, or how they think.
_OTHER_MODELS = ("image_aspect_ratio", "visual_cot", "bagel_interleaved", "until", "do_sample")


@dataclass(frozen=True)
class AdapterSettings:
    """
    Settings that the outputs depend on.

    Args:
        pretrained (`str`): folder or Hub id of the model.
        mode (`str`, *optional*): one of `MODES`, for all tasks. `"understanding"` answers in text, `"generate"` draws
            images, `"edit"` draws images after those of the prompt, `"video"` generates videos. `"visual_cot"` draws
            an image and answers with it. By default each task has the mode that its definition names, and
            `"understanding"` if it names none.
        dtype (`str`, *optional*, defaults to `"auto"`): dtype of the weights; `"auto"` is that of the checkpoint.
        seed (`int`, *optional*, defaults to 0): image s of document i has the seed `seed + i + s * SEED_STEP`.
        num_frames (`int`, *optional*): frames of a generated video, and those sampled from a video of a prompt. By
            default the numbers of the checkpoint.
        num_images (`int`, *optional*, defaults to 1): images or videos of each document.
        output_form (`str`, *optional*): what a task gets for images and videos: `"json"` is
            `{"text": ..., "images": [...]}`, `"folder"` the folder of the files, `"path"` the name of the first file.
            By default `"path"` for videos and `"json"` for images.
        drawing_prompt (`str`, *optional*): prompt of the image of `"visual_cot"`, with `{question}`, for tasks without
            one.
        visual (`Mapping[str, Any]`, *optional*): arguments of `generate` in `VISUAL_SETTINGS`.

    Raises:
        ValueError: if a setting is unknown or out of range.
    """

    pretrained: str
    mode: str | None = None
    dtype: str = "auto"
    seed: int = 0
    num_frames: int | None = None
    num_images: int = 1
    output_form: str | None = None
    drawing_prompt: str = DRAWING_PROMPT
    visual: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in MODES:
            raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {self.mode!r}.")
        if self.output_form is not None and self.output_form not in OUTPUT_FORMS:
            raise ValueError(f"`output_form` must be one of {', '.join(OUTPUT_FORMS)}, got {self.output_form!r}.")
        for name, value, least in (
            ("seed", self.seed, 0),
            ("num_images", self.num_images, 1),
            ("num_frames", self.num_frames, 1),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}.")
        if "{question}" not in self.drawing_prompt:
            raise ValueError(f"`drawing_prompt` must contain {{question}}, got {self.drawing_prompt!r}.")
        if self.mode is not None:
            self.check_image_guidance(self.mode)
        unknown = sorted(self.visual.keys() - set(VISUAL_SETTINGS))
        if unknown:
            accepted = ", ".join(sorted({*self.__dataclass_fields__, *VISUAL_SETTINGS} - {"visual"}))
            raise ValueError(f"unknown `--model_args`: {', '.join(unknown)}. Accepted are {accepted}.")

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "AdapterSettings":
        """
        Makes settings from `--model_args`, in which the arguments of `generate` are beside the others.

        Args:
            arguments (`Mapping[str, Any]`): name -> value.
        """
        names = [name for name in arguments if name in cls.__dataclass_fields__ and name != "visual"]
        visual = {name: value for name, value in arguments.items() if name not in names}
        return cls(**{name: arguments[name] for name in names}, visual=visual)

    def check_image_guidance(self, mode: str) -> None:
        """Raises a `ValueError` if there is guidance by given images in a mode without given images."""
        if mode != "edit" and self.visual.get("image_guidance_scale") is not None:
            raise ValueError(f'`image_guidance_scale` needs `mode="edit"`, got {mode!r}.')

    def form_of(self, mode: str) -> str:
        """Returns the form in which a task of a mode gets images and videos."""
        if self.output_form is not None:
            return self.output_form
        return "path" if mode == "video" else "json"

    def seed_of(self, doc_id: int, sample: int) -> int:
        """Returns the seed of image number `sample` of a document."""
        return self.seed + doc_id + sample * SEED_STEP

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as JSON holds them."""
        return asdict(self)


@dataclass(frozen=True)
class TextSettings:
    """
    Settings of one answer.

    Args:
        arguments (`Mapping[str, Any]`): arguments of `generate`.
        until (`tuple[str, ...]`): texts at which the answer ends.
    """

    arguments: Mapping[str, Any]
    until: tuple[str, ...] = ()

    @classmethod
    def from_task(cls, settings: Mapping[str, Any], saved: GenerationConfig) -> "TextSettings":
        """
        Converts `generation_kwargs` of a task.

        As in lmms-eval, a temperature of 0 is greedy decoding, and so is a task that asks for nothing.

        Args:
            settings (`Mapping[str, Any]`): the settings of the task.
            saved (`GenerationConfig`): generation config of the checkpoint, whose length limit is the default.
        """
        unknown = sorted(settings.keys() - {*_TEXT_SETTINGS, *_OTHER_MODELS})
        if unknown:
            logger.warning_once(f"generation settings of a task without effect on this model: {', '.join(unknown)}.")
        given = {name: settings[name] for name in _TEXT_SETTINGS if settings.get(name) is not None}
        temperature = given.get("temperature")
        is_sampled = bool(settings.get("do_sample", temperature not in (None, 0))) and temperature != 0
        if not is_sampled:
            for name in ("temperature", "top_k", "top_p"):
                given.pop(name, None)
        arguments = {"max_new_tokens": saved.max_new_tokens or MAX_NEW_TOKENS, **given, "do_sample": is_sampled}
        until = settings.get("until") or ()
        return cls(arguments, (until,) if isinstance(until, str) else tuple(until))

    @property
    def is_sampled(self) -> bool:
        """Returns whether tokens are drawn at random."""
        return bool(self.arguments["do_sample"])

    def cut(self, answer: str) -> str:
        """Returns an answer without spaces at its ends, up to the first of the texts in `until`."""
        answer = answer.strip()
        for stop in self.until:
            if stop:
                answer = answer.split(stop, 1)[0]
        return answer.strip()

    def key(self) -> str:
        """Returns a text that is the same for equal settings."""
        return repr((sorted(self.arguments.items()), self.until))


def positive_batch_size(batch_size: int | str) -> int:
    """
    Returns the number of documents in a batch.

    Raises:
        ValueError: if it is no integer of at least 1. Automatic sizes are not supported.
    """
    if isinstance(batch_size, bool) or not str(batch_size).isdecimal() or int(batch_size) < 1:
        raise ValueError(f"`--batch_size` must be an integer of at least 1, got {batch_size!r}.")
    return int(batch_size)


def split_drawing_prompt(text: str, template: str) -> tuple[str, str]:
    """
    Splits the text of a task that draws before it answers.

    Args:
        text (`str`): the text, with `[GEN_PROMPT]...[/GEN_PROMPT]` and `[QUESTION]...[/QUESTION]`, or a question.
        template (`str`): prompt of the image for a question alone, with `{question}`.

    Returns:
        The prompt of the image, and the question.
    """
    drawing = _between(text, "GEN_PROMPT")
    question = _between(text, "QUESTION")
    if drawing is None or question is None:
        return template.replace("{question}", text), text
    return drawing.replace("{question}", question), question


def _between(text: str, tag: str) -> str | None:
    """Returns what is between `[tag]` and `[/tag]`, or `None`."""
    _, begin, rest = text.partition(f"[{tag}]")
    inside, end, _ = rest.partition(f"[/{tag}]")
    return inside.strip() if begin and end else None


__all__ = [
    "DRAWING_PROMPT",
    "MODES",
    "OUTPUT_FORMS",
    "SEED_STEP",
    "VISUAL_SETTINGS",
    "AdapterSettings",
    "TextSettings",
    "positive_batch_size",
    "split_drawing_prompt",
]
