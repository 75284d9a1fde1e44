# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Rankers: they score several images of a prompt, so that a pipeline can return the best one."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from .prompt_encoding_vilau import encode_prompts


# Question and answer for models whose generation config has none: those of VQAScore (Lin et al., 2024).
_VQASCORE = {"ranking_question": 'Does this figure show "{prompt}"? Please answer yes or no.', "ranking_answer": "Yes"}


class LikelihoodRanker:
    """
    Scores images by the log-likelihood of their codes after the prompt, without guidance.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model that generated the images.
        processor ([`VilaUProcessor`]): the processor of the model.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        self.model: Any = model  # has methods of `VilaUForConditionalGeneration`, which this island cannot import
        self.processor = processor

    @torch.no_grad()
    def __call__(
        self, prompts: list[str], pixels: torch.Tensor, codes: torch.LongTensor, images: list[list] | None = None
    ) -> torch.Tensor:
        """
        Scores N images.

        Args:
            prompts (`list[str]`): prompt of each image.
            pixels (`torch.Tensor`): not used.
            codes (`torch.LongTensor` of shape `(N, h, w, D)`): codes of the images.
            images (`list[list[PIL.Image.Image]]`, *optional*): images that precede each prompt.

        Returns:
            Log-likelihoods of shape `(N,)`, float32.
        """
        inputs = encode_prompts(self.processor, prompts, images).to(codes.device)
        ids = inputs["input_ids"]
        mask = inputs["attention_mask"]
        config = self.model.config
        image_codes = codes.flatten(1, 2)  # (N, L, D)
        num_tokens, depth = image_codes.shape[1:]
        start = ids.new_tensor([*config.start_marker_prefix_ids, config.image_start_token_id])
        added = torch.cat([start, start.new_full((num_tokens,), config.image_token_id)]).expand(len(ids), -1)
        if "pixel_values" in inputs:
            prompt_codes = self.model.model.get_visual_codes(ids, inputs["pixel_values"])
        else:
            prompt_codes = image_codes.new_full((*ids.shape, depth), -1)  # -1: no visual token at this position
        start_codes = image_codes.new_full((len(ids), len(start), depth), -1)
        visual_codes = torch.cat([prompt_codes, start_codes, image_codes], 1)  # (N, T, D)
        ids = torch.cat([ids, added], 1)
        mask = torch.cat([mask, torch.ones_like(added)], 1)
        labels = torch.full_like(ids, -100)
        labels[:, -num_tokens:] = config.image_token_id
        return self.model.score(ids, labels, mask, visual_codes=visual_codes).log_probs


class AnswerRanker:
    """
    Scores images by the log-likelihood of the model's answer to a question about them.

    The question is asked about the generated image alone. So this ranker cannot rank edits of an image.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model that generated the images.
        processor ([`VilaUProcessor`]): the processor of the model.
        question (`str`, *optional*): the question, in which `{prompt}` is replaced by the prompt. By default it is
            `ranking_question` of the model's generation config, since a model answers best the questions of its
            training. If there is none, it is the question of VQAScore (Lin et al., 2024): "Does this figure show
            "{prompt}"? Please answer yes or no.".
        answer (`str`, *optional*): the answer whose likelihood is the score, in which `{prompt}` is replaced. By
            default it is `ranking_answer` of the model's generation config, or else "Yes".

    Raises:
        ValueError: if only one of `question` and `answer` is given, or one has other fields than `{prompt}`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        question: str | None = None,
        answer: str | None = None,
    ) -> None:
        if (question is None) != (answer is None):
            raise ValueError(f"`question` and `answer` belong together, got {question!r} and {answer!r}.")
        self.model: Any = model  # of another island, like the processor
        self.processor: Any = processor
        settings = self.model.generation_config.to_dict()
        defaults = settings if "ranking_question" in settings else _VQASCORE
        self.question: str = defaults["ranking_question"] if question is None else question
        self.answer: str = defaults["ranking_answer"] if answer is None else answer
        for name, text in (("question", self.question), ("answer", self.answer)):
            try:
                text.format(prompt="")
            except (LookupError, ValueError, AttributeError) as error:
                raise ValueError(
                    f"`{name}` may have no other fields than {{prompt}}, and other braces twice, got {text!r}."
                ) from error

    @torch.no_grad()
    def __call__(self, prompts: list[str], pixels: torch.Tensor, codes: torch.LongTensor) -> torch.Tensor:
        """
        Scores N images.

        Args:
            prompts (`list[str]`): prompt of each image.
            pixels (`torch.Tensor` of shape `(N, 3, S, S)`): pixels of the images in [-1, 1].
            codes (`torch.LongTensor` of shape `(N, h, w, D)`): codes of the images.

        Returns:
            Log-likelihoods of shape `(N,)`, float32.
        """
        conversations = [self._conversation(prompt) for prompt in prompts]
        # The images only say how many placeholders a sample has. The model reads `codes`, which skip the vision tower.
        images = [[image] for image in self.processor.image_processor.postprocess(pixels)]
        batch = self.processor.encode_training_samples(conversations, images).to(codes.device)
        score = self.model.score(
            batch["input_ids"], batch["labels"], batch["attention_mask"], codes=codes.flatten(1, 2)
        )
        return score.log_probs

    def _conversation(self, prompt: str) -> list[dict[str, Any]]:
        """Returns the chat messages with the question about one image and the answer."""
        question = {"type": "text", "text": self.question.format(prompt=prompt)}
        answer = {"type": "text", "text": self.answer.format(prompt=prompt)}
        return [
            {"role": "user", "content": [{"type": "image"}, question]},
            {"role": "assistant", "content": [answer]},
        ]


class TowerRanker:
    """
    Scores images by their similarity to the prompt in a vision tower that was trained with texts.

    The prompt must describe the image. So this ranker cannot rank edits of an image.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): the vision tower with its text encoder.
        tokenizer (`PreTrainedTokenizerBase`): the tokenizer of the text encoder.
    """

    def __init__(self, tower: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tower: Any = tower  # of another island
        self.tokenizer = tokenizer

    @torch.no_grad()
    def __call__(self, prompts: list[str], pixels: torch.Tensor, codes: torch.LongTensor) -> torch.Tensor:
        """
        Scores N images.

        Args:
            prompts (`list[str]`): prompt of each image.
            pixels (`torch.Tensor` of shape `(N, 3, S, S)`): pixels of the images in [-1, 1].
            codes (`torch.LongTensor`): not used.

        Returns:
            Cosine similarities of shape `(N,)`, float32.
        """
        # As in training: SigLIP reads texts padded to the full length, without an attention mask.
        length = self.tower.config.text_config.max_position_embeddings
        settings = {"padding": "max_length", "max_length": length, "truncation": True, "split_special_tokens": True}
        ids = self.tokenizer(prompts, **settings, return_tensors="pt")
        texts = self.tower.get_text_features(ids["input_ids"].to(self.tower.device)).float()
        images = self.tower.get_image_features(pixels.to(self.tower.device)).float()
        return torch.nn.functional.cosine_similarity(images, texts)


def get_ranker(rank_by: str | Callable, model: PreTrainedModel, processor: ProcessorMixin) -> Callable:
    """
    Returns the ranker that a pipeline's argument `rank_by` names.

    Args:
        rank_by (`str` or `Callable`): `"likelihood"`, `"answer"`, or a function, which is returned unchanged.
        model ([`VilaUForConditionalGeneration`]): the model that generates the images.
        processor ([`VilaUProcessor`]): the processor of the model.

    Raises:
        ValueError: for another name.
    """
    if callable(rank_by):
        return rank_by
    if rank_by == "likelihood":
        return LikelihoodRanker(model, processor)
    if rank_by == "answer":
        return AnswerRanker(model, processor)
    raise ValueError(f"`rank_by` must be 'likelihood', 'answer' or a function, got {rank_by!r}.")


def check_ranks_edits(ranker: Callable) -> None:
    """Raises a `ValueError` if a ranker has no argument `images` for the images that precede a prompt."""
    if "images" not in inspect.signature(ranker).parameters:
        name = getattr(ranker, "__name__", type(ranker).__name__)
        raise ValueError(
            f"`rank_by`: {name} does not take `images`, but `image` is given with `num_candidates` above 1. Rank by "
            "'likelihood' or by a function of prompts, pixels, codes and images."
        )


def check_scores(scores: Any, count: int) -> None:
    """Raises a `ValueError` unless `scores` of a ranker are a tensor of `count` numbers, of which none is NaN."""
    is_tensor = isinstance(scores, torch.Tensor)
    if not is_tensor or scores.shape != (count,):
        given = f"shape {tuple(scores.shape)}" if is_tensor else type(scores).__name__
        raise ValueError(f"`rank_by` must return a tensor of shape ({count},), a score for each image, got {given}.")
    if bool(scores.isnan().any()):
        raise ValueError("`rank_by` must return numbers, got NaN.")


__all__ = ["AnswerRanker", "LikelihoodRanker", "TowerRanker", "check_ranks_edits", "check_scores", "get_ranker"]
