"""Estimates the memory of training and generation by running the model on tensors without data."""

import contextlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from transformers import AttentionInterface, Cache, DynamicCache, DynamicLayer

from ..choices import STRATEGIES
from ..compat import enable_activation_checkpointing
from ..modeling import VilaUConfig, VilaUDepthTransformer, VilaUForConditionalGeneration
from ..modeling.argument_checks_vilau import PositiveInt, check_value
from ..modeling.generation_branches_vilau import VilaUSpanCache
from ..modeling.generation_depth_vilau import CodeInputs, DepthDecoder
from ..modeling.generation_sampling_vilau import CodeSampler, Guidance, SamplingSettings
from ..modeling.generation_settings_vilau import VISUAL_GENERATION_DEFAULTS
from ..modeling.sub_models_vilau import SUB_MODELS, sub_model_of
from .lines import MemoryEstimate, MemoryLine, weight_lines
from .live_memory import LiveMemory, model_on_meta, size_of


if TYPE_CHECKING:
    from peft import PeftConfig

# defaults of DeepSpeed, numbers of elements
REDUCE_BUCKET_SIZE = 5 * 10**8
STAGE3_MAX_LIVE_PARAMETERS = 10**9
# Positions of a batch at most. With more, the bytes of a tensor overflow 64 bits.
MOST_POSITIONS = 10**12


def estimate_training_memory(
    config: VilaUConfig,
    gpus: int = 1,
    strategy: str = "ddp",
    rows: int = 1,
    length: int = 8192,
    text_targets: int = 0,
    visual_targets: int | None = None,
    packed: bool = False,
    activation_checkpointing: bool = True,
    bf16: bool = True,
    frozen_parts: tuple[str, ...] = (),
    lora_config: "PeftConfig | None" = None,
) -> MemoryEstimate:
    """
    Estimates the memory of one device while [`~training.VilaUTrainer`] trains with AdamW.

    Gradients of an earlier micro-batch are assumed to exist. Not counted are the context of the driver, workspaces of
    its libraries and fragmentation.

    The strategies are configured as in `examples/accelerate`. Weights are float32 and computed with autocast; frozen
    weights of a LoRA run are bfloat16. FSDP2 shards all weights except the vision tower's, and its units are the
    layers of language model and depth transformer. ZeRO-2 shards gradients and averages, ZeRO-3 also shards weights
    (Rajbhandari et al., 2020, section 3). ZeRO has the default sizes of DeepSpeed.

    Args:
        config ([`VilaUConfig`]): configuration of the model.
        gpus (`int`, *optional*, defaults to 1): number of devices.
        strategy (`str`, *optional*, defaults to `"ddp"`): `"ddp"`, `"fsdp"`, `"zero2"` or `"zero3"`.
        rows (`int`, *optional*, defaults to 1): rows in the micro-batch of a device.
        length (`int`, *optional*, defaults to 8192): positions in a row.
        text_targets (`int`, *optional*, defaults to 0): positions of the micro-batch with a text label.
        visual_targets (`int`, *optional*): visual tokens to predict (default: all other positions).
        packed (`bool`, *optional*, defaults to `False`): whether a row contains several samples. Sdpa attention then
            needs a mask over all pairs of positions. Flash attention needs none.
        activation_checkpointing (`bool`, *optional*, defaults to `True`): whether the backward pass computes layers
            again instead of keeping their activations.
        bf16 (`bool`, *optional*, defaults to `True`): whether to use mixed precision; otherwise all is float32.
        frozen_parts (`tuple[str]`, *optional*): sub-models that are not trained: "projector", "language_model" or
            "depth_transformer".
        lora_config (`peft.LoraConfig`, *optional*): adapters, and modules that are trained in full beside them.

    Raises:
        ValueError: if a strategy or sub-model is unknown, or a count is out of range.
    """
    if visual_targets is None:
        visual_targets = rows * length - text_targets
    _check_training(gpus, strategy, rows, length, text_targets, visual_targets, frozen_parts)
    model = model_on_meta(config, torch.bfloat16 if bf16 and lora_config is not None else torch.float32).train()
    for sub_model in frozen_parts:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and not name.startswith(SUB_MODELS[sub_model]))
    if lora_config is not None:
        from peft import get_peft_model

        get_peft_model(model, lora_config, low_cpu_mem_usage=True)  # replaces layers inside `model`
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    held = _training_states(model, gpus, strategy, bf16)
    if strategy == "fsdp" and bf16:
        model.to(torch.bfloat16)  # FSDP2 gathers the weights of a layer in bfloat16
    if activation_checkpointing:
        enable_activation_checkpointing(model)
    if not packed:
        # transformers builds no mask for an attention that has no mask function of the same name. With a mask, "sdpa"
        # would count a tensor that a run with causal attention does not need.
        AttentionInterface.register("sdpa_without_mask", AttentionInterface()["sdpa"])
        model.config.text_config._attn_implementation = "sdpa_without_mask"
    phases = _training_phases(model, rows, length, text_targets, visual_targets, bf16)
    title = (
        f"training on {gpus} x {strategy}, {rows} x {length} positions, "
        f"{text_targets} text labels, {visual_targets} visual targets"
    )
    return MemoryEstimate(title, held, phases)


def _check_training(
    gpus: int,
    strategy: str,
    rows: int,
    length: int,
    text_targets: int,
    visual_targets: int,
    frozen_parts: tuple[str, ...],
) -> None:
    if strategy not in STRATEGIES:
        raise ValueError(f"`strategy` must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")
    for name, value in (("gpus", gpus), ("rows", rows), ("length", length)):
        check_value(name, value, PositiveInt)
    if rows * length > MOST_POSITIONS:
        raise ValueError(f"`rows` * `length` must be at most {MOST_POSITIONS:,}, got {rows} * {length}.")
    for name, value in (("text_targets", text_targets), ("visual_targets", visual_targets)):
        if not 0 <= value <= rows * length:
            raise ValueError(f"`{name}` must be in [0, `rows` * `length`] = [0, {rows * length}], got {value}.")
    unknown = set(frozen_parts) - set(SUB_MODELS)
    if unknown:
        raise ValueError(f"`frozen_parts` must be among {', '.join(SUB_MODELS)}, got {', '.join(sorted(unknown))}.")


def _training_states(model: VilaUForConditionalGeneration, gpus: int, strategy: str, bf16: bool) -> list[MemoryLine]:
    """Lists what training keeps all the time: weights, gradients, optimizer states and buffers of the strategy."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    size = size_of(trained)
    count = sum(parameter.numel() for parameter in trained)
    shards = 1 if strategy == "ddp" else gpus
    # examples/accelerate/fsdp2.yaml keeps the frozen vision tower whole on each device.
    unsharded = "vision_tower" if strategy == "fsdp" else ""
    lines = weight_lines(model, gpus if strategy in ("fsdp", "zero3") else 1, unsharded)
    lines.append(MemoryLine("gradients", math.ceil(size / shards)))
    # AdamW also keeps a step counter of 4 bytes for each parameter tensor.
    lines.append(MemoryLine("AdamW: two averages", math.ceil(2 * size / shards) + 4 * len(trained)))
    if gpus == 1:
        return lines
    width = 2 if bf16 else 4
    if strategy == "ddp":
        lines.append(MemoryLine("DDP: buckets of gradients to be summed", size))
    elif strategy == "fsdp":
        sharded = [(name, module) for name, module in model.named_modules() if sub_model_of(name) != unsharded]
        units = [module for _, module in sharded if type(module).__name__ in (model._no_split_modules or ())]
        sizes = [sum(parameter.numel() for parameter in unit.parameters()) for unit in units]
        rest = sum(each.numel() for name, each in model.named_parameters() if sub_model_of(name) != unsharded) - sum(
            sizes
        )
        lines.append(MemoryLine("FSDP2: gathered weights that are in no layer", rest * width))
        # FSDP2 gathers the next layer while it computes one
        lines.append(MemoryLine("FSDP2: gathered weights of two layers, gradients of one", 3 * max(sizes) * width))
    else:
        bucket = min(REDUCE_BUCKET_SIZE, count) * 4
        lines.append(MemoryLine(f"ZeRO: bucket of gradients (reduce_bucket_size {REDUCE_BUCKET_SIZE:,})", bucket))
        if strategy == "zero3":
            live = min(STAGE3_MAX_LIVE_PARAMETERS, sum(parameter.numel() for parameter in model.parameters()))
            name = f"ZeRO: gathered weights (stage3_max_live_parameters {STAGE3_MAX_LIVE_PARAMETERS:,})"
            lines.append(MemoryLine(name, live * 4))
    return lines


def _training_phases(
    model: VilaUForConditionalGeneration,
    rows: int,
    length: int,
    text_targets: int,
    visual_targets: int,
    uses_autocast: bool,
) -> list[MemoryLine]:
    """Runs one training step without data and lists the memory of its phases."""
    run = LiveMemory(model)
    with run.without_data:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)

    def autocast() -> contextlib.AbstractContextManager:
        return torch.autocast("cpu", torch.bfloat16) if uses_autocast else contextlib.nullcontext()

    vision = model.config.vision_config
    visual = rows * length - text_targets
    with run:
        images = -(-visual // vision.num_visual_tokens)
        if images:
            with torch.no_grad():
                model.model.vision_tower.encode(torch.zeros(images, 3, vision.image_size, vision.image_size))
        tower = run.take_peak()
        with autocast():
            is_visual = torch.zeros(rows, length, 1, dtype=torch.bool)
            embeds = model.get_input_embeddings()(torch.zeros(rows, length, dtype=torch.long))
            if visual:
                codes = model.model.embed_codes(torch.zeros(visual, vision.code_depth, dtype=torch.long))
                embeds = embeds.masked_scatter(is_visual, codes.to(embeds.dtype))
                del codes
            hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
            dtype = hidden.dtype
            forward = run.take_peak()
            kept_with_casts = run.live
        # When autocast ends, its copies of weights are freed, except those that the backward pass needs.
        kept = run.live
        if hidden.requires_grad:
            hidden.sum().backward()
        backward = run.take_peak()
        del hidden, embeds, is_visual
        in_forward, in_backward = _loss_peaks(run, model, dtype, text_targets, visual_targets, autocast)
    # The losses are computed inside autocast, so their forward pass comes on top of its copies of weights.
    loss = max(kept_with_casts + in_forward, kept + in_backward)
    return [
        MemoryLine(f"vision tower: codes of {images} images", tower),
        MemoryLine("language model, forward pass: activations", forward),
        MemoryLine(f"losses: activations, and {kept_with_casts / 2**30:.3f} GiB kept by the language model", loss),
        MemoryLine("language model, backward pass: activations", backward),
    ]


def _loss_peaks(
    run: LiveMemory,
    model: VilaUForConditionalGeneration,
    dtype: torch.dtype,
    text_targets: int,
    visual_targets: int,
    autocast: Callable[[], contextlib.AbstractContextManager],
) -> tuple[int, int]:
    """Returns the peaks of the forward and the backward pass of the losses, without what the language model keeps."""

    def peaks(visual_targets: int) -> tuple[int, int, int]:
        """Returns the peaks of the forward and the backward pass, and the bytes of weights that autocast cast."""
        with autocast():
            hidden = torch.empty(text_targets + visual_targets, model.config.text_config.hidden_size, dtype=dtype)
            hidden.requires_grad_()
            text = hidden[torch.zeros(text_targets, dtype=torch.long)]
            visual = hidden[torch.zeros(visual_targets, dtype=torch.long)]
            loss = model._text_loss(text, torch.zeros(text_targets, dtype=torch.long))
            codes = torch.zeros(visual_targets, model.config.depth_config.code_depth, dtype=torch.long)
            loss = loss + model._code_loss(visual, codes, False)[0]
            del text, visual, codes
            forward = run.take_peak()
            before = run.live
        casts = before - run.live
        loss.backward()
        return forward, run.take_peak(), casts

    sizes = model.config.depth_config
    chunk = max(1, model.max_code_logits // (sizes.codebook_size * sizes.code_depth))  # visual tokens
    few = 3 * chunk - 1
    more = 4 * chunk - 1
    if visual_targets <= more:
        return peaks(visual_targets)[:2]
    # A run of hundreds of chunks through all layers would take minutes. The peak occurs either in the layers or in the
    # head. In the layers, each additional chunk needs the same memory, so two short runs are extrapolated. In the
    # head, the number of layers changes only how many weights autocast has cast, so a run with one layer measures it.
    of_few = peaks(few)
    of_more = peaks(more)
    times = (visual_targets - more) / (more - few)
    of_layers = [last + math.ceil(times * (last - first)) for first, last in zip(of_few, of_more, strict=True)]
    transformers = [module for module in model.modules() if isinstance(module, VilaUDepthTransformer)]
    layers = [transformer.layers for transformer in transformers]
    for transformer in transformers:
        transformer.layers = transformer.layers[:1]
    forward, backward, casts = peaks(visual_targets)
    for transformer, all_layers in zip(transformers, layers, strict=True):
        transformer.layers = all_layers
    return max(of_layers[0], forward + of_more[2] - casts), max(of_layers[1], backward)


def estimate_generation_memory(
    config: VilaUConfig,
    batch_size: int = 1,
    generation_mode: str = "image",
    num_frames: int = 8,
    guidance: bool = True,
    prompt_length: int = 64,
    dtype: torch.dtype = torch.bfloat16,
    int8: bool = False,
) -> MemoryEstimate:
    """
    Estimates the memory of one device while `generate` produces images or videos, and while they are decoded.

    Args:
        config ([`VilaUConfig`]): configuration of the model.
        batch_size (`int`, *optional*, defaults to 1): number of prompts.
        generation_mode (`str`, *optional*, defaults to `"image"`): `"image"` or `"video"`.
        num_frames (`int`, *optional*, defaults to 8): frames of a video.
        guidance (`bool`, *optional*, defaults to `True`): whether there is a second, unconditional branch of as many
            rows.
        prompt_length (`int`, *optional*, defaults to 64): tokens of the longest prompt with its start marker.
        dtype (`torch.dtype`, *optional*, defaults to `torch.bfloat16`): dtype of the weights.
        int8 (`bool`, *optional*, defaults to `False`): whether the layers of the language model have 8-bit weights of
            torchao.

    Raises:
        ValueError: if a mode is unknown, a count is out of range, or the language model has too few positions.
    """
    vision = config.vision_config
    text = config.text_config
    if generation_mode not in ("image", "video"):
        raise ValueError(f'`generation_mode` must be "image" or "video", got {generation_mode!r}.')
    for name, value in (("batch_size", batch_size), ("num_frames", num_frames), ("prompt_length", prompt_length)):
        check_value(name, value, PositiveInt)
    if batch_size > MOST_POSITIONS:
        raise ValueError(f"`batch_size` must be at most {MOST_POSITIONS:,}, got {batch_size}.")
    frames = num_frames if generation_mode == "video" else 1
    positions = frames * vision.num_visual_tokens
    if prompt_length + positions > text.max_position_embeddings:
        raise ValueError(
            f"`prompt_length` ({prompt_length}) and {positions} visual tokens exceed the language model's "
            f"{text.max_position_embeddings} positions (`text_config.max_position_embeddings`)."
        )
    model = model_on_meta(config, dtype).eval()
    run = LiveMemory(model)
    if int8:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        with run.without_data:
            quantize_(model.model.language_model, Int8WeightOnlyConfig())
    branches = 2 if guidance else 1
    what = f"{batch_size} x " + (f"a video of {num_frames} frames" if generation_mode == "video" else "an image")
    estimate = MemoryEstimate(
        f"generation of {what}, {branches} branch{'es' * (branches > 1)}, {prompt_length} + {positions} positions",
        weight_lines(model),
    )
    with run, torch.no_grad():
        _add_generation_phases(run, model, estimate, batch_size, branches, prompt_length, positions)
        run.take_peak()  # starts a new phase
        tower = model.model.vision_tower
        codes = torch.zeros(batch_size * frames, vision.num_visual_tokens, vision.code_depth, dtype=torch.long)
        tower.decode(tower.quantizer.decode(codes))
        estimate.phases.append(MemoryLine("decoding pixels: activations, after the cache is freed", run.take_peak()))
    return estimate


def _add_generation_phases(
    run: LiveMemory,
    model: VilaUForConditionalGeneration,
    estimate: MemoryEstimate,
    rows: int,
    branches: int,
    prompt_length: int,
    positions: int,
) -> None:
    """Runs the first and the last step of generation without data and adds their memory to the estimate."""
    text = model.config.text_config
    defaults = VISUAL_GENERATION_DEFAULTS
    cache: Cache = DynamicCache(config=text)
    if not any(cache.is_sliding):
        cache = VilaUSpanCache(text.num_hidden_layers, prompt_length + positions)
    sampler = CodeSampler(SamplingSettings(), code_depth=model.config.vision_config.code_depth)
    guidance = Guidance(defaults["visual_guidance_scale"] if branches > 1 else 1.0)
    guidance = guidance.expand(rows, rows, positions, torch.device("cpu"))
    decoder = DepthDecoder(model, sampler, guidance, CodeInputs(model))
    ids = torch.zeros(branches * rows, prompt_length, dtype=torch.long)
    hidden = model.model(input_ids=ids, cache=cache, use_cache=True).last_hidden_state[:, -1]
    estimate.phases.append(MemoryLine("reading the prompt: cache, code table, activations", run.take_peak()))
    # The steps between the first and the last position only fill the cache, so they are not run.
    for index, layer in enumerate(cache.layers):
        if isinstance(layer, DynamicLayer) and layer.keys is not None:
            keys = layer.keys
            between = keys.new_empty(*keys.shape[:2], max(0, positions - 2), keys.shape[-1])
            cache.update(between, between, index)
            del keys, between
    del hidden
    run.take_peak()
    codes = torch.zeros(rows, 1, sampler.code_depth, dtype=torch.long)
    embeds = model.model.embed_codes(codes).repeat(branches, 1, 1)
    hidden = model.model(inputs_embeds=embeds, cache=cache, use_cache=True)
    decoder.decode(hidden.last_hidden_state[:, -1], positions - 1)
    estimate.phases.append(MemoryLine("generating the last position: the same", run.take_peak()))
    depth = model.config.depth_config
    pairs = 2 * depth.num_hidden_layers * depth.code_depth * depth.hidden_size
    kept = size_of(each for layer in cache.layers for each in vars(layer).values() if isinstance(each, torch.Tensor))
    estimate.contained += [
        MemoryLine("keys and values of the language model", kept),
        MemoryLine("keys and values of the depth transformer", branches * rows * pairs * model.dtype.itemsize),
        MemoryLine("code table of the depth decoder", size_of([decoder.code_inputs.table])),
        MemoryLine("logits of one position and depth, float32", 4 * rows * depth.codebook_size),
    ]
