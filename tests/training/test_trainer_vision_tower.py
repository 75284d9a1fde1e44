import pytest
import torch
from torch.utils.data import Dataset
from transformers import SiglipConfig, SiglipModel

from vilau_hf import VilaUVisionTowerForPreTraining
from vilau_hf.training import VisionTowerTrainer, VisionTowerTrainingArguments

from ..conftest import TEXT_TOWER, VISION


class Pictures(Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        color = torch.rand(3, 1, 1, generator=generator) * 2 - 1
        return {"pixel_values": color.expand(3, 16, 16), "input_ids": torch.randint(1, 40, (8,), generator=generator)}


def collate(records):
    batch = {name: torch.stack([record[name] for record in records]) for name in records[0]}
    return {**batch, "return_loss": True}


@pytest.fixture
def tower():
    siglip = SiglipModel(SiglipConfig(vision_config=VISION["encoder_config"], text_config=TEXT_TOWER))
    rest = {name: value for name, value in VISION.items() if name != "encoder_config"}
    return VilaUVisionTowerForPreTraining.from_siglip(siglip, **rest)


def train(tower, tmp_path, **kwargs):
    arguments = VisionTowerTrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
        **{"max_steps": 3, "learning_rate": 1e-2, **kwargs},
    )
    trainer = VisionTowerTrainer(model=tower, args=arguments, train_dataset=Pictures(), data_collator=collate)
    trainer.train()
    return trainer


def test_losses_are_logged_and_fall(tower, tmp_path):
    logs = train(tower, tmp_path, max_steps=30, learning_rate=3e-3).state.log_history[:-1]
    for log in logs:
        expected = log["contrastive_loss"] + log["reconstruction_loss"] + 0.25 * log["commitment_loss"]
        assert log["loss"] == pytest.approx(expected, rel=1e-2)
    assert logs[-1]["reconstruction_loss"] < 0.7 * logs[0]["reconstruction_loss"]


@pytest.mark.parametrize("gradient_accumulation_steps", [1, 2])
def test_logged_parts_are_means_over_the_step(tower, tmp_path, gradient_accumulation_steps):
    log = train(tower, tmp_path, gradient_accumulation_steps=gradient_accumulation_steps, max_steps=1)
    log = log.state.log_history[0]
    expected = log["contrastive_loss"] + log["reconstruction_loss"] + 0.25 * log["commitment_loss"]
    assert log["loss"] == pytest.approx(expected, rel=1e-2)


def moved(tower, before):
    return {name for name, tensor in tower.state_dict().items() if not torch.equal(tensor, before[name])}


def test_by_default_all_but_the_text_encoder_moves(tower, tmp_path):
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    names = moved(train(tower, tmp_path).model, before)
    assert not any(name.startswith("text_model.") for name in names)
    for prefix in ("vision_tower.image_encoder.", "vision_tower.pixel_decoder.", "image_pooler.", "logit_"):
        assert any(name.startswith(prefix) for name in names), prefix
    assert "vision_tower.quantizer.codebook.weight" in names


def test_codes_stay_while_the_text_encoder_follows_them(tower, tmp_path):
    train(tower, tmp_path)
    pixels = torch.stack([Pictures()[index]["pixel_values"] for index in range(4)])
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    codes = tower.eval().vision_tower.encode(pixels).codes
    tower.config.reconstruction_loss_weight = 0.0
    trainer = train(tower, tmp_path, tune_encoder=False, tune_codebook=False, tune_text_model=True)
    assert "reconstruction_loss" not in trainer.state.log_history[0]
    names = moved(tower, before)
    assert names and all(name.startswith(("text_model.", "image_pooler.", "logit_")) for name in names)
    assert torch.equal(tower.eval().vision_tower.encode(pixels).codes, codes)


def test_scale_and_bias_of_the_logits_get_their_own_rate(tower, tmp_path):
    trainer = train(tower, tmp_path, logit_learning_rate=0.5, lr_scheduler_type="constant")
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert rates[id(tower.logit_scale)] == rates[id(tower.logit_bias)] == 0.5
    assert rates[id(tower.vision_tower.post_quant_conv.weight)] == 1e-2
