"""Batches in which each row has a LoRA adapter of its choice."""

import pytest
import torch
from peft import PeftModel

from .test_adapters_vilau import ATTENTION, adapted, fresh


PROMPTS = torch.tensor([[1, 5, 6], [1, 7, 8], [1, 9, 4]])
NAMES = ["a", "__base__", "b"]
# Language model, and the layers of the depth transformer that see the rows of the batch.
TARGETS = rf"{ATTENTION}|depth_transformer\.(layers\..*(qkv|proj|fc1|fc2)|in_proj_hidden|code_head)"
SETTINGS = {
    "no guidance": {"generation_mode": "image"},
    "guidance": {"generation_mode": "image", "guidance_scale": 2.0},
    "guidance a row": {"generation_mode": "image", "guidance_scale": [1.5, 3.0, 2.0]},
    "several results": {"generation_mode": "image", "guidance_scale": 2.0, "num_return_sequences": 2},
    "video": {"generation_mode": "video", "guidance_scale": 2.0, "num_frames": 2},
    "text": {"max_new_tokens": 6, "do_sample": False},
    "beams": {"max_new_tokens": 6, "do_sample": False, "num_beams": 2},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of two adapters, by name."""
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture
def both(config, folders):
    """A model with two adapters, of which one is active."""
    model = fresh(config)
    for seed, name in enumerate("ab"):
        if not (folders / name).exists():
            adapted(config, seed, r=2, target_modules=TARGETS).save_pretrained(folders / name)
        model.load_lora_weights(folders / name, name)
    return model


def alone(model, row, name, **settings):
    """Draws one row with one adapter."""
    if isinstance(settings.get("guidance_scale"), list):
        settings["guidance_scale"] = settings["guidance_scale"][row]
    active = model.get_active_adapters()
    if name == "__base__":
        model.set_adapters(active, 0.0)
    else:
        model.set_adapters(name)
    result = (
        model.generate(PROMPTS[row : row + 1], seed=row, **settings)
        if is_visual(settings)
        else model.generate(PROMPTS[row : row + 1], **settings)
    )
    model.set_adapters(active)
    return result


def is_visual(settings):
    return "generation_mode" in settings


@pytest.mark.parametrize("kind", SETTINGS)
def test_each_row_equals_the_row_drawn_alone_with_its_adapter(both, kind):
    settings = SETTINGS[kind]
    results = settings.get("num_return_sequences", 1)
    seeds = [row + result for row in range(3) for result in range(results)]
    seeded = {"seed": seeds} if is_visual(settings) else {}
    mixed = both.generate(PROMPTS, adapter_names=NAMES, **settings, **seeded).unflatten(0, (3, results))
    for row, name in enumerate(NAMES):
        expected = alone(both, row, name, **settings)
        # Texts that end before the others are padded.
        assert torch.equal(mixed[row][:, : expected.shape[1]], expected), (row, name)
    plain = both.generate(PROMPTS, **settings, **seeded)
    assert not torch.equal(mixed.flatten(0, 1), plain)
    assert both.get_active_adapters() == ["b"]


def test_each_row_of_three_branches_equals_the_row_drawn_alone(both):
    ids = torch.tensor([[1, 54] + [58] * 16 + [55, 5], [1, 54] + [58] * 16 + [55, 7]])
    image_only = torch.tensor([[1, 54] + [58] * 16 + [55]] * 2)
    codes = torch.randint(24, (2, 16, 3))
    settings = {"generation_mode": "image", "guidance_scale": 3.0, "image_guidance_scale": 2.0, "do_sample": False}
    mixed = both.generate(ids, codes=codes, image_prompt_ids=image_only, adapter_names=["b", "a"], **settings)
    for row, name in enumerate("ba"):
        both.set_adapters(name)
        one = slice(row, row + 1)
        expected = both.generate(ids[one], codes=codes[one], image_prompt_ids=image_only[one], **settings)
        assert torch.equal(mixed[one], expected)


def test_each_row_of_interleaved_output_equals_the_row_drawn_alone(both):
    ids = torch.tensor([[1, 5, 54], [1, 7, 9]])  # one row begins inside of an image
    settings = {"generation_mode": "interleaved", "guidance_scale": 2.0, "do_sample": False, "max_new_tokens": 24}
    settings["visual_do_sample"] = False
    mixed = both.generate(ids, adapter_names=["b", "a"], **settings)
    for row, name in enumerate("ba"):
        both.set_adapters(name)
        expected = both.generate(ids[row : row + 1], **settings)
        length = expected.sequences.shape[1]
        assert torch.equal(mixed.sequences[row : row + 1, :length], expected.sequences)
        assert torch.equal(mixed.visual_codes[row : row + 1, :length], expected.visual_codes)


@pytest.mark.parametrize("kind", ["guidance", "several results", "text", "beams"])
def test_a_peft_model_draws_the_same_rows(config, both, folders, kind):
    settings = SETTINGS[kind] | ({"seed": 0} if is_visual(SETTINGS[kind]) else {})
    expected = both.generate(PROMPTS, adapter_names=NAMES, **settings)
    model = PeftModel.from_pretrained(fresh(config), folders / "a", adapter_name="a")
    model.load_adapter(folders / "b", "b")
    model.eval()
    inputs = {"input_ids": PROMPTS} if kind != "several results" else {"inputs": PROMPTS}
    assert torch.equal(model.generate(**inputs, adapter_names=NAMES, **settings), expected)


def test_modules_trained_in_full_by_the_active_adapter_do_not_change_other_rows(config, tmp_path):
    model = fresh(config)
    for seed, name in enumerate("ab"):
        adapted(config, seed, r=2, target_modules=ATTENTION).save_pretrained(tmp_path / name)
        model.load_lora_weights(tmp_path / name, name)
    expected = model.generate(PROMPTS, adapter_names=NAMES, seed=0, **SETTINGS["guidance"])
    adapted(config).save_pretrained(tmp_path / "full")
    model.load_lora_weights(tmp_path / "full", "full")
    active = model.generate(PROMPTS, seed=0, **SETTINGS["guidance"])
    assert torch.equal(model.generate(PROMPTS, adapter_names=NAMES, seed=0, **SETTINGS["guidance"]), expected)
    assert torch.equal(model.generate(PROMPTS, seed=0, **SETTINGS["guidance"]), active)
    with pytest.raises(ValueError, match="'full' has weights that were trained in full .multi_modal_projector, depth"):
        model.generate(PROMPTS, adapter_names=["a", "b", "full"], **SETTINGS["guidance"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], "must have one name for each of the 3 prompts"),
        ([], "must have one name for each of the 3 prompts"),
        (["a", "b", "c"], r"must be among the loaded adapters \['a', 'b'\], got 'c'"),
        ("abc", "`adapter_names` must be"),
        (["a", "b", 3], "`adapter_names` must be"),
    ],
)
def test_rejects_names_that_do_not_fit(both, names, message):
    for settings in (SETTINGS["guidance"], SETTINGS["text"]):
        with pytest.raises((ValueError, TypeError), match=message):
            both.generate(PROMPTS, adapter_names=names, **settings)


def test_rejects_names_without_adapters(model):
    with pytest.raises(ValueError, match=r"must be among the loaded adapters \[\], got 'a'"):
        model.generate(PROMPTS, adapter_names=["a", "a", "a"], **SETTINGS["guidance"])


def test_rejects_adapters_and_states_that_rows_cannot_choose(config, both):
    with pytest.raises(ValueError, match='`adapter_names` is not supported with `visual_decoding="parallel"`'):
        both.generate(PROMPTS, adapter_names=NAMES, visual_decoding="parallel", **SETTINGS["guidance"])
    both.train()
    with pytest.raises(ValueError, match="needs a model in evaluation mode"):
        both.generate(PROMPTS, adapter_names=NAMES, **SETTINGS["guidance"])
    both.eval().compile_generation(backend="eager")
    with pytest.raises(ValueError, match="does not work on compiled positions"):
        both.generate(PROMPTS, adapter_names=NAMES, **SETTINGS["guidance"])
    for settings, message in (
        ({"target_modules": r".*multi_modal_projector.*\d"}, "changes `model.multi_modal_projector.linear_1`"),
        ({"target_modules": ["in_proj_code"]}, "changes `depth_transformer.in_proj_code`"),
        ({"target_modules": ATTENTION, "use_dora": True}, "must be a LoRA adapter without DoRA"),
    ):
        adapter = adapted(config, r=2, **settings)
        with pytest.raises(ValueError, match=message):
            adapter.generate(input_ids=PROMPTS, adapter_names=["default"] * 3, **SETTINGS["guidance"])


def test_rejects_merged_adapters(config):
    adapter = adapted(config, r=2, target_modules=ATTENTION)
    adapter.merge_adapter()
    base = adapter.get_base_model()
    with pytest.raises(ValueError, match="they are merged into the weights"):
        base.generate(PROMPTS, adapter_names=["default"] * 3, **SETTINGS["guidance"])
    adapter.unmerge_adapter()
    with adapter.disable_adapter(), pytest.raises(ValueError, match="they are disabled"):
        base.generate(PROMPTS, adapter_names=["default"] * 3, **SETTINGS["guidance"])
