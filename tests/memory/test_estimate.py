"""Computed memory compared with the memory that the allocator of torch hands out."""

import json

import bench_memory
import pytest
import torch

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration
from vilau_hf.cli import main
from vilau_hf.loading import load_config
from vilau_hf.memory import estimate_generation_memory, estimate_training_memory


@pytest.fixture
def config():
    return bench_memory.small_config()


def test_weights_gradients_and_optimizer_states_are_exact():
    computed, measured = bench_memory.states()
    assert computed == measured


@pytest.mark.parametrize(
    ("checkpointing", "bf16", "chunks"),
    [
        (False, False, 1),
        (True, False, 1),
        pytest.param(True, False, 16, marks=pytest.mark.slow),
        pytest.param(False, True, 16, marks=pytest.mark.slow),
    ],
)
def test_activations_need_the_memory_of_the_allocator(checkpointing, bf16, chunks):
    computed, measured = bench_memory.activations(checkpointing, bf16, chunks)
    assert computed == pytest.approx(measured, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "guidance", "dtype"),
    [("image", True, torch.float32), ("video", False, torch.bfloat16), ("video", True, torch.float32)],
)
def test_generation_needs_the_memory_of_the_allocator(mode, guidance, dtype):
    for phase, (computed, measured) in bench_memory.generation(mode, guidance, dtype).items():
        assert computed == pytest.approx(measured, rel=0.1), phase


def test_generation_counts_weights_and_cache(config):
    model = VilaUForConditionalGeneration(config).to(torch.bfloat16)
    estimate = estimate_generation_memory(config, 3, "video", 2, prompt_length=10)
    assert estimate.size("weights") == sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    # keys and values, layers, rows of two branches, positions, width, bytes
    assert estimate.size("keys and values of the language model") == 2 * 4 * 6 * (10 + 2 * 64) * 192 * 2
    assert estimate.size("keys and values of the depth transformer") == 2 * 2 * 6 * 4 * 128 * 2
    assert estimate.size("code table") == 1024 * 128 * 2
    assert estimate.peak == sum(line.size for line in estimate.held) + max(line.size for line in estimate.phases)


def test_strategies_shard_weights_gradients_and_averages(config):
    estimates = {}
    for strategy in ("ddp", "fsdp", "zero2", "zero3"):
        estimates[strategy] = estimate_training_memory(config, gpus=4, strategy=strategy, length=68)
    with torch.device("meta"):
        model = VilaUForConditionalGeneration(config)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    # Rajbhandari et al., 2020, figure 1, with float32 weights: ZeRO-2 shards 12 of 16 bytes, ZeRO-3 all of them
    for strategy, whole, shared in (("ddp", 16, 0), ("fsdp", 0, 16), ("zero2", 4, 12), ("zero3", 0, 16)):
        estimate = estimates[strategy]
        size = sum(estimate.size(name) for name in ("weights", "gradients", "AdamW"))
        frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
        expected = trained * (whole + shared / 4)
        # frozen weights need at least a shard in bfloat16 and at most all in float32, with step counters
        assert expected + buffers + frozen / 2 < size < expected + buffers + 4 * frozen + 2000, strategy
    assert estimates["ddp"].size("DDP: buckets") == 4 * trained
    for name in ("image encoder", "quantizer", "pixel decoder"):  # FSDP2 does not shard the tower
        assert estimates["fsdp"].size(f"weights: {name}") == estimates["ddp"].size(f"weights: {name}") > 0
    gathered = sum(parameter.numel() for name, parameter in model.named_parameters() if "vision_tower" not in name)
    gathered -= sum(each.numel() for each in model.model.language_model.layers.parameters())
    gathered -= sum(each.numel() for each in model.depth_transformer.layers.parameters())
    assert estimates["fsdp"].size("FSDP2: gathered weights that are in no layer") == 2 * gathered


def test_only_adapters_are_trained(config):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=4, target_modules=r".*language_model.*\.(q|v)_proj")
    estimate = estimate_training_memory(config, length=68, lora_config=lora)
    trained = 4 * 2 * 4 * (192 + 192)  # rank, matrices, layers, widths
    assert estimate.size("gradients") == 4 * trained
    assert estimate.size("AdamW") == 8 * trained + 4 * 16
    whole = estimate_training_memory(config, length=68)
    assert estimate.size("weights") < 0.6 * whole.size("weights")  # frozen weights are bfloat16


def test_frozen_sub_models_have_no_gradients(config):
    estimate = estimate_training_memory(config, length=68, bf16=False, frozen_parts=("language_model",))
    model = VilaUForConditionalGeneration(config)
    trained = [*model.depth_transformer.parameters(), *model.model.multi_modal_projector.parameters()]
    assert estimate.size("gradients") == sum(parameter.nbytes for parameter in trained)


def test_text_needs_no_tower_and_the_configuration_is_not_changed(config):
    before = config.to_dict()
    estimate = estimate_training_memory(config, length=64, text_targets=64, bf16=False)
    assert estimate.size("vision tower") == 0 < estimate.size("losses")
    assert config.to_dict() == before and config.text_config._attn_implementation != "sdpa_without_mask"


def test_only_packed_rows_need_a_mask_over_pairs(config):
    sizes = [
        estimate_training_memory(config, length=512, bf16=False, packed=packed).size("language model, forward")
        for packed in (False, True)
    ]
    assert sizes[1] - sizes[0] >= 512 * 512


def test_int8_layers_take_half_of_bfloat16(config):
    pytest.importorskip("torchao")
    sizes = [
        estimate_generation_memory(config, prompt_length=8, int8=int8).size("weights: language model")
        for int8 in (False, True)
    ]
    layers = 4 * (4 * 192 * 192 + 3 * 192 * 512)  # weights of the linear layers
    assert sizes[0] - sizes[1] == pytest.approx(layers, rel=0.03)  # without the scales


def test_weights_of_a_published_model_are_those_of_the_paper():
    estimate = estimate_generation_memory(load_config("vilau-7b-256"), prompt_length=8)
    assert estimate.size("weights: language model") + estimate.size("weights: text head") == pytest.approx(
        2 * 6.74e9, rel=1e-3
    )  # LLaMA-2-7B has 6.74 billion parameters


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (estimate_training_memory, {"strategy": "zero1"}, "`strategy` must be one of ddp, fsdp, zero2, zero3, got"),
        (estimate_training_memory, {"gpus": 0}, "`gpus` must be an integer of at least 1, got 0"),
        (estimate_training_memory, {"length": 8, "text_targets": 9}, r"`text_targets` must be in .* \[0, 8\], got 9"),
        (estimate_training_memory, {"frozen_parts": ("tower",)}, "`frozen_parts` must be among .*, got tower"),
        (estimate_generation_memory, {"generation_mode": "text"}, '`generation_mode` must be "image" or "video"'),
        (estimate_generation_memory, {"batch_size": 0}, "`batch_size` must be an integer of at least 1, got 0"),
        (estimate_training_memory, {"length": 10**20}, "`rows` . `length` must be at most 1,000,000,000,000"),
        (estimate_generation_memory, {"batch_size": 10**20}, "`batch_size` must be at most 1,000,000,000,000"),
        (estimate_generation_memory, {"prompt_length": 1000}, "exceed the language model's 1024 positions"),
    ],
)
def test_rejects_unknown_names_and_counts_out_of_range(config, function, settings, message):
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


def test_command_names_a_missing_checkpoint(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["estimate", str(tmp_path / "nowhere")])
    assert stop.value.code == 1 and "nowhere" in capsys.readouterr().err


def test_page_shows_the_recorded_measurements():
    results = json.loads(bench_memory.RESULTS.read_text())["results"]
    page = bench_memory.PAGE.read_text()
    assert bench_memory.section("measured").search(page)[2].strip() == bench_memory.measured_table(results)
    assert all(abs(each["computed"] / each["measured"] - 1) < 0.1 for each in results)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["generation", "training"])
def test_page_shows_the_results_of_the_functions(name):
    table = getattr(bench_memory, f"{name}_table")()
    assert bench_memory.section(name).search(bench_memory.PAGE.read_text())[2].strip() == table


def test_code_block_of_the_page_runs(capsys):
    block = bench_memory.PAGE.read_text().split("```python\n")[1].split("```")[0]
    exec(block, {})
    assert "generation of 16 x an image" in capsys.readouterr().out
