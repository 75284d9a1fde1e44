"""Dry run of the stage `language_model`: checks a recipe against its data, without weights and without training."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from ..data.build import build_collator, build_dataset, encoded_folders
from ..data.stream import ResumableStream
from ..loading import load_config, load_vision_tower, source_of
from ..memory import MemoryEstimate, estimate_training_memory
from ..modeling import VilaUConfig, VilaUForConditionalGeneration
from ..modeling.sub_models_vilau import SUB_MODELS, sub_model_of
from .build_model import add_adapters, load_processor, lora_config, set_loss_weights
from .dry_run_report import batch_lines, count_parameters, parameter_lines, read_batches
from .recipe_language_model import LanguageModelRecipe
from .trainer_base import freeze_sub_models


@dataclass
class LanguageModelDryRunReport:
    """
    Result of a dry run of the stage `language_model`. Its string is a table.

    Args:
        parameters (`dict[str, tuple[int, int]]`): number of trained and of all parameters of each sub-model.
        shapes (`list[dict[str, tuple[int, ...]]]`): shapes of the tensors of each batch.
        num_rows (`int`): number of rows in the batches.
        num_positions (`int`): number of positions in the batches, with padding.
        num_tokens (`int`): number of positions without padding.
        num_text_targets (`int`): number of positions that are a text target.
        num_visual_targets (`int`): number of positions whose codes are a target.
        records (`int`, *optional*): number of rows in the data. `None` for a stream without end.
        rows_per_step (`int`): number of rows in an optimizer step, over all processes.
        memory ([`MemoryEstimate`], *optional*): memory of one device for the largest batch. `None` for 4-bit weights.
    """

    parameters: dict[str, tuple[int, int]]
    shapes: list[dict[str, tuple[int, ...]]]
    num_rows: int
    num_positions: int
    num_tokens: int
    num_text_targets: int
    num_visual_targets: int
    records: int | None
    rows_per_step: int
    memory: MemoryEstimate | None

    def __str__(self) -> str:
        lines = parameter_lines(self.parameters)
        rows = "a stream without end" if self.records is None else f"{self.records:,} rows"
        lines.append(f"data: {rows}, {self.rows_per_step} rows an optimizer step")
        lines += batch_lines(self.shapes)
        share = 100 / max(1, self.num_tokens)
        lines += [
            f"tokens: {self.num_tokens} in {self.num_rows} rows, "
            f"{1 - self.num_tokens / self.num_positions:.1%} of the positions are padding",
            f"targets: {share * self.num_text_targets:.1f} % of the tokens are text targets, "
            f"{share * self.num_visual_targets:.1f} % visual targets",
            "memory: not estimated for 4-bit weights" if self.memory is None else f"memory of a device: {self.memory}",
        ]
        return "\n".join(lines)


def check_language_model(recipe: LanguageModelRecipe, num_batches: int) -> LanguageModelDryRunReport:
    """
    Reads the first batches of a recipe's data and collates them as for training.

    Only the configuration of the model is read. If the data are codes, the vision tower is loaded, too.

    Args:
        recipe ([`LanguageModelRecipe`]): see [`read_recipe`].
        num_batches (`int`): number of batches.

    Returns:
        [`LanguageModelDryRunReport`]

    Raises:
        ValueError: if the data do not fit the model, or all labels of a batch are -100. Also if a row is longer than
            the language model's `max_position_embeddings`, if the weights of both losses are 0, and for an unknown
            `strategy`.
    """
    args = recipe.training
    processor = load_processor(recipe.model)
    config = load_config(str(source_of(recipe.model.model_name_or_path or recipe.model.config_name_or_path)))
    set_loss_weights(config, recipe.model)  # checks them
    tower = None
    if encoded_folders(recipe.data):
        name = recipe.model.model_name_or_path or recipe.model.vision_tower_name_or_path
        tower = load_vision_tower(str(source_of(name)))
    dataset = build_dataset(recipe.data, args, processor, tower)
    collator = build_collator(recipe.data, args, processor)
    size = args.per_device_train_batch_size
    batches = [collator(records) for records in islice(read_batches(dataset, size), num_batches)]
    counts: dict[str, int] = defaultdict(int)
    for batch in batches:
        _count(batch, config, processor.tokenizer.pad_token_id, counts)
    return LanguageModelDryRunReport(
        parameters=_count_parameters(config, recipe),
        shapes=[
            {name: tuple(each.shape) for name, each in batch.items() if hasattr(each, "shape")} for batch in batches
        ],
        # torch's `Dataset` declares no length, but every dataset that is not a stream has one
        records=None if isinstance(dataset, ResumableStream) else len(dataset),  # type: ignore[arg-type]
        rows_per_step=size * args.gradient_accumulation_steps * args.world_size,
        memory=_estimate_memory(recipe, config, batches),
        **counts,
    )


def _count(batch: dict, config: VilaUConfig, pad_token_id: int, counts: dict[str, int]) -> None:
    """Adds the numbers of rows, positions, tokens and targets of a batch to `counts`."""
    text_config: Any = config.text_config
    ids = batch["input_ids"]
    targets = batch["labels"][:, 1:]
    text_targets, visual_targets = _count_targets(batch, config)
    longest = ids.shape[1] if "attention_mask" in batch else batch["max_length_q"]
    limit = text_config.max_position_embeddings
    if longest > limit:
        raise ValueError(
            f"a sample has {longest} tokens, but `max_position_embeddings` of the language model is {limit}."
        )
    if not targets.ne(-100).any():
        raise ValueError("all labels of a batch are -100: `max_length` may cut off the answers, raise it.")
    counts["num_rows"] += ids.shape[0]
    counts["num_positions"] += ids.numel()
    counts["num_tokens"] += count_tokens(batch, pad_token_id)
    counts["num_text_targets"] += text_targets
    counts["num_visual_targets"] += visual_targets


def count_tokens(batch: dict, pad_token_id: int) -> int:
    """Counts the positions of a batch without padding."""
    if "attention_mask" in batch:
        return int(batch["attention_mask"].sum())
    tokens = 0
    # Rows of several samples have no mask: their padding is a sample at the end of the row. The tokens are not counted
    # by their ids, because some tokenizers pad with the token that also ends each sample.
    for ids, positions in zip(batch["input_ids"], batch["position_ids"], strict=True):
        begin = int((positions == 0).nonzero().max())
        tokens += begin if (ids[begin:] == pad_token_id).all() else len(ids)
    return tokens


def _count_targets(batch: dict, config: VilaUConfig) -> tuple[int, int]:
    """Counts the text labels and the visual tokens that a batch predicts."""
    targets = batch["labels"][:, 1:]
    visual = config.is_visual(targets)
    return int((targets.ne(-100) & ~visual).sum()), int(visual.sum())


def _estimate_memory(recipe: LanguageModelRecipe, config: VilaUConfig, batches: list[dict]) -> MemoryEstimate | None:
    if recipe.lora.load_in_4bit:
        return None
    args = recipe.training
    largest = max(batches, key=lambda batch: batch["input_ids"].numel())
    text_targets, visual_targets = _count_targets(largest, config)
    # Flash attention reads the boundaries of samples. Other kinds need a mask over all pairs of positions.
    has_mask = "flash" not in (recipe.model.attn_implementation or "")
    return estimate_training_memory(
        config,
        gpus=recipe.run.gpus,
        strategy=recipe.run.strategy,
        rows=largest["input_ids"].shape[0],
        length=largest["input_ids"].shape[1],
        text_targets=text_targets,
        visual_targets=visual_targets,
        packed="cu_seq_lens_q" in largest and has_mask,
        activation_checkpointing=bool(args.activation_checkpointing),
        bf16=args.bf16,
        frozen_parts=tuple(sub_model for sub_model in SUB_MODELS if not getattr(args, f"tune_{sub_model}")),
        lora_config=lora_config(recipe.lora),
    )


def _count_parameters(config: VilaUConfig, recipe: LanguageModelRecipe) -> dict[str, tuple[int, int]]:
    """Counts the trained and all parameters of each sub-model. Adapters belong to the sub-model that they change."""
    with torch.device("meta"):
        model = VilaUForConditionalGeneration(config)
    model = add_adapters(model, recipe.lora, recipe.training)
    freeze_sub_models(model, recipe.training)
    return count_parameters(model, lambda name: sub_model_of(name) or "other")


__all__ = ["LanguageModelDryRunReport", "check_language_model"]
