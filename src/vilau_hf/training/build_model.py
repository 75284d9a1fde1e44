"""Builds the model and the processor of a training run from its arguments."""

import torch
from transformers import AutoModelForCausalLM

from ..loading import load_config, load_vision_tower, published_names, source_of
from ..modeling import VILAU_SKIP_MODULES, VilaUForConditionalGeneration
from ..processing import VilaUProcessor
from .recipe import LoraArguments, ModelArguments
from .trainer_vilau import VilaUTrainingArguments


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
        model.load_language_model(language_model)
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
