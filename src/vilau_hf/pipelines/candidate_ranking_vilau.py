# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Which of several pictures of a prompt is the best: by likelihood, by the model's own answer, by a vision tower."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from .prompt_encoding_vilau import encode_prompts


# what models are asked whose generation config names nothing: VQAScore (Lin et al., 2024)
_GENERAL = {"ranking_question": 'Does this figure show "{prompt}"? Please answer yes or no.', "ranking_answer": "Yes"}


class LikelihoodRanker:
    """Scores pictures by the log-likelihood of their codes after what they were drawn for, without guidance."""

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin):
        self.model, self.processor = model, processor

    @torch.no_grad()
    def __call__(
        self, prompts: list[str], pixels: torch.Tensor, codes: torch.LongTensor, images: list[list] | None = None
    ) -> torch.Tensor:
        """Scores `(N,)` of `codes` `(N, h, w, D)`, drawn for the N `prompts` and the `images` before each."""
        inputs = encode_prompts(self.processor, prompts, images).to(codes.device)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        config, flat = self.model.config, codes.flatten(1, 2)  # (N, L, D)
        start = ids.new_tensor([*config.start_marker_prefix_ids, config.image_start_token_id])
        added = torch.cat([start, start.new_full(flat.shape[1:2], config.image_token_id)]).expand(len(ids), -1)
        if "pixel_values" in inputs:
            before = self.model.model.get_visual_codes(ids, inputs["pixel_values"])
        else:
            before = flat.new_full((*ids.shape, flat.shape[-1]), -1)
        visual_codes = torch.cat([before, flat.new_full((len(ids), len(start), flat.shape[-1]), -1), flat], 1)
        ids = torch.cat([ids, added], 1)
        mask = torch.cat([mask, torch.ones_like(added)], 1)
        labels = torch.full_like(ids, -100)
        labels[:, -flat.shape[1] :] = config.image_token_id
        return self.model.score(ids, labels, mask, visual_codes=visual_codes).log_probs


class AnswerRanker:
    """
    Scores pictures by how likely the model finds an answer about them. It is asked about the drawn picture alone, so
    that edits of a picture cannot be ranked by it.

    Args:
        model ([`VilaUForConditionalGeneration`]).
        processor ([`VilaUProcessor`]).
        question, answer (`str`, *optional*): what is asked and what is hoped for, both or none; `{prompt}` in them is
            the prompt. By default those that the checkpoint names, as `ranking_question` and `ranking_answer` of its
            generation config, since a model answers best what it was trained to be asked; or else VQAScore's, "Does
            this figure show "{prompt}"? Please answer yes or no." and "Yes" (Lin et al., 2024).

    Raises:
        ValueError: if one of `question` and `answer` is given alone.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        question: str | None = None,
        answer: str | None = None,
    ):
        if (question is None) != (answer is None):
            raise ValueError(f"`question` and `answer` belong together, got {question!r} and {answer!r}.")
        self.model, self.processor = model, processor
        saved = model.generation_config.to_dict()
        if "ranking_question" not in saved:
            saved = _GENERAL
        self.question = saved["ranking_question"] if question is None else question
        self.answer = saved["ranking_answer"] if answer is None else answer

    @torch.no_grad()
    def __call__(self, prompts: list[str], pixels: torch.Tensor, codes: torch.LongTensor) -> torch.Tensor:
        """Scores `(N,)` of pictures with `codes` `(N, h, w, D)`, drawn for the N `prompts`."""
        conversations = [
            [
                {
                    "role": "user",
                    "content": [{"type": "image"}, {"type": "text", "text": self.question.format(prompt=prompt)}],
                },
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": self.answer.format(prompt=prompt)}],
                },
            ]
            for prompt in prompts
        ]
        pictures = [[image] for image in self.processor.image_processor.postprocess(pixels)]
        batch = self.processor.encode_training_samples(conversations, pictures).to(codes.device)
        score = self.model.score(
            batch["input_ids"], batch["labels"], batch["attention_mask"], codes=codes.flatten(1, 2)
        )
        return score.log_probs


class TowerRanker:
    """
    Scores pictures by their similarity to the prompt in a tower that was trained with texts. The prompt has to say
    what is to be seen, so that edits of a picture cannot be ranked by it.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]).
        tokenizer (`PreTrainedTokenizerBase`): of its text encoder.
    """

    def __init__(self, tower: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.tower, self.tokenizer = tower, tokenizer

    @torch.no_grad()
    def __call__(self, prompts: list[str], pixels: torch.Tensor, codes: torch.LongTensor) -> torch.Tensor:
        """Scores `(N,)` of `pixels` `(N, 3, S, S)` in [-1, 1], drawn for the N `prompts`."""
        length = self.tower.config.text_config.max_position_embeddings
        ids = self.tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        texts = self.tower.get_text_features(ids["input_ids"].to(self.tower.device)).float()
        images = self.tower.get_image_features(pixels.to(self.tower.device)).float()
        return torch.nn.functional.cosine_similarity(images, texts)


__all__ = ["AnswerRanker", "LikelihoodRanker", "TowerRanker"]
