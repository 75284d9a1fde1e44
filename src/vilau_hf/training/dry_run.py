"""Checks of a recipe against its data, without weights and without training."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from ..data.build import build_collator, build_dataset, encoded_folders
from ..data.stream import ResumableStream
from ..loading import load_config, load_vision_tower, source_of
from ..memory import MemoryEstimate, estimate_training_memory
from ..modeling import VilaUConfig, VilaUForConditionalGeneration
from ..modeling.sub_models_vilau import SUB_MODELS, sub_model_of
from .build_model import add_adapters, load_processor, lora_config
from .recipe import Recipe
from .trainer_vilau import freeze_parts


@dataclass
class DryRunReport:
    """
    What a run would be; its string is a table.

    Args:
        parameters (`dict[str, tuple[int, int]]`): trained and all parameters of each part of the model.
        shapes (`list[dict[str, tuple[int, ...]]]`): shapes of the tensors of each batch.
        num_rows (`int`): rows of the batches.
        num_positions (`int`): positions of the batches, padding included.
        num_tokens (`int`): positions that are not padding.
        num_text_targets (`int`): positions whose token is a text target.
        num_visual_targets (`int`): positions whose codes are a target.
        records (`int`, *optional*): rows of the data, where it has an end.
        rows_per_step (`int`): rows of an optimizer step, of all processes.
        memory ([`MemoryEstimate`], *optional*): of one device, for the largest batch. `None` for 4-bit weights.
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
        lines = ["parameters, trained of all"]
        lines += [f"  {part:<18} {trained:>14,} of {total:,}" for part, (trained, total) in self.parameters.items()]
        rows = "a stream without end" if self.records is None else f"{self.records:,} rows"
        lines.append(f"data: {rows}, {self.rows_per_step} rows an optimizer step")
        for index, shapes in enumerate(self.shapes):
            lines.append(f"batch {index + 1}: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))
        share = 100 / max(1, self.num_tokens)
        lines += [
            f"tokens: {self.num_tokens} in {self.num_rows} rows, "
            f"{1 - self.num_tokens / self.num_positions:.1%} of the positions are padding",
            f"targets: {share * self.num_text_targets:.1f} % of the tokens are text targets, "
            f"{share * self.num_visual_targets:.1f} % visual targets",
            "memory: not estimated for 4-bit weights" if self.memory is None else f"memory of a device: {self.memory}",
        ]
        return "\n".join(lines)


def check_recipe(recipe: Recipe, num_batches: int = 2) -> DryRunReport:
    """
    Reads the first batches of a recipe's data and makes them as for training. Of the model the configuration is read,
    and the tower where the data are codes.

    Args:
        recipe ([`Recipe`]): see [`read_recipe`].
        num_batches (`int`, *optional*, defaults to 2).

    Raises:
        ValueError: if the data do not fit, among others if a batch has no target or a row that is longer than the
            positions of the language model; and for an unknown `strategy`.
    """
    args = recipe.training
    processor = load_processor(recipe.model)
    config = load_config(source_of(recipe.model.model_name_or_path or recipe.model.config_name_or_path))
    tower = None
    if encoded_folders(recipe.data):
        name = recipe.model.model_name_or_path or recipe.model.vision_tower_name_or_path
        tower = load_vision_tower(source_of(name))
    dataset = build_dataset(recipe.data, args, processor, tower)
    collator = build_collator(recipe.data, args, processor)
    size = args.per_device_train_batch_size
    batches = [collator(records) for records in islice(_batches(dataset, size), num_batches)]
    counts = defaultdict(int)
    for batch in batches:
        _count(batch, config, counts)
    return DryRunReport(
        parameters=_count_parameters(config, recipe),
        shapes=[
            {name: tuple(each.shape) for name, each in batch.items() if hasattr(each, "shape")} for batch in batches
        ],
        records=None if isinstance(dataset, ResumableStream) else len(dataset),
        rows_per_step=size * args.gradient_accumulation_steps * args.world_size,
        memory=_estimate_memory(recipe, config, batches),
        **counts,
    )


def _batches(dataset, size: int) -> Iterator[list[dict]]:
    rows = iter(dataset) if isinstance(dataset, ResumableStream) else (dataset[row] for row in range(len(dataset)))
    while batch := list(islice(rows, size)):
        yield batch


def _count(batch: dict, config: VilaUConfig, counts: dict[str, int]):
    """Adds what a batch holds."""
    ids, targets = batch["input_ids"], batch["labels"][:, 1:]
    text_targets, visual_targets = _count_targets(batch, config)
    if "attention_mask" in batch:
        tokens, longest = int(batch["attention_mask"].sum()), ids.shape[1]
    else:  # the rest of a row is a sample of padding alone
        tokens, longest = int((ids != config.text_config.pad_token_id).sum()), batch["max_length_q"]
    limit = config.text_config.max_position_embeddings
    if longest > limit:
        raise ValueError(
            f"a sample has {longest} tokens, but `max_position_embeddings` of the language model is {limit}."
        )
    if not targets.ne(-100).any():
        raise ValueError("a batch has no target: `max_length` may cut all answers off.")
    counts["num_rows"] += ids.shape[0]
    counts["num_positions"] += ids.numel()
    counts["num_tokens"] += tokens
    counts["num_text_targets"] += text_targets
    counts["num_visual_targets"] += visual_targets


def _count_targets(batch: dict, config: VilaUConfig) -> tuple[int, int]:
    """Text labels and visual tokens to be predicted in a batch."""
    targets = batch["labels"][:, 1:]
    visual = config.is_visual(targets)
    return int((targets.ne(-100) & ~visual).sum()), int(visual.sum())


def _estimate_memory(recipe: Recipe, config: VilaUConfig, batches: list[dict]) -> MemoryEstimate | None:
    if recipe.lora.load_in_4bit:
        return None
    args = recipe.training
    largest = max(batches, key=lambda batch: batch["input_ids"].numel())
    text_targets, visual_targets = _count_targets(largest, config)
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
        activation_checkpointing=args.activation_checkpointing,
        bf16=args.bf16,
        frozen_parts=tuple(part for part in SUB_MODELS if not getattr(args, f"tune_{part}")),
        lora_config=lora_config(recipe.lora),
    )


def _count_parameters(config: VilaUConfig, recipe: Recipe) -> dict[str, tuple[int, int]]:
    """Trained and all parameters by part; adapters count with the part they are in."""
    with torch.device("meta"):
        model = VilaUForConditionalGeneration(config)
    model = add_adapters(model, recipe.lora, recipe.training)
    freeze_parts(model, recipe.training)
    trained, total = defaultdict(int), defaultdict(int)
    for name, parameter in model.named_parameters():
        total[sub_model_of(name)] += parameter.numel()
        trained[sub_model_of(name)] += parameter.numel() * parameter.requires_grad
    return {part: (trained[part], total[part]) for part in total}


__all__ = ["DryRunReport", "check_recipe"]
