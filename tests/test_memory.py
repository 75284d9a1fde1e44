"""Computed memory against what torch's allocator gives out."""

import contextlib
import gc

import pytest
import torch

from benchmarks.allocations import peak_bytes
from vilau_hf import TINY_CHECKPOINT, VilaUConfig, VilaUForConditionalGeneration
from vilau_hf.cli import main
from vilau_hf.memory import estimate_generation_memory, estimate_training_memory, load_config

from .conftest import DEPTH, TEXT, TOKEN_IDS, VISION


ENCODER = {"hidden_size": 64, "intermediate_size": 128, "image_size": 64, "patch_size": 8}  # 64 visual tokens


@pytest.fixture
def config():
    """Large enough for tensors to weigh more than what surrounds them."""
    vision = {**VISION, "encoder_config": {**VISION["encoder_config"], **ENCODER}}
    vision.update(codebook_size=1024, code_depth=4, block_out_channels=[16, 16, 32, 32])
    depth = {**DEPTH, "hidden_size": 128, "intermediate_size": 512, "backbone_hidden_size": 192, "code_dim": 64}
    depth.update(codebook_size=1024, code_depth=4, num_attention_heads=4)
    text = {**TEXT, "vocab_size": 500, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4}
    text["max_position_embeddings"] = 1024
    return VilaUConfig(vision_config=vision, depth_config=depth, text_config=text, **TOKEN_IDS)


def videos(rows, frames):
    """Videos as answers: all but the first position are predicted, three of them text."""
    ids = torch.tensor([[1, 56] + [59] * 64 * frames + [57, 2]] * rows)
    return {"input_ids": ids, "labels": ids, "codes": torch.randint(1024, (rows * frames, 64, 4))}


def largest_phase(estimate):
    return max(line.size for line in estimate.phases)


def test_weights_gradients_and_optimizer_states_are_exact(config):
    model = VilaUForConditionalGeneration(config).train()
    optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)
    model(**videos(1, 1)).loss.backward()
    optimizer.step()
    estimate = estimate_training_memory(config, length=68, text_targets=4, bf16=False)
    weights = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.grad is not None)
    states = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    assert (estimate.size("weights"), estimate.size("gradients")) == (weights, gradients)
    assert estimate.size("AdamW") == states
    assert sum(line.size for line in estimate.held) == weights + gradients + states


@pytest.mark.parametrize(
    ("checkpointing", "bf16", "parts"),
    [(False, False, 1), (True, False, 1), (True, False, 16), pytest.param(False, True, 16, marks=pytest.mark.slow)],
)
def test_activations_are_what_the_allocator_gives_out(config, monkeypatch, checkpointing, bf16, parts):
    monkeypatch.setattr(VilaUForConditionalGeneration, "max_code_logits", 2**21 // parts)
    model = VilaUForConditionalGeneration(config).train()
    if checkpointing:
        model.activation_checkpointing_enable()
    batch = videos(2, 4)

    def step():
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            loss = model(**batch).loss
        loss.backward()

    step()  # gradients are there from now on
    gc.collect()
    measured = peak_bytes(step)
    rows, length = batch["input_ids"].shape
    estimate = estimate_training_memory(
        config, rows=rows, length=length, text_targets=8, gradient_checkpointing=checkpointing, bf16=bf16
    )
    assert largest_phase(estimate) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    ("mode", "guidance", "dtype"),
    [
        ("image", True, torch.float32),
        pytest.param("video", False, torch.bfloat16, marks=pytest.mark.slow),
        pytest.param("video", True, torch.float32, marks=pytest.mark.slow),
    ],
)
def test_generation_needs_what_the_allocator_gives_out(config, mode, guidance, dtype):
    config.vision_config.encoder_config.image_size = 32  # 16 visual tokens
    model = VilaUForConditionalGeneration(config).eval().to(dtype)
    drawn = []
    settings = {"generation_mode": mode, "guidance_scale": 3.0 if guidance else 1.0}
    if mode == "video":
        settings["num_frames"] = 2
    prompts = torch.randint(3, 50, (8, 60))

    def draw():
        drawn.append(model.generate(input_ids=prompts, **settings))

    def decode():
        (model.decode_image_tokens if mode == "image" else model.decode_video_tokens)(drawn[0])

    draw()
    gc.collect()
    estimate = estimate_generation_memory(config, 8, mode, 2, guidance, prompt_length=61, dtype=dtype)
    prompt, last, pixels = (line.size for line in estimate.phases)
    assert max(prompt, last) == pytest.approx(peak_bytes(draw), rel=0.1)
    assert pixels == pytest.approx(peak_bytes(decode), rel=0.1)
    rows, positions = 8 * (1 + guidance), 61 + 16 * (2 if mode == "video" else 1)
    assert estimate.size("keys and values of the language model") == 2 * 4 * rows * positions * 192 * dtype.itemsize
    assert estimate.size("weights") == sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])


def test_what_each_strategy_shards(config):
    held = {}
    for strategy in ("ddp", "fsdp", "zero2", "zero3"):
        held[strategy] = estimate_training_memory(config, gpus=4, strategy=strategy, length=68)
    with torch.device("meta"):
        model = VilaUForConditionalGeneration(config)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    # Rajbhandari et al., 2020, figure 1: 16 bytes a parameter; ZeRO-2 keeps 2 of them whole, ZeRO-3 none
    for strategy, whole, shared in (("ddp", 16, 0), ("fsdp", 0, 16), ("zero2", 2, 14), ("zero3", 0, 16)):
        estimate = held[strategy]
        size = sum(estimate.size(name) for name in ("weights", "gradients", "AdamW"))
        frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
        expected = trained * (whole + shared / 4)
        # frozen weights and step counters: at least in a shard and in bfloat16, at most whole and in float32
        assert expected + buffers + frozen / 2 < size < expected + buffers + 4 * frozen + 2000, strategy
    assert held["ddp"].size("DDP: buckets") == 4 * trained


def test_adapters_alone_are_trained(config):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=4, target_modules=r".*language_model.*\.(q|v)_proj")
    estimate = estimate_training_memory(config, length=68, lora_config=lora)
    trained = 4 * 2 * 4 * (192 + 192)  # rank, matrices, layers, widths
    assert estimate.size("gradients") == 4 * trained
    assert estimate.size("AdamW") == 8 * trained + 4 * 16
    whole = estimate_training_memory(config, length=68)
    assert estimate.size("weights") < 0.6 * whole.size("weights")  # frozen weights are bfloat16


def test_frozen_parts_have_no_gradients(config):
    estimate = estimate_training_memory(config, length=68, bf16=False, frozen_parts=("language_model",))
    model = VilaUForConditionalGeneration(config)
    trained = [*model.depth_transformer.parameters(), *model.model.multi_modal_projector.parameters()]
    assert estimate.size("gradients") == sum(parameter.nbytes for parameter in trained)


def test_int8_layers_take_half_of_bfloat16(config):
    pytest.importorskip("torchao")
    sizes = [
        estimate_generation_memory(config, prompt_length=8, int8=int8).size("weights: language model")
        for int8 in (False, True)
    ]
    layers = 4 * (4 * 192 * 192 + 3 * 192 * 512)  # parameters of the linear layers
    assert sizes[0] - sizes[1] == pytest.approx(layers, rel=0.03)  # less the scales


def test_weights_of_a_recipe_are_those_of_the_paper():
    estimate = estimate_generation_memory(load_config("vilau-7b-256"), prompt_length=8)
    assert estimate.size("weights: language model") + estimate.size("weights: text head") == pytest.approx(
        2 * 6.74e9, rel=1e-3
    )  # LLaMA-2-7B has 6.74 billion parameters


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (estimate_training_memory, {"strategy": "zero1"}, "`strategy` must be one of ddp, fsdp, zero2, zero3, got"),
        (estimate_training_memory, {"gpus": 0}, "`gpus` must be at least 1, got 0"),
        (estimate_training_memory, {"length": 8, "text_targets": 9}, r"`text_targets` must be in .* \[0, 8\], got 9"),
        (estimate_training_memory, {"frozen_parts": ("tower",)}, "`frozen_parts` must be among .*, got tower"),
        (estimate_generation_memory, {"generation_mode": "text"}, '`generation_mode` must be "image" or "video"'),
        (estimate_generation_memory, {"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        (estimate_generation_memory, {"prompt_length": 1000}, "exceed the language model's 1024 positions"),
    ],
)
def test_what_cannot_be_is_refused(config, function, settings, message):
    with pytest.raises(ValueError, match=message):
        function(config, **settings)


def test_command_prints_training_and_generation(capsys):
    main(["estimate", TINY_CHECKPOINT, "--gpus", "2", "--strategy", "zero3", "--length", "512", "--batch-size", "4"])
    printed = capsys.readouterr().out
    config = load_config(TINY_CHECKPOINT)
    for estimate in (
        estimate_training_memory(config, gpus=2, strategy="zero3", length=512),
        estimate_generation_memory(config, batch_size=4),
    ):
        assert str(estimate) in printed
    for line in printed.splitlines():
        if " GiB" in line:
            assert "counted" in line or "computed" in line


def test_command_names_what_it_cannot_find(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["estimate", str(tmp_path / "nowhere")])
    assert stop.value.code == 1 and "nowhere" in capsys.readouterr().err
