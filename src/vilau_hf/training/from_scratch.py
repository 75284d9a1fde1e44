"""Parts of a new model with random weights: tokenizer, processor, SigLIP, and the complete model around a tower.

`examples/train_tiny.py` and `examples/emoji/train_emoji.py` train the shipped checkpoints from these parts.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, SiglipConfig, SiglipModel

from ..modeling import VilaUConfig, VilaUForConditionalGeneration, VilaUVisionTowerForPreTraining
from ..processing import VilaUImageProcessor, VilaUProcessor, VilaUVideoProcessor, vilau_chat_template


# Arguments of the processor -> special tokens.
VISUAL_TOKENS = {
    f"{name}_token": f"<{name}>" for name in ("image_start", "image_end", "video_start", "video_end", "image", "video")
}


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int = 2048) -> PreTrainedTokenizerFast:
    """
    Trains a byte-level BPE tokenizer, so that it can encode every text, and adds the special tokens of the model.

    Args:
        texts (`Iterable[str]`): texts with the words of the training data.
        vocab_size (`int`): largest number of tokens, including 256 bytes and 10 special tokens.
        max_length (`int`, *optional*, defaults to 2048): largest number of tokens of a sequence.
    """
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>", *VISUAL_TOKENS.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=VISUAL_TOKENS,
        model_max_length=max_length,
    )


def new_processor(
    tokenizer: PreTrainedTokenizerFast, image_size: int, patch_size: int, num_frames: int
) -> VilaUProcessor:
    """
    Returns a processor for square images, with a chat template without a system prompt.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): a tokenizer of [`train_tokenizer`].
        image_size (`int`): side of images and frames in pixels.
        patch_size (`int`): side of a patch in pixels; the tower makes one visual token of each patch.
        num_frames (`int`): frames of a video.
    """
    size = {"height": image_size, "width": image_size}
    return VilaUProcessor(
        VilaUImageProcessor(size=size),
        tokenizer,
        VilaUVideoProcessor(size=size, num_frames=num_frames),
        chat_template=vilau_chat_template(system_prompt=""),
        num_visual_tokens=(image_size // patch_size) ** 2,
    )


def new_siglip(
    tokenizer: PreTrainedTokenizerFast, vision_config: dict[str, Any], text_config: dict[str, Any]
) -> SiglipModel:
    """
    Returns a SigLIP with random weights, with which training learns words fast.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): tokenizer of the captions.
        vision_config (`dict`): fields of `SiglipVisionConfig`.
        text_config (`dict`): fields of `SiglipTextConfig`; those that depend on the tokenizer are added.
    """
    words = {
        "vocab_size": len(tokenizer),
        "projection_size": vision_config["hidden_size"],
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    siglip = SiglipModel(SiglipConfig(vision_config=vision_config, text_config={**words, **text_config}))
    embeddings = siglip.text_model.embeddings
    # Large word embeddings and a fixed start of scale and bias: with the initialisation of the library, SigLIP learns
    # words slowly.
    with torch.no_grad():
        embeddings.token_embedding.weight.normal_()[tokenizer.pad_token_id] = 0
        embeddings.position_embedding.weight.normal_(std=0.02)
        siglip.logit_scale.fill_(math.log(10))
        siglip.logit_bias.fill_(-4)
    return siglip


def new_model(
    tower: VilaUVisionTowerForPreTraining,
    tokenizer: PreTrainedTokenizerFast,
    text_config: dict[str, Any],
    depth_config: dict[str, Any],
) -> VilaUForConditionalGeneration:
    """
    Returns a model with a trained vision tower, and a language model and depth transformer with random weights.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): a trained tower.
        tokenizer (`PreTrainedTokenizerFast`): a tokenizer of [`train_tokenizer`].
        text_config (`dict`): fields of the configuration of the language model; those that depend on the tokenizer
            are added.
        depth_config (`dict`): fields of [`VilaUDepthConfig`]; those that depend on tower and language model are added.
    """
    vision = tower.config
    code_dim = tower.vision_tower.quantizer.codebook.weight.shape[1]
    fields: dict[str, Any] = {
        "vision_config": {**vision.to_dict(), "text_config": None},
        "depth_config": {
            "backbone_hidden_size": text_config["hidden_size"],
            "code_dim": code_dim,
            "codebook_size": vision.codebook_size,
            "code_depth": vision.code_depth,
            **depth_config,
        },
        "text_config": {
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **text_config,
        },
        "initializer_range": text_config["initializer_range"],
        "tie_word_embeddings": text_config.get("tie_word_embeddings", False),
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in VISUAL_TOKENS.items()},
    }
    model = VilaUForConditionalGeneration(VilaUConfig(**fields))
    model.model.vision_tower.load_state_dict(tower.vision_tower.state_dict())
    # Weights divided by the scale of the code embeddings: so the outputs of the new layers start at unit scale.
    with torch.no_grad():
        scale = model.model.vision_tower.quantizer.codebook.weight.std()
        model.model.multi_modal_projector.linear_1.weight.normal_(std=code_dim**-0.5).div_(scale)
        model.depth_transformer.in_proj_code.weight.normal_(std=code_dim**-0.5).div_(scale)
    return model


def round_weights(module: nn.Module) -> None:
    """
    Rounds all weights and buffers to values that bfloat16 can hold, so that [`save_halved`] loses nothing.

    A tower is rounded before its codes are used: rounding it later would change some of the codes.

    Args:
        module (`nn.Module`): changed in place; its tensors keep their dtype.
    """
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.bfloat16())


def save_halved(model: PreTrainedModel, folder: str | Path) -> None:
    """
    Saves a model whose weights [`round_weights`] has rounded, with half of the bytes of float32.

    The configuration keeps the dtype of the model, so it is loaded as it was.

    Args:
        model (`PreTrainedModel`): the model.
        folder (`str` or `Path`): output folder.

    Raises:
        ValueError: if a weight would change.
    """
    halved = {}
    # Tied weights stay tied, so that `save_pretrained` saves them once.
    of_memory: dict[tuple[int, torch.Size], torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        memory = (tensor.data_ptr(), tensor.shape)
        if memory not in of_memory:
            of_memory[memory] = tensor.bfloat16() if tensor.is_floating_point() else tensor
        halved[name] = of_memory[memory]
        if not torch.equal(halved[name].to(tensor.dtype), tensor):
            raise ValueError(f"`model` has weights that bfloat16 cannot hold, in {name!r}. Call `round_weights`.")
    model.save_pretrained(folder, state_dict=halved)


def release_tower(tower: VilaUVisionTowerForPreTraining, processor: VilaUProcessor, folder: str | Path) -> None:
    """
    Saves a trained vision tower at half the size, with all that zero-shot classification needs.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): a tower with rounded weights.
        processor ([`VilaUProcessor`]): processor with the tokenizer of the captions; its tokenizer is changed.
        folder (`str` or `Path`): output folder.
    """
    save_halved(tower, folder)
    processor.image_processor.save_pretrained(folder)
    tokenizer = processor.tokenizer
    tokenizer.chat_template = None  # the tower reads captions, no chats
    tokenizer.save_pretrained(folder)


def optimizer_settings(steps: int, learning_rate: float = 1e-3) -> dict[str, Any]:
    """
    Returns training arguments for new weights: AdamW with a short warm-up and a cosine decay to 5 % of the rate.

    Args:
        steps (`int`): number of training steps.
        learning_rate (`float`, *optional*, defaults to 1e-3): highest rate. Twice this rate is too high for models of
            this size.
    """
    return {
        "max_steps": steps,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.05},
        "warmup_steps": max(1, steps // 20),
        "adam_beta2": 0.95,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "bf16": True,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.accelerator.is_available(),
    }


__all__ = [
    "VISUAL_TOKENS",
    "new_model",
    "new_processor",
    "new_siglip",
    "optimizer_settings",
    "release_tower",
    "round_weights",
    "save_halved",
    "train_tokenizer",
]
