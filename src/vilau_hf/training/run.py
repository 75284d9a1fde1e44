"""One run of stage 2 or of supervised fine-tuning, as a recipe describes it."""

from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, set_seed

from ..loading import load_config, load_vision_tower, published_names, source_of
from ..modeling import VILAU_SKIP_MODULES, VilaUForConditionalGeneration
from ..processing import VilaUProcessor
from .checkpointing import checkpoint_to_resume
from .code_cache import check_tower, load_encoded
from .code_shards import INDEX
from .data import VilaUDataCollator
from .media import MediaLoader, ReadableRows
from .mixture import Mixture, add_lengths
from .packing import PackedDataset, RecordPacker
from .recipe import DataArguments, LoraArguments, ModelArguments, Recipe
from .stream import RecordStream
from .trainer_vilau import VilaUTrainer, VilaUTrainingArguments


NUM_DRAWN_SHAPES = 200_000


def run_training(recipe: Recipe) -> VilaUTrainer:
    """
    Trains a model and saves it with its processor in `output_dir`; of a model with adapters these alone are saved.

    Args:
        recipe ([`Recipe`]): see [`read_recipe`].

    Returns:
        The trainer, after training.

    Raises:
        ValueError: for data or a model that do not fit the recipe.
    """
    args = recipe.training
    set_seed(args.seed)
    processor = load_processor(recipe.model)
    model = load_model(recipe.model, recipe.lora, processor)
    train_dataset = build_dataset(recipe.data, args, processor, model)
    trainer = VilaUTrainer(
        model=add_adapters(model, recipe.lora, args),
        args=args,
        train_dataset=train_dataset,
        eval_dataset=build_eval_dataset(recipe.data, processor, model),
        data_collator=build_collator(recipe.data, args, processor),
        processing_class=processor,  # saved with every checkpoint
    )
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(args.resume_from_checkpoint))
    trainer.save_model()
    return trainer


def load_processor(arguments: ModelArguments) -> VilaUProcessor:
    """The processor of a recipe's model."""
    name = arguments.processor_name_or_path or arguments.model_name_or_path or arguments.config_name_or_path
    if name in published_names():
        raise ValueError(f"`config_name_or_path` {name!r} has no processor: give `processor_name_or_path`.")
    return VilaUProcessor.from_pretrained(source_of(name))


def load_model(arguments: ModelArguments, lora: LoraArguments, processor) -> VilaUForConditionalGeneration:
    """The model of a recipe, without adapters."""
    options = {"dtype": arguments.dtype, "attn_implementation": arguments.attn_implementation}
    options = {name: value for name, value in options.items() if value is not None}
    if arguments.model_name_or_path is None:
        return _model_of_parts(arguments, processor, options)
    if lora.load_in_4bit:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=VILAU_SKIP_MODULES,
        )
    return VilaUForConditionalGeneration.from_pretrained(source_of(arguments.model_name_or_path), **options)


def _model_of_parts(arguments: ModelArguments, processor, options: dict) -> VilaUForConditionalGeneration:
    """A new model: trained tower, trained or random language model, random projector and depth transformer."""
    config = load_config(source_of(arguments.config_name_or_path))
    tower = load_vision_tower(source_of(arguments.vision_tower_name_or_path))
    given, needed = (
        {name: getattr(each, name) for name in ("code_depth", "codebook_size", "grid_size")}
        for each in (tower.config, config.vision_config)
    )
    if given != needed:
        raise ValueError(f"`vision_tower_name_or_path` has {given}, `config_name_or_path` needs {needed}.")
    config.vision_config = tower.config
    dtype = getattr(torch, options.pop("dtype"))
    model = VilaUForConditionalGeneration._from_config(config, dtype=dtype, **options)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    if arguments.language_model_name_or_path is not None:
        language_model = AutoModelForCausalLM.from_pretrained(arguments.language_model_name_or_path, dtype=dtype)
        language_model.resize_token_embeddings(config.text_config.vocab_size)
        model.model.language_model.load_state_dict(language_model.model.state_dict())
        model.lm_head.load_state_dict(language_model.lm_head.state_dict())
    model.generation_config.update(
        allow_custom_entries=True, unconditional_prompt_ids=processor.unconditional_prompt_ids()
    )
    return model


def add_adapters(model, lora: LoraArguments, args: VilaUTrainingArguments):
    """The model with adapters, if the recipe has any. All that is trained is float32: bfloat16 rounds updates away."""
    if lora.lora_r is None:
        return model
    from peft import get_peft_model, prepare_model_for_kbit_training

    if lora.load_in_4bit:
        model = prepare_model_for_kbit_training(model, args.activation_checkpointing)
    elif args.activation_checkpointing:
        model.enable_input_require_grads()
    model = get_peft_model(model, lora_config(lora))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def lora_config(lora: LoraArguments):
    """The `peft.LoraConfig` of a recipe, or `None`."""
    if lora.lora_r is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.lora_r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=lora.lora_target_modules,
        modules_to_save=lora.lora_trained_modules,
    )


def encoded_folders(data: DataArguments) -> list[str]:
    """Folders of codes that a recipe trains on."""
    if _is_mixture(data.dataset):
        return Mixture.from_yaml(data.dataset).encoded_folders
    return [data.dataset] if _is_encoded(data.dataset) else []


def _is_mixture(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _is_encoded(name: str) -> bool:
    return (Path(name) / INDEX).is_file()


def build_dataset(data: DataArguments, args: VilaUTrainingArguments, processor, model):
    """
    The training data of a recipe.

    Args:
        data ([`DataArguments`])
        args ([`VilaUTrainingArguments`])
        processor ([`VilaUProcessor`])
        model ([`VilaUForConditionalGeneration`] or [`VilaUVisionTower`]): whose tower stored codes must be of.

    Raises:
        ValueError: for a mixture without `max_steps`, codes of another tower, or a `train_sampling_strategy` that
            asks for the lengths of a mixture or of packed rows.
    """
    strategy = str(args.train_sampling_strategy)
    if strategy in ("group_by_length", "batch_rebalance") and (
        _is_mixture(data.dataset) or data.row_format == "packed"
    ):
        raise ValueError(
            "`train_sampling_strategy` must be 'random' or 'sequential' for a mixture, whose lengths are not known "
            f"before, and for packed rows, which are all of one length, got {strategy!r}."
        )
    packer = None
    if data.row_format == "packed":
        packer = RecordPacker(processor, data.max_length, data.on_too_long)
    if _is_mixture(data.dataset):
        if args.max_steps <= 0:
            raise ValueError(f"a mixture has no end: give `max_steps`, got {args.max_steps}.")
        media = MediaLoader(processor, data.on_bad_media)
        mixture = Mixture.from_yaml(data.dataset)
        check_tower(mixture.encoded_folders, model, processor)
        return RecordStream(mixture, media, packer, data.shuffle_block, args.seed)
    dataset = _records(data.dataset, data.train_split, data.num_train_samples, data, processor, model, args)
    if packer is not None:
        dataset = PackedDataset(dataset.shuffle(seed=args.seed), packer)
    return ReadableRows(dataset) if data.on_bad_media == "skip" else dataset


def build_eval_dataset(data: DataArguments, processor, model):
    """The records that a recipe evaluates on, or `None`."""
    if data.eval_dataset is None:
        return None
    if _is_mixture(data.eval_dataset):
        raise ValueError(f"`eval_dataset` must not be a mixture, got {data.eval_dataset!r}: write its records first.")
    dataset = _records(data.eval_dataset, data.eval_split, data.num_eval_samples, data, processor, model)
    return ReadableRows(dataset) if data.on_bad_media == "skip" else dataset


def _records(name: str, split: str, count: int | None, data: DataArguments, processor, model, args=None):
    """Records with random access; media are opened as they are read."""
    if name == "drawn_shapes":
        # Here and not at the top: only this name needs the toy world, which stands above training.
        from ..drawn import drawn_shapes

        side = processor.image_processor.size["height"]
        frames = processor.video_processor.num_frames
        seed = 0 if args is None else args.seed
        return drawn_shapes(split, count or NUM_DRAWN_SHAPES, side, frames, seed=seed)
    if _is_encoded(name):
        dataset = load_encoded(name, model, processor)
    else:
        dataset = load_dataset(name, split=split)
    if count is not None:
        dataset = dataset.select(range(min(count, len(dataset))))
    if args is not None and args.train_sampling_strategy == "group_by_length":
        dataset = add_lengths(dataset, processor, args.length_column_name)
    return dataset.with_transform(MediaLoader(processor, data.on_bad_media))


def build_collator(data: DataArguments, args: VilaUTrainingArguments, processor) -> VilaUDataCollator:
    """The collator of a recipe. Packed rows are never cut, their records fit."""
    return VilaUDataCollator(
        processor,
        data.unconditional_probability,
        args.seed,
        max_length=None if data.row_format == "packed" else data.max_length,
        padding_free=data.row_format == "padding_free",
        pad_to_multiple_of=data.pad_to_multiple_of,
    )


__all__ = ["run_training"]
