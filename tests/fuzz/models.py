"""A model of tiny size with the tokenizer of the shipped checkpoint, so that a case takes milliseconds."""

from functools import cache

import torch

import vilau_hf

from ..conftest import DEPTH, TEXT, VISION


GRID = 2
SIDE = 8  # pixels
TOKENS = GRID**2  # of an image
CODES = VISION["codebook_size"]
DEPTHS = VISION["code_depth"]
POSITIONS = 512


@cache
def processor() -> vilau_hf.VilaUProcessor:
    """Returns the processor of the shipped checkpoint for images of `SIDE` pixels."""
    shipped = vilau_hf.VilaUProcessor.from_pretrained(vilau_hf.TINY_CHECKPOINT)
    size = {"height": SIDE, "width": SIDE}
    return vilau_hf.VilaUProcessor(
        vilau_hf.VilaUImageProcessor(size=size),
        shipped.tokenizer,
        vilau_hf.VilaUVideoProcessor(size=size),
        num_visual_tokens=TOKENS,
    )


@cache
def config() -> vilau_hf.VilaUConfig:
    """Returns the configuration of the model."""
    names = [
        f"{kind}_{role}" for kind in ("image", "video") for role in ("token_id", "start_token_id", "end_token_id")
    ]
    vision = {**VISION, "encoder_config": {**VISION["encoder_config"], "image_size": SIDE}}
    text = {**TEXT, "vocab_size": len(processor().tokenizer), "max_position_embeddings": POSITIONS}
    ids = {name: getattr(processor(), name) for name in names}
    return vilau_hf.VilaUConfig(
        vision_config=vision, depth_config=DEPTH, text_config=text, initializer_range=0.2, **ids
    )


@cache
def model() -> vilau_hf.VilaUForConditionalGeneration:
    """Returns the model, with random weights from a fixed seed."""
    torch.manual_seed(0)
    built = vilau_hf.VilaUForConditionalGeneration(config()).eval()
    built.generation_config.unconditional_prompt_ids = processor().unconditional_prompt_ids()
    return built


@cache
def pipeline() -> vilau_hf.VilaUPipeline:
    """Returns the pipeline of the model and the processor."""
    built = vilau_hf.VilaUPipeline(model(), processor())
    built.set_progress_bar_config(disable=True)
    return built
