# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Which of several pictures of a prompt is the best: by likelihood, by the model's own answer, by a vision tower."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


class LikelihoodRanker:
    """Scores pictures by the log-likelihood of their codes after the prompt, without guidance."""

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin):
        self.model, self.processor = model, processor

    @torch.no_grad()
    def __call__(self, prompts: list[str], pixels: torch.Tensor, codes: torch.LongTensor) -> torch.Tensor:
        """Scores `(N,)` of `codes` `(N, h, w, D)`, drawn for the N `prompts`."""
        messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
        texts = [self.processor.apply_chat_template(turns, add_generation_prompt=True) for turns in messages]
        inputs = self.processor(text=texts, return_tensors="pt").to(codes.device)
        config, flat = self.model.config, codes.flatten(1, 2)  # (N, L, D)
        start = [*config.start_marker_prefix_ids, config.image_start_token_id]
        added = torch.tensor(start + [config.image_token_id] * flat.shape[1], device=codes.device)
        ids = torch.cat([inputs["input_ids"], added.expand(len(prompts), -1)], 1)
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(added).expand(len(prompts), -1)], 1)
        labels = ids.where(ids == config.image_token_id, -100)
        return self.model.score(ids, labels, mask, codes=flat).log_probs


class AnswerRanker:
    """
    Scores pictures by how likely the model finds an answer about them.

    Args:
        model ([`VilaUForConditionalGeneration`]).
        processor ([`VilaUProcessor`]).
        question, answer (`str`, *optional*): what is asked and what is hoped for; `{prompt}` in them is the prompt.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        question: str = "does this picture show {prompt}?",
        answer: str = "yes",
    ):
        self.model, self.processor, self.question, self.answer = model, processor, question, answer

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
    Scores pictures by their similarity to the prompt in a tower that was trained with texts.

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
