"""Runs requests of lmms-eval in batches, in the mode of the adapter, and leaves out what is finished."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tqdm.auto import tqdm

from .lmms_generation import PromptModel, chunks
from .lmms_prompts import Prompt, user_turn
from .lmms_settings import AdapterSettings, TextSettings, split_drawing_prompt
from .lmms_store import Output, OutputStore, request_key


# A task ends its rounds itself. This stops one that never does.
MAX_ROUNDS = 100


@dataclass(frozen=True)
class NextRound:
    """
    Holds what a task says after a round.

    Args:
        prompt ([`Prompt`], *optional*): prompt of the next round, `None` if there is none.
        outputs (`list[str]`): the answers so far, which a task may change.
        info (`Any`): what the task gets again after the next round.
    """

    prompt: Prompt | None
    outputs: list[str]
    info: Any = None


@dataclass(frozen=True)
class Request:
    """
    Holds one request of a task, without its images, which are loaded with its batch.

    Args:
        task (`str`): name of the task.
        split (`str`): split of its dataset.
        doc_id (`int`): index of the document.
        context (`str`): text of the prompt.
        make_prompt (`Callable[[], Prompt]`): loads the document and makes the prompt.
        settings (`Mapping[str, Any]`): `generation_kwargs` of the task.
        kind (`str`): type of the request, a method of the models of lmms-eval.
        mode (`str`): mode of the task, one of `MODES`.
        sample (`int`): number of the repetition of this document.
        is_padding (`bool`): whether the request only makes the number of requests equal in all processes.
        next_round (`Callable[[int, list[str], Any], NextRound]`, *optional*): makes the prompt of a later round from
            its number, the answers so far, and `info` of the round before.
    """

    task: str
    split: str
    doc_id: int
    context: str
    make_prompt: Callable[[], Prompt]
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "generate_until"
    mode: str = "understanding"
    sample: int = 0
    is_padding: bool = False
    next_round: Callable[[int, list[str], Any], NextRound] | None = None

    @property
    def key(self) -> str:
        """Returns a text that names this request in the file of finished requests."""
        # It has the text of the prompt, but not its images, so that finished documents need not be loaded.
        settings = sorted((name, repr(value)) for name, value in self.settings.items())
        names = (self.kind, self.mode, self.task, self.split)
        return request_key(*names, self.doc_id, self.sample, self.context, settings)

    @property
    def draws_first(self) -> bool:
        """Returns whether an image is drawn before the answer."""
        return self.kind == "generate_visual_cot" or (self.mode == "visual_cot" and not self.has_rounds)

    @property
    def draws(self) -> bool:
        """Returns whether an image or a video is drawn."""
        return self.draws_first or (self.mode != "understanding" and not self.has_rounds)

    @property
    def has_rounds(self) -> bool:
        """Returns whether the task asks in rounds, whose answers are texts in each mode."""
        return self.kind == "generate_until_multi_round"


class RepetitionCounter:
    """Numbers the requests for one document, which lmms-eval repeats for `--repeats`."""

    def __init__(self) -> None:
        self._seen: Counter[tuple] = Counter()

    def number(self, *document: Any) -> int:
        """Returns how often the document was given before."""
        self._seen[document] += 1
        return self._seen[document] - 1


class RequestRunner:
    """
    Answers requests of lmms-eval.

    Args:
        model ([`PromptModel`]): the model.
        settings ([`AdapterSettings`]): settings of the adapter.
        store ([`OutputStore`], *optional*): keeps outputs. Images and videos need it.
        batch_size (`int`, *optional*, defaults to 1): requests in a batch.
        shows_progress (`bool`, *optional*, defaults to `True`): whether there is a progress bar.

    Raises:
        ValueError: if the mode draws images and there is no store.
    """

    def __init__(
        self,
        model: PromptModel,
        settings: AdapterSettings,
        store: OutputStore | None = None,
        batch_size: int = 1,
        shows_progress: bool = True,
    ) -> None:
        # Before the model answers the first request. Without `mode`, only the requests tell whether images are drawn.
        if store is None and settings.mode not in (None, "understanding"):
            raise ValueError(f"`mode={settings.mode}` needs `output_dir`, the folder of images and videos, got none.")
        self.model = model
        self.settings = settings
        self.store = store
        self.batch_size = batch_size
        self.shows_progress = shows_progress

    def run(self, requests: Sequence[Request]) -> list[str | list[str]]:
        """
        Returns the response to each request, in their order. Finished requests are read from the store.

        Raises:
            ValueError: if a prompt or a setting does not fit the mode of its task.
        """
        self._check_modes(requests)
        outputs: dict[str, Output] = {}
        # By key, because lmms-eval repeats a request to give all processes the same number.
        missing: dict[str, Request] = {}
        for request in requests:
            found = None if self.store is None else self.store.find(request.key)
            if found is not None:
                outputs[request.key] = found
            elif not request.is_padding:
                missing[request.key] = request
        with tqdm(total=len(missing), desc="VILA-U", disable=not self.shows_progress) as progress:
            for batch in self._batches(missing.values()):
                finished = dict(zip([request.key for request in batch], self._run_batch(batch), strict=True))
                if self.store is not None:
                    self.store.add(finished)
                outputs.update(finished)
                progress.update(len(batch))
        return [self._response(request, outputs.get(request.key, Output())) for request in requests]

    def _check_modes(self, requests: Sequence[Request]) -> None:
        """Checks that there is a folder for images and videos, and that each mode uses the settings."""
        drawing = sorted({request.task for request in requests if request.draws})
        if drawing and self.store is None:
            raise ValueError(f"{', '.join(drawing)} need `output_dir`, the folder of images and videos, got none.")
        for mode in {request.mode for request in requests}:
            self.settings.check_image_guidance(mode)

    def _batches(self, requests: Iterable[Request]) -> Iterable[Sequence[Request]]:
        """Yields batches of requests of one kind and mode with the same settings."""
        # One call of `generate` has one length limit and one way of sampling.
        groups: dict[tuple, list[Request]] = {}
        for request in requests:
            settings = TextSettings.from_task(request.settings, self.model.model.generation_config)
            groups.setdefault((request.kind, request.mode, settings.key()), []).append(request)
        for group in groups.values():
            yield from chunks(group, self.batch_size)

    def _run_batch(self, batch: Sequence[Request]) -> list[Output]:
        settings = TextSettings.from_task(batch[0].settings, self.model.model.generation_config)
        if batch[0].has_rounds:
            return [Output(answers) for answers in self._answer_rounds(batch, settings)]
        prompts = [request.make_prompt() for request in batch]
        if batch[0].draws_first:
            return self._draw_then_answer(batch, prompts, settings)
        if not batch[0].draws:
            return [Output(answer) for answer in self.model.answer(prompts, settings, self._seeds(batch))]
        self._check_media(batch, prompts)
        kind: Literal["image", "video"] = "video" if batch[0].mode == "video" else "image"
        return [Output(files=files) for files in self._draw(batch, prompts, kind, self.settings.num_images)]

    def _seeds(self, batch: Sequence[Request]) -> list[int]:
        return [self.settings.seed_of(request.doc_id, request.sample) for request in batch]

    def _check_media(self, batch: Sequence[Request], prompts: Sequence[Prompt]) -> None:
        """Checks that prompts have images where the mode reads them, and only there."""
        for request, prompt in zip(batch, prompts, strict=True):
            has_media = bool(prompt.images or prompt.videos)
            if has_media != (request.mode == "edit"):
                advice = "it is for images without a given one; use mode=edit" if has_media else "use mode=generate"
                raise ValueError(
                    f"document {request.doc_id} of {request.task} has {'an' if has_media else 'no'} image, which does "
                    f"not fit `mode={request.mode}`: {advice}."
                )

    def _draw(
        self, batch: Sequence[Request], prompts: Sequence[Prompt], kind: Literal["image", "video"], count: int
    ) -> list[tuple[str, ...]]:
        """Draws `count` images or videos for each prompt, and returns the names of their files."""
        store = self._drawing_store()
        settings = {name: value for name, value in self.settings.visual.items() if value is not None}
        if kind == "video" and self.settings.num_frames is not None:
            settings["num_frames"] = self.settings.num_frames
        save = store.save_video if kind == "video" else store.save_image
        names: list[tuple[str, ...]] = [()] * len(batch)
        # One image of each prompt at a time, so that the memory depends on the batch size only.
        for number in range(count):
            samples = [request.sample * count + number for request in batch]
            seeds = [
                self.settings.seed_of(request.doc_id, sample) for request, sample in zip(batch, samples, strict=True)
            ]
            drawn = self.model.draw(prompts, kind, seeds, **settings)
            for row, (request, sample) in enumerate(zip(batch, samples, strict=True)):
                names[row] += (save(drawn[row], request.task, request.doc_id, sample),)
        return names

    def _draw_then_answer(
        self, batch: Sequence[Request], prompts: Sequence[Prompt], settings: TextSettings
    ) -> list[Output]:
        """Draws an image for each prompt, and answers its question with the given images and this one."""
        pairs = [split_drawing_prompt(prompt.text, self.settings.drawing_prompt) for prompt in prompts]
        drawing = [_with_images(prompt, prompt.images, text) for prompt, (text, _) in zip(prompts, pairs, strict=True)]
        files = self._draw(batch, drawing, "image", 1)
        folder = self._drawing_store().folder
        asking = [
            _with_images(prompt, [*prompt.images, str(folder / names[0])], question)
            for prompt, names, (_, question) in zip(prompts, files, pairs, strict=True)
        ]
        answers = self.model.answer(asking, settings, self._seeds(batch))
        return [Output(answer, names) for answer, names in zip(answers, files, strict=True)]

    def _answer_rounds(self, batch: Sequence[Request], settings: TextSettings) -> list[list[str]]:
        """
        Answers the prompts of all rounds of each request.

        Raises:
            ValueError: if a task does not end after `MAX_ROUNDS` rounds.
        """
        rounds = [NextRound(request.make_prompt(), []) for request in batch]
        for number in range(1, MAX_ROUNDS + 1):
            rows = [row for row, current in enumerate(rounds) if current.prompt is not None]
            if not rows:
                return [current.outputs for current in rounds]
            prompts = [prompt for current in rounds if (prompt := current.prompt) is not None]
            answers = self.model.answer(prompts, settings, self._seeds([batch[row] for row in rows]))
            for row, answer in zip(rows, answers, strict=True):
                outputs = [*rounds[row].outputs, answer]
                following = batch[row].next_round
                rounds[row] = (
                    NextRound(None, outputs) if following is None else following(number, outputs, rounds[row].info)
                )
        raise ValueError(f"task {batch[0].task!r} asks for more than {MAX_ROUNDS} rounds.")

    def _drawing_store(self) -> OutputStore:
        """Returns the store, which images and videos need."""
        if self.store is None:
            raise ValueError("a task that draws images needs `output_dir` in `--model_args`, got none.")
        return self.store

    def _response(self, request: Request, output: Output) -> str | list[str]:
        """Returns what the task gets: the answer, or the images in the form that it expects."""
        if not output.files or request.draws_first:
            return output.text
        return self._drawing_store().response(output, self.settings.form_of(request.mode))


def _with_images(prompt: Prompt, images: Sequence[Any], text: str) -> Prompt:
    """Returns a prompt of one message: images, the videos of `prompt`, and a text."""
    content: list[dict[str, str]] = [{"type": "image"} for _ in images]
    content += [{"type": "video"} for _ in prompt.videos]
    return Prompt(user_turn([*content, {"type": "text", "text": text}]), list(images), prompt.videos)


__all__ = ["MAX_ROUNDS", "NextRound", "RepetitionCounter", "Request", "RequestRunner"]
