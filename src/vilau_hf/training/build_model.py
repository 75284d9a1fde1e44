"""Builds the model and the processor of a training run from its arguments."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ..loading import load_complete, load_config, load_vision_tower, published_names, source_of
from ..modeling import VILAU_SKIP_MODULES, VilaUConfig, VilaUForConditionalGeneration
from ..processing import VilaUProcessor
from .recipe_language_model import LoraArguments, ModelArguments
from .trainer_base import VilaUTrainingArguments


def load_processor(arguments: ModelArguments) -> VilaUProcessor:
    """
    Loads the processor of a recipe's model.

    Args:
        arguments ([`ModelArguments`]): arguments of the model.

    Raises:
        ValueError: if the arguments name only a published configuration, which has no processor.
    """
    name = arguments.processor_name_or_path or arguments.model_name_or_path or arguments.config_name_or_path
    if name in published_names():
        raise ValueError(f"`config_name_or_path` {name!r} has no processor: give `processor_name_or_path`.")
    return VilaUProcessor.from_pretrained(str(source_of(name)))


def load_model(
    arguments: ModelArguments, lora: LoraArguments, processor: VilaUProcessor
) -> VilaUForConditionalGeneration:
    """
    Loads or builds the model of a recipe, without adapters.

    Args:
        arguments ([`ModelArguments`]): arguments of the model.
        lora ([`LoraArguments`]): arguments of the adapters; they say whether the weights are loaded in 4 bits.
        processor ([`VilaUProcessor`]): processor of the model.

    Raises:
        ValueError: if the vision tower of a new model does not fit its configuration, or if the weights of both losses
            are 0.
    """
    options: dict[str, Any] = {"dtype": arguments.dtype, "attn_implementation": arguments.attn_implementation}
    options = {name: value for name, value in options.items() if value is not None}
    if arguments.model_name_or_path is None:
        model = _build_model(arguments, processor, options)
    else:
        model = _load_trained_model(arguments.model_name_or_path, lora, options)
    set_loss_weights(model.config, arguments)
    return model


def set_loss_weights(config: VilaUConfig, arguments: ModelArguments) -> None:
    """
    Sets the weights of the losses that a recipe gives.

    Args:
        config ([`VilaUConfig`]): configuration of the model, changed in place.
        arguments ([`ModelArguments`]): arguments of the model.

    Raises:
        ValueError: if the weights of both losses are 0.
    """
    for name, weight in arguments.loss_weights().items():
        setattr(config, name, weight)
    if not config.text_loss_weight and not config.visual_loss_weight:
        raise ValueError("`text_loss_weight` and `visual_loss_weight` are both 0: nothing to train.")


def _load_trained_model(name: str, lora: LoraArguments, options: dict[str, Any]) -> VilaUForConditionalGeneration:
    if lora.load_in_4bit:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=VILAU_SKIP_MODULES,
        )
    return VilaUForConditionalGeneration.from_pretrained(source_of(name), **options)


def _build_model(
    arguments: ModelArguments, processor: VilaUProcessor, options: dict[str, Any]
) -> VilaUForConditionalGeneration:
    """
    Builds a new model.

    The vision tower is trained, the language model is trained or random, the projector and the depth transformer are
    random.
    """
    config: Any = load_config(str(source_of(arguments.config_name_or_path)))
    tower = load_vision_tower(str(source_of(arguments.vision_tower_name_or_path)))
    names = ("code_depth", "codebook_size", "grid_size")
    given = {name: getattr(tower.config, name) for name in names}
    needed = {name: getattr(config.vision_config, name) for name in names}
    if given != needed:
        raise ValueError(f"`vision_tower_name_or_path` has {given}, `config_name_or_path` needs {needed}.")
    config.vision_config = tower.config
    dtype = getattr(torch, options.pop("dtype"))
    model = VilaUForConditionalGeneration._from_config(config, dtype=dtype, **options)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    if arguments.language_model_name_or_path is not None:
        language_model = load_complete(AutoModelForCausalLM, arguments.language_model_name_or_path, dtype=dtype)
        language_model.resize_token_embeddings(config.text_config.vocab_size)
        model.load_language_model(language_model)
    model.generation_config.update(
        allow_custom_entries=True, unconditional_prompt_ids=processor.unconditional_prompt_ids()
    )
    return model


def add_adapters(model: VilaUForConditionalGeneration, lora: LoraArguments, args: VilaUTrainingArguments) -> Any:
    """
    Adds adapters to a model, if the recipe has adapters.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model, changed in place.
        lora ([`LoraArguments`]): arguments of the adapters.
        args ([`VilaUTrainingArguments`]): the arguments of training.

    Returns:
        `peft.PeftModel`: the model with adapters, or `model` without them.
    """
    if lora.lora_r is None:
        return model
    from peft import get_peft_model, prepare_model_for_kbit_training

    if lora.load_in_4bit:
        model = prepare_model_for_kbit_training(model, args.activation_checkpointing)
    elif args.activation_checkpointing:
        # The embeddings are frozen. Checkpointed layers have no gradients if none of their inputs needs one.
        model.enable_input_require_grads()
    adapted = get_peft_model(model, lora_config(lora))
    # bfloat16 has 8 bits of precision: it rounds small updates of trained weights away.
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def lora_config(lora: LoraArguments) -> Any:
    """
    Builds the `peft.LoraConfig` of a recipe.

    Args:
        lora ([`LoraArguments`]): arguments of the adapters.

    Returns:
        `peft.LoraConfig`, or `None` for a recipe without adapters.
    """
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


__all__ = ["add_adapters", "load_model", "load_processor", "lora_config", "set_loss_weights"]
