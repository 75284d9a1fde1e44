"""How much memory training and generation need, found by running the model on tensors without data."""

import contextlib
import math
from dataclasses import dataclass, field

import torch
from transformers import AttentionInterface, DynamicCache

from ..choices import STRATEGIES
from ..compat import enable_activation_checkpointing
from ..modeling import VilaUConfig, VilaUDepthTransformer
from ..modeling.generation_branches_vilau import VilaUSpanCache
from ..modeling.generation_depth_vilau import CodeInputs, DepthDecoder
from ..modeling.generation_sampling_vilau import CodeSampler, Guidance, SamplingSettings
from ..modeling.generation_settings_vilau import VISUAL_GENERATION_DEFAULTS
from ..modeling.parts_vilau import PARTS, part_of
from .live_memory import LiveMemory, model_on_meta, plain_tensors, size_of


# numbers of elements, DeepSpeed's defaults
REDUCE_BUCKET_SIZE, STAGE3_MAX_LIVE_PARAMETERS = 5 * 10**8, 10**9
# parts of the model by the beginnings of their weights' names, the first that fits
WEIGHTS = {
    "image encoder": "model.vision_tower.image_encoder.",
    "quantizer": "model.vision_tower.quantizer.",
    "pixel decoder": "model.vision_tower.",
    "projector": "model.multi_modal_projector.",
    "language model": "model.language_model.",
    "text head": "lm_head.",
    "depth transformer": "depth_transformer.",
}


@dataclass
class MemoryLine:
    """
    name (`str`): what the bytes are.
    size (`int`): bytes on one device.
    source (`str`): `"counted"` for the model's own tensors, `"computed"` for what follows from a run without data or
        from the rules of a strategy.
    """

    name: str
    size: int
    source: str = "computed"


@dataclass
class MemoryEstimate:
    """
    title (`str`): what was estimated.
    held (`list[MemoryLine]`): what is there all the time.
    phases (`list[MemoryLine]`): the most that each phase of the work needs beyond that; they come one after the other.
    contained (`list[MemoryLine]`): what the phases' bytes hold among others.
    """

    title: str
    held: list[MemoryLine] = field(default_factory=list)
    phases: list[MemoryLine] = field(default_factory=list)
    contained: list[MemoryLine] = field(default_factory=list)

    @property
    def peak(self) -> int:
        """Bytes on one device in the phase that needs most."""
        return sum(line.size for line in self.held) + max(line.size for line in self.phases)

    def size(self, name: str) -> int:
        """Bytes of all lines whose names begin with `name`."""
        lines = [*self.held, *self.phases, *self.contained]
        return sum(line.size for line in lines if line.name.startswith(name))

    def __str__(self) -> str:
        width = max(len(line.name) for line in [*self.held, *self.phases, *self.contained]) + 2

        def row(line, mark=""):
            return f"  {line.name:<{width}}{line.size / 2**30:>10.3f} GiB  {line.source}{mark}"

        largest = max(self.phases, key=lambda line: line.size)
        rows = [self.title, "there all the time", *map(row, self.held), "beyond that, one after the other"]
        rows += [row(line, ", the largest" if line is largest else "") for line in self.phases]
        if self.contained:
            rows += ["contained in these", *map(row, self.contained)]
        return "\n".join([*rows, "in all", row(MemoryLine("peak", self.peak))])


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
    lora_config=None,
) -> MemoryEstimate:
    """
    Memory of one device while [`~training.VilaUTrainer`] trains with AdamW, gradients of an earlier micro-batch in
    place. Not counted: the driver's context, workspaces of its libraries, fragmentation.

    What is kept of weights follows examples/accelerate: float32 weights with autocast (frozen weights of a LoRA run
    are bfloat16), in shards for FSDP2, all but the vision tower's, and for ZeRO-3; ZeRO-2 has gradients and averages
    in shards (Rajbhandari et al., 2020, section 3). Units of FSDP2 are the layers of language model and depth
    transformer; ZeRO has DeepSpeed's default sizes.

    Args:
        config ([`VilaUConfig`]): of the model.
        gpus (`int`, *optional*, defaults to 1): devices.
        strategy (`str`, *optional*, defaults to `"ddp"`): `"ddp"`, `"fsdp"`, `"zero2"` or `"zero3"`.
        rows, length (`int`, *optional*, default to 1, 8192): shape of a device's micro-batch.
        text_targets (`int`, *optional*, defaults to 0): positions with a text label.
        visual_targets (`int`, *optional*): visual tokens to be predicted (default: all other positions).
        packed (`bool`, *optional*, defaults to `False`): rows hold several samples, for which sdpa attention needs a
            mask over all pairs of positions; flash attention does without.
        activation_checkpointing (`bool`, *optional*, defaults to `True`): the backward pass computes layers again.
        bf16 (`bool`, *optional*, defaults to `True`): mixed precision; otherwise everything is float32.
        frozen_parts (`tuple[str]`, *optional*): of "projector", "language_model" and "depth_transformer".
        lora_config (`peft.LoraConfig`, *optional*): adapters, and what is trained beside them.

    Raises:
        ValueError: for an unknown strategy or part, or counts out of range.
    """
    if visual_targets is None:
        visual_targets = rows * length - text_targets
    _check_training(gpus, strategy, rows, length, text_targets, visual_targets, frozen_parts)
    model = model_on_meta(config, torch.bfloat16 if bf16 and lora_config is not None else torch.float32).train()
    for part in frozen_parts:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and not name.startswith(PARTS[part]))
    if lora_config is not None:
        from peft import get_peft_model

        get_peft_model(model, lora_config, low_cpu_mem_usage=True)  # changes the layers of `model` itself
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    held = _training_states(model, gpus, strategy, bf16)
    if strategy == "fsdp" and bf16:
        model.to(torch.bfloat16)  # as the layers' gathered weights
    if activation_checkpointing:
        enable_activation_checkpointing(model)
    if not packed:
        AttentionInterface.register("sdpa_without_mask", AttentionInterface()["sdpa"])  # no mask is made for this name
        model.config.text_config._attn_implementation = "sdpa_without_mask"
    phases = _training_phases(model, rows, length, text_targets, visual_targets, bf16)
    title = (
        f"training on {gpus} x {strategy}, {rows} x {length} positions, "
        f"{text_targets} text labels, {visual_targets} visual targets"
    )
    return MemoryEstimate(title, held, phases)


def _check_training(gpus, strategy, rows, length, text_targets, visual_targets, frozen_parts):
    if strategy not in STRATEGIES:
        raise ValueError(f"`strategy` must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")
    for name, value in (("gpus", gpus), ("rows", rows), ("length", length)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    for name, value in (("text_targets", text_targets), ("visual_targets", visual_targets)):
        if not 0 <= value <= rows * length:
            raise ValueError(f"`{name}` must be in [0, `rows` * `length`] = [0, {rows * length}], got {value}.")
    unknown = set(frozen_parts) - set(PARTS)
    if unknown:
        raise ValueError(f"`frozen_parts` must be among {', '.join(PARTS)}, got {', '.join(sorted(unknown))}.")


def _weight_lines(model, shards: int = 1, whole_part: str = "") -> list[MemoryLine]:
    """Bytes by part; parameters, not buffers, lie in `shards` shards, but for those of `whole_part`."""
    parts, sharded = {}, set()
    tensors = [
        (name, tensor, 1 if part_of(name) == whole_part else shards) for name, tensor in model.named_parameters()
    ]
    tensors += [(name, tensor, 1) for name, tensor in model.named_buffers()]
    for name, tensor, shared in tensors:
        part = next(part for part, prefix in WEIGHTS.items() if name.startswith(prefix))
        plain = [each.dtype for each in plain_tensors(tensor) if isinstance(tensor, torch.nn.Parameter)]
        if shared > 1:
            sharded.add(part)
        size, dtypes, trained = parts.get(part, (0, set(), 0))
        size += math.ceil(size_of([tensor]) / shared)
        trained += tensor.numel() if tensor.requires_grad and model.training else 0
        parts[part] = size, dtypes | {str(dtype).removeprefix("torch.") for dtype in plain}, trained
    return [
        MemoryLine(
            f"weights: {part}, {' + '.join(sorted(dtypes))}" + (f", {trained:,} trained" if trained else ""),
            size,
            "computed" if part in sharded else "counted",
        )
        for part, (size, dtypes, trained) in parts.items()
    ]


def _training_states(model, gpus: int, strategy: str, bf16: bool) -> list[MemoryLine]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    size, count = size_of(trained), sum(parameter.numel() for parameter in trained)
    shards = 1 if strategy == "ddp" else gpus
    whole_part = "vision_tower" if strategy == "fsdp" else ""
    lines = _weight_lines(model, gpus if strategy in ("fsdp", "zero3") else 1, whole_part)
    lines.append(MemoryLine("gradients", math.ceil(size / shards)))
    # each parameter has a step counter, too
    lines.append(MemoryLine("AdamW: two averages", math.ceil(2 * size / shards) + 4 * len(trained)))
    if gpus == 1:
        return lines
    width = 2 if bf16 else 4
    if strategy == "ddp":
        lines.append(MemoryLine("DDP: buckets of gradients to be summed", size))
    elif strategy == "fsdp":
        sharded = [(name, module) for name, module in model.named_modules() if part_of(name) != whole_part]
        units = [module for _, module in sharded if type(module).__name__ in model._no_split_modules]
        sizes = [sum(parameter.numel() for parameter in unit.parameters()) for unit in units]
        rest = sum(each.numel() for name, each in model.named_parameters() if part_of(name) != whole_part) - sum(sizes)
        lines.append(MemoryLine("FSDP2: gathered weights that are in no layer", rest * width))
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
    model, rows: int, length: int, text_targets: int, visual_targets: int, uses_autocast: bool
) -> list[MemoryLine]:
    run = LiveMemory(model)
    with run.without_data:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)

    def autocast():
        return torch.autocast("cpu", torch.bfloat16) if uses_autocast else contextlib.nullcontext()

    vision, visual = model.config.vision_config, rows * length - text_targets
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
            dtype, forward, kept_with_casts = hidden.dtype, run.take_peak(), run.live
        kept = run.live  # the casts of weights for autocast are gone, unless a layer keeps them
        if hidden.requires_grad:
            hidden.sum().backward()
        backward = run.take_peak()
        del hidden, embeds, is_visual
        in_forward, in_backward = _loss_peaks(run, model, dtype, text_targets, visual_targets, autocast)
    loss = max(kept_with_casts + in_forward, kept + in_backward)
    return [
        MemoryLine(f"vision tower: codes of {images} images", tower),
        MemoryLine("language model, forward pass: activations", forward),
        MemoryLine(f"losses: activations, on {kept_with_casts / 2**30:.3f} GiB that the language model keeps", loss),
        MemoryLine("language model, backward pass: activations", backward),
    ]


def _loss_peaks(run: LiveMemory, model, dtype, text_targets: int, visual_targets: int, autocast) -> tuple[int, int]:
    """Peaks of the losses' forward and backward passes, beyond what the language model keeps."""

    def peaks(visual_targets):
        with autocast():
            hidden = torch.empty(text_targets + visual_targets, model.config.text_config.hidden_size, dtype=dtype)
            hidden.requires_grad_()
            text = hidden[torch.zeros(text_targets, dtype=torch.long)]
            visual = hidden[torch.zeros(visual_targets, dtype=torch.long)]
            loss = model._text_loss(text, torch.zeros(text_targets, dtype=torch.long))
            codes = torch.zeros(visual_targets, model.config.depth_config.code_depth, dtype=torch.long)
            loss = loss + model._code_loss(visual, codes, False)[0]
            del text, visual, codes
            forward, before = run.take_peak(), run.live
        casts = before - run.live
        loss.backward()
        return forward, run.take_peak(), casts

    sizes = model.config.depth_config
    part = max(1, model.max_code_logits // (sizes.codebook_size * sizes.code_depth))  # visual tokens
    few, more = 3 * part - 1, 4 * part - 1
    if visual_targets <= more:
        return peaks(visual_targets)[:2]
    # Hundreds of parts through all layers would take minutes. The peak is that of the layers or that of the head. For
    # that of the layers, each part more brings as much as the one before; for that of the head, the number of layers
    # tells nothing but how many weights autocast has cast.
    of_few, of_more = peaks(few), peaks(more)
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
    Memory of one device while `generate` draws images or videos of a batch of prompts, and then decodes them.

    Args:
        config ([`VilaUConfig`]): of the model.
        batch_size (`int`, *optional*, defaults to 1): prompts.
        generation_mode (`str`, *optional*, defaults to `"image"`): `"image"` or `"video"`.
        num_frames (`int`, *optional*, defaults to 8): frames of a video.
        guidance (`bool`, *optional*, defaults to `True`): a second, unconditional branch of as many rows.
        prompt_length (`int`, *optional*, defaults to 64): tokens of the longest prompt, its start marker included.
        dtype (`torch.dtype`, *optional*, defaults to `torch.bfloat16`): of the weights.
        int8 (`bool`, *optional*, defaults to `False`): torchao's 8-bit weights in the language model's layers.

    Raises:
        ValueError: for an unknown mode, counts out of range, or more positions than the language model has.
    """
    vision, text = config.vision_config, config.text_config
    if generation_mode not in ("image", "video"):
        raise ValueError(f'`generation_mode` must be "image" or "video", got {generation_mode!r}.')
    for name, value in (("batch_size", batch_size), ("num_frames", num_frames), ("prompt_length", prompt_length)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
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
        _weight_lines(model),
    )
    with run, torch.no_grad():
        _write(run, model, estimate, batch_size, branches, prompt_length, positions)
        run.take_peak()  # what was there before does not count any more
        tower = model.model.vision_tower
        codes = torch.zeros(batch_size * frames, vision.num_visual_tokens, vision.code_depth, dtype=torch.long)
        tower.decode(tower.quantizer.decode(codes))
        estimate.phases.append(MemoryLine("decoding pixels: activations; the cache is gone", run.take_peak()))
    return estimate


def _write(run, model, estimate: MemoryEstimate, rows: int, branches: int, prompt_length: int, positions: int):
    """The phases of `generate` up to the last position."""
    text, defaults = model.config.text_config, VISUAL_GENERATION_DEFAULTS
    cache = DynamicCache(config=text)
    if not any(cache.is_sliding):
        cache = VilaUSpanCache(text.num_hidden_layers, prompt_length + positions)
    sampler = CodeSampler(SamplingSettings(), code_depth=model.config.vision_config.code_depth)
    guidance = Guidance(defaults["visual_guidance_scale"] if branches > 1 else 1.0)
    guidance = guidance.expand(rows, rows, positions, torch.device("cpu"))
    decoder = DepthDecoder(model, sampler, guidance, CodeInputs(model))
    ids = torch.zeros(branches * rows, prompt_length, dtype=torch.long)
    hidden = model.model(input_ids=ids, cache=cache, use_cache=True).last_hidden_state[:, -1]
    estimate.phases.append(MemoryLine("reading the prompt: cache, code table, activations", run.take_peak()))
    for index, layer in enumerate(cache.layers):  # the positions between the first and the last
        between = layer.keys.new_empty(*layer.keys.shape[:2], max(0, positions - 2), layer.keys.shape[-1])
        cache.update(between, between, index)
    del between, hidden
    run.take_peak()
    codes = torch.zeros(rows, 1, sampler.code_depth, dtype=torch.long)
    embeds = model.model.embed_codes(codes).repeat(branches, 1, 1)
    hidden = model.model(inputs_embeds=embeds, cache=cache, use_cache=True)
    decoder.decode(hidden.last_hidden_state[:, -1], positions - 1)
    estimate.phases.append(MemoryLine("writing the last position: the same", run.take_peak()))
    depth = model.config.depth_config
    pairs = 2 * depth.num_hidden_layers * depth.code_depth * depth.hidden_size
    kept = size_of(each for layer in cache.layers for each in vars(layer).values() if isinstance(each, torch.Tensor))
    estimate.contained += [
        MemoryLine("keys and values of the language model", kept),
        MemoryLine("keys and values of the depth transformer", branches * rows * pairs * model.dtype.itemsize),
        MemoryLine("code table of the depth decoder", size_of([decoder.code_inputs.table])),
        MemoryLine("logits of one position and depth, float32", 4 * rows * depth.codebook_size),
    ]
