"""
Adapter for lmms-eval: `python -m lmms_eval --model vilau --model_args pretrained=FOLDER,mode=understanding`.

lmms-eval finds it by the entry point `lmms_eval.models`. `VilaUChat` is its default. `--force_simple` selects
`VilaUSimple`, which tasks of the types `multiple_choice`, `loglikelihood` and `generate_visual_cot` need.
"""

from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from .. import TINY_CHECKPOINT
from ..modeling import VilaUForConditionalGeneration
from ..processing import VilaUProcessor
from .lmms_generation import PromptModel, chunks
from .lmms_modes import MODE_KEY, choose_mode
from .lmms_prompts import Prompt, PromptReader
from .lmms_requests import NextRound, RepetitionCounter, Request, RequestRunner
from .lmms_settings import DRAWING_PROMPT, AdapterSettings, positive_batch_size
from .lmms_store import OutputStore


def manifest() -> ModelManifest:
    """Returns the classes that lmms-eval loads for `--model vilau`."""
    return ModelManifest("vilau", simple_class_path=f"{__name__}.VilaUSimple", chat_class_path=f"{__name__}.VilaUChat")


class VilaULmms(lmms):
    """
    VILA-U as a model of lmms-eval. Each launched process has a copy of the model and a share of the documents.

    Args:
        pretrained (`str`, *optional*): folder or Hub id of the model (default: the shipped checkpoint).
        mode (`str`, *optional*): as for [`AdapterSettings`], like the arguments from `dtype` to `drawing_prompt`. By
            default each task has the mode that its definition names.
        output_dir (`str`, *optional*): folder of images, videos and finished requests. Tasks that draw need it. The
            same command with the same folder continues an interrupted run.
        device (`str`, *optional*): device of the model, for one process. By default the one that accelerate chooses.
        batch_size (`int`, *optional*, defaults to 1): documents in a batch. Results do not depend on it.
        dtype (`str`, *optional*, defaults to `"auto"`): dtype of the weights.
        seed (`int`, *optional*, defaults to 0): seed of the first document.
        num_frames (`int`, *optional*): frames of videos.
        num_images (`int`, *optional*, defaults to 1): images or videos of each document.
        output_form (`str`, *optional*): what a task gets for images and videos.
        drawing_prompt (`str`, *optional*): prompt of the image of `mode=visual_cot`.
        max_batch_size (`None`): not supported; lmms-eval gives it.
        visual: arguments of `generate`, such as `guidance_scale` and `visual_top_p`.

    Raises:
        ValueError: if an argument is unknown or out of range, or if `output_dir` has outputs of other settings.
    """

    def __init__(
        self,
        pretrained: str = TINY_CHECKPOINT,
        mode: str | None = None,
        output_dir: str | None = None,
        device: str | None = None,
        batch_size: int | str = 1,
        dtype: str = "auto",
        seed: int = 0,
        num_frames: int | None = None,
        num_images: int = 1,
        output_form: str | None = None,
        drawing_prompt: str = DRAWING_PROMPT,
        max_batch_size: None = None,
        **visual: Any,
    ) -> None:
        super().__init__()
        # lmms-eval parses `--model_args`, so a name of digits comes as a number.
        settings = AdapterSettings(
            str(pretrained), mode, dtype, seed, num_frames, num_images, output_form, drawing_prompt, visual
        )
        if max_batch_size is not None:
            raise ValueError(f"`--max_batch_size` is for automatic batch sizes, got {max_batch_size!r}: leave it out.")
        size = positive_batch_size(batch_size)
        # Without an accelerator, accelerate has to be told to communicate on the CPU.
        self.accelerator = Accelerator(cpu=not torch.accelerator.is_available())
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        is_alone = self._world_size == 1
        self._device = torch.device(device) if is_alone and device is not None else self.accelerator.device
        store = None if output_dir is None else OutputStore(Path(str(output_dir)), self._rank)
        if store is not None:
            if self.accelerator.is_main_process:
                store.begin(settings.to_dict())
            self.accelerator.wait_for_everyone()
            store.read()
        model = VilaUForConditionalGeneration.from_pretrained(settings.pretrained, dtype=dtype)
        processor = VilaUProcessor.from_pretrained(settings.pretrained)
        self.prompt_model = PromptModel(model.to(self._device).eval(), processor)
        frames = settings.num_frames or processor.video_processor.num_frames
        self.reader = PromptReader(processor, frames)
        self.runner = RequestRunner(self.prompt_model, settings, store, size, shows_progress=self._rank == 0)

    @property
    def device(self) -> torch.device:
        """Returns the device of the model, on which lmms-eval gathers counts."""
        return self._device

    @property
    def batch_size(self) -> int:
        """Returns the number of documents in a batch."""
        return self.runner.batch_size

    def generate_until(self, requests: list[Instance]) -> list[Any]:
        """Returns a text for each request, or its images or videos in the form that tasks expect."""
        return self._run(requests)

    def generate_until_multi_round(self, requests: list[Instance]) -> list[Any]:
        """Returns the answers of all rounds of each request."""
        return self._run(requests)

    def clean(self) -> None:
        """Frees the memory of the model, since a metric may load another one."""
        # The base class deletes modules that are attributes. The model is one of these objects.
        del self.prompt_model.model
        super().clean()

    def _run(self, requests: list[Instance]) -> list[Any]:
        counter = RepetitionCounter()
        return self.runner.run([self._request(instance, counter) for instance in requests])

    def _request(self, instance: Instance, counter: RepetitionCounter) -> Request:
        """Returns the request of an instance, whose last arguments are document, task and split."""
        context = instance.args[0]
        doc_id, task, split = instance.args[-3:]
        is_padding = bool((instance.metadata or {}).get("__padding_only__"))
        kind = instance.request_type
        return Request(
            task=task,
            split=split,
            doc_id=doc_id,
            context=str(context),
            make_prompt=partial(self._prompt, instance),
            settings=self._settings(instance),
            kind=kind,
            mode=self._mode(instance),
            sample=0 if is_padding else counter.number(task, split, doc_id, instance.idx, str(context)),
            is_padding=is_padding,
            next_round=partial(self._next_round, instance) if kind == "generate_until_multi_round" else None,
        )

    def _mode(self, instance: Instance) -> str:
        """Returns the mode of an instance's task."""
        return choose_mode(instance.args[-2], (instance.metadata or {}).get(MODE_KEY), self.runner.settings.mode)

    def _document(self, instance: Instance) -> Any:
        doc_id, task, split = instance.args[-3:]
        return self.task_dict[task][split][doc_id]

    @abstractmethod
    def _settings(self, instance: Instance) -> dict[str, Any]:
        """Returns the generation settings of the task."""

    @abstractmethod
    def _prompt(self, instance: Instance) -> Prompt:
        """Returns the prompt of the first round."""

    @abstractmethod
    def _next_round(self, instance: Instance, number: int, outputs: list[str], info: Any) -> NextRound:
        """Returns the prompt of a later round."""


class VilaUChat(VilaULmms):
    """VILA-U for tasks that make messages, as [`VilaULmms`]."""

    is_simple = False

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Raises an error, since lmms-eval gives chat models no such requests."""
        raise NotImplementedError("run lmms-eval with `--force_simple` for log-likelihoods.")

    def _settings(self, instance: Instance) -> dict[str, Any]:
        return dict(instance.args[2] or {})

    def _prompt(self, instance: Instance) -> Prompt:
        return self.reader.from_messages(instance.args[1](self._document(instance)))

    def _next_round(self, instance: Instance, number: int, outputs: list[str], info: Any) -> NextRound:
        given = instance.args[1](
            self._document(instance), round_idx=number, previous_output=list(outputs), previous_round_info=info
        )
        if not isinstance(given, tuple):
            raise ValueError(f"task {instance.args[-2]!r} makes no rounds for chat models. Use `--force_simple`.")
        messages, is_last, changed, info = given
        outputs = outputs if changed is None else list(changed)
        return NextRound(None if is_last else self.reader.from_messages(messages), outputs, info)


class VilaUSimple(VilaULmms):
    """VILA-U for tasks that make a text and media, as [`VilaULmms`]."""

    is_simple = True

    def generate_visual_cot(self, requests: list[Instance]) -> list[Any]:
        """Draws an image for each request, and answers its question with it."""
        return self._run(requests)

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """
        Scores given answers.

        Args:
            requests (`list[Instance]`): requests with the answer, or a function that returns it.

        Returns:
            Results whose `text` is a tuple: a number, and whether greedy decoding gives the answer. For a choice,
            whose answer is a text, the number is the negative log-probability.

        Raises:
            ValueError: if a task needs another mode than the one that is given.
        """
        for instance in requests:
            self._mode(instance)
        results = []
        for batch in chunks(requests, self.batch_size):
            answers = [self._given_answer(instance) for instance in batch]
            scores = self.prompt_model.score([self._prompt(instance) for instance in batch], answers)
            # lmms-eval chooses the answer with the least number (`ConfigurableTask.process_results`: `np.argmin`, read
            # in 0.7.3), since its models return losses. For the type `loglikelihood` it takes a log-probability:
            # its perplexity is `exp(-mean)`.
            # It turns a tuple into a string, but leaves a tuple in a `GenerationResult` as it is
            # (`unwrap_generation_output`, read in 0.7.3).
            results += [
                GenerationResult((-value if isinstance(instance.args[1], str) else value, is_greedy))
                for instance, (value, is_greedy) in zip(batch, scores, strict=True)
            ]
        return results

    def _given_answer(self, instance: Instance) -> str:
        answer = instance.args[1]
        return answer if isinstance(answer, str) else str(answer(self._document(instance)))

    def _settings(self, instance: Instance) -> dict[str, Any]:
        return dict(instance.args[1] or {})

    def _prompt(self, instance: Instance) -> Prompt:
        to_visual = instance.args[2]
        visuals = None if to_visual is None else to_visual(self._document(instance))
        return self.reader.from_visuals(instance.args[0], visuals)

    def _next_round(self, instance: Instance, number: int, outputs: list[str], info: Any) -> NextRound:
        to_text = instance.args[3]
        visuals, text, is_last, changed, info = to_text(
            self._document(instance), previous_output=list(outputs), round_idx=number, previous_round_info=info
        )
        outputs = outputs if changed is None else list(changed)
        return NextRound(None if is_last else self.reader.from_visuals(text, visuals), outputs, info)


__all__ = ["VilaUChat", "VilaULmms", "VilaUSimple", "manifest"]
