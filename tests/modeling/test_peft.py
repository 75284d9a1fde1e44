"""Low-rank adapters on the language model, with projector and depth transformer trained in full."""

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model

from vilau_hf import VilaUForConditionalGeneration


TARGETS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
WHOLE = ["multi_modal_projector", "depth_transformer"]
CONFIGS = {
    "lora": LoraConfig(r=4, target_modules=TARGETS, modules_to_save=WHOLE),
    "dora": LoraConfig(r=4, target_modules=TARGETS, modules_to_save=WHOLE, use_dora=True),
    # peft cannot merge IA3 if other modules are trained in full
    "ia3": IA3Config(
        target_modules=r".*language_model.*\.(k|v|down)_proj",
        feedforward_modules=r".*language_model.*\.down_proj",
    ),
}


@pytest.fixture
def batch():
    ids = torch.randint(3, 50, (2, 4))
    ids = torch.cat([ids, torch.tensor([[54] + [58] * 16 + [55, 2]] * 2)], 1)
    return {"input_ids": ids, "labels": ids, "codes": torch.randint(24, (2, 16, 3))}


def draw(model):
    settings = {"generation_mode": "image", "do_sample": False, "guidance_scale": 2.0}
    return model.generate(input_ids=torch.tensor([[1, 5, 6]]), **settings)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_adapters_can_be_trained_saved_reloaded_and_merged(model, batch, tmp_path, name):
    model.save_pretrained(tmp_path / "base")
    before = draw(model)
    adapted = get_peft_model(model, CONFIGS[name])
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert not [name for name in trained if "vision_tower" in name or "original_module" in name]
    assert all("language_model" in name or any(whole in name for whole in WHOLE) for name in trained)

    optimizer = torch.optim.Adam(
        [p for p in adapted.parameters() if p.requires_grad], lr=0.05 if name == "ia3" else 0.02
    )
    losses = []
    for _ in range(8):
        loss = adapted(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    adapted.eval()
    after = draw(adapted)
    assert not torch.equal(after, before)

    adapted.save_pretrained(tmp_path / "adapter")
    base = VilaUForConditionalGeneration.from_pretrained(tmp_path / "base").eval()
    base.generation_config = model.generation_config
    reloaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert torch.equal(draw(reloaded), after)
    with torch.no_grad():
        logits = reloaded(batch["input_ids"], codes=batch["codes"]).logits
        merged = reloaded.merge_and_unload()
        assert isinstance(merged, VilaUForConditionalGeneration)
        torch.testing.assert_close(
            merged(batch["input_ids"], codes=batch["codes"]).logits, logits, atol=1e-4, rtol=1e-4
        )


def test_without_the_adapter_the_logits_are_the_original_ones(model, batch):
    with torch.no_grad():
        before = model(batch["input_ids"], codes=batch["codes"]).logits
        adapted = get_peft_model(model, CONFIGS["lora"])
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
        assert not torch.allclose(adapted(batch["input_ids"], codes=batch["codes"]).logits, before)
        with adapted.disable_adapter():
            torch.testing.assert_close(adapted(batch["input_ids"], codes=batch["codes"]).logits, before)
