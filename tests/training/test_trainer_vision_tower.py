from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import SiglipConfig, SiglipModel, TrainerCallback, TrainingArguments

from vilau_hf import VilaUVisionTowerForPreTraining
from vilau_hf.evaluation.metrics import codebook_perplexity, codebook_usage
from vilau_hf.training import VisionTowerTrainer, VisionTowerTrainingArguments

from ..conftest import TEXT_TOWER, VISION
from .judge_weights import squeeze_weights  # noqa: F401
from .towers import SIDE, tower_config


class Pictures(Dataset):
    def __init__(self, side=16):
        self.side = side

    def __len__(self):
        return 32

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        color = torch.rand(3, 1, 1, generator=generator) * 2 - 1
        return {
            "pixel_values": color.expand(3, self.side, self.side),
            "input_ids": torch.randint(1, 40, (8,), generator=generator),
        }


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


# perceptual and adversarial losses, averaged weights

JUDGED = {
    "perceptual_loss_weight": 0.5,
    "perceptual_network": "squeeze",
    "adversarial_loss_weight": 0.8,
    "discriminator_channels": 4,
    "discriminator_num_layers": 2,
}


def make_trainer(tmp_path, callbacks=None, seed=0, config=None, **kwargs):
    torch.manual_seed(seed)
    tower = VilaUVisionTowerForPreTraining(tower_config(**(config or {})))
    arguments = VisionTowerTrainingArguments(
        output_dir=str(tmp_path),
        **{
            "per_device_train_batch_size": 8,
            "max_steps": 3,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            **kwargs,
        },
    )
    pictures = Pictures(SIDE)
    return VisionTowerTrainer(
        model=tower,
        args=arguments,
        train_dataset=pictures,
        eval_dataset=pictures,
        data_collator=collate,
        callbacks=callbacks,
    )


def whole_state(trainer):
    """Everything that training moves: tower, discriminator, averaged weights, and the optimizer."""
    state = {f"tower.{name}": tensor for name, tensor in trainer.tower.state_dict().items()}
    state.update({f"d.{name}": tensor for name, tensor in trainer.discriminator.state_dict().items()})
    state.update({f"ema.{name}": tensor for name, tensor in trainer.ema.module.state_dict().items()})
    for index, values in trainer.optimizer.state_dict()["state"].items():
        state.update({f"optimizer.{index}.{name}": value for name, value in values.items()})
    return {name: tensor.clone() for name, tensor in state.items()}


def test_every_loss_is_logged_from_its_start_on(tmp_path, squeeze_weights):  # noqa: F811
    trainer = make_trainer(tmp_path, max_steps=4, adversarial_start_step=2, **JUDGED)
    trainer.train()
    logs = trainer.state.log_history[:4]
    adversarial = {"adversarial_loss", "adversarial_weight", "discriminator_loss"}
    for step, log in enumerate(logs):
        expected = log["contrastive_loss"] + log["reconstruction_loss"] + 0.25 * log["commitment_loss"]
        expected += 0.5 * log["perceptual_loss"]
        assert adversarial.isdisjoint(log) if step < 2 else adversarial <= set(log)
        if step >= 2:
            expected += 0.8 * log["adversarial_weight"] * log["adversarial_loss"] + log["discriminator_loss"]
        assert log["loss"] == pytest.approx(expected, rel=1e-4)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] > 0 and "eval_perceptual_loss" in trainer.state.log_history[-1]


def test_a_part_that_sets_in_between_two_logs_is_the_mean_over_its_steps(tmp_path):
    settings = {name: value for name, value in JUDGED.items() if "perceptual" not in name}
    often = make_trainer(tmp_path, max_steps=4, adversarial_start_step=2, **settings)
    often.train()
    seldom = make_trainer(tmp_path, max_steps=4, adversarial_start_step=2, logging_steps=4, **settings)
    seldom.train()
    expected = sum(log["discriminator_loss"] for log in often.state.log_history[2:4]) / 2
    assert seldom.state.log_history[0]["discriminator_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_discriminator_stands_still_before_its_start_and_moves_after(tmp_path):
    settings = {name: value for name, value in JUDGED.items() if "perceptual" not in name}
    trainer = make_trainer(tmp_path, adversarial_start_step=3, weight_decay=0.1, **settings)
    before = {name: tensor.clone() for name, tensor in trainer.discriminator.state_dict().items()}
    trainer.train()
    for name, tensor in trainer.discriminator.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    trainer = make_trainer(tmp_path, adversarial_start_step=2, **settings)
    trainer.train()
    names = moved(trainer.discriminator, before)
    assert {name for name in before if name.endswith("weight")} <= names


def test_resumed_training_is_bit_equal(tmp_path, squeeze_weights):  # noqa: F811
    settings = {
        **JUDGED,
        "max_steps": 4,
        "adversarial_start_step": 1,
        "ema_decay": 0.7,
        "gradient_accumulation_steps": 2,
    }
    settings.update(per_device_train_batch_size=4, lr_scheduler_type="cosine")
    straight = make_trainer(tmp_path / "straight", **settings)
    straight.train()
    make_trainer(tmp_path / "parts", save_strategy="steps", save_steps=2, **settings).train()
    resumed = make_trainer(tmp_path / "parts", seed=3, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    expected, actual = whole_state(straight), whole_state(resumed)
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


def test_a_checkpoint_is_a_tower_and_the_saved_model_has_no_discriminator(tmp_path, squeeze_weights):  # noqa: F811
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=3, ema_decay=0.5, **JUDGED)
    trainer.train()
    trainer.save_model(tmp_path / "final")
    expected = {name: tensor for name, tensor in trainer.tower.state_dict().items()}
    averaged = trainer.ema.module.state_dict()
    for folder, weights in (
        ("checkpoint-3", expected),
        ("checkpoint-3/ema", averaged),
        ("final", expected),
        ("final/ema", averaged),
    ):
        assert set(load_file(tmp_path / folder / "model.safetensors")) == set(weights)
        loaded, info = VilaUVisionTowerForPreTraining.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not any(info.values()), info
        for name, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, weights[name]), name
    saved = load_file(tmp_path / "checkpoint-3" / "discriminator.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in trainer.discriminator.state_dict().items())
    assert not list((tmp_path / "final").rglob("*discriminator*"))


def test_what_is_pushed_to_the_hub_is_a_tower_alone(tmp_path):
    """`push_to_hub` saves with these arguments before it uploads."""
    settings = {name: value for name, value in JUDGED.items() if "perceptual" not in name}
    trainer = make_trainer(tmp_path, ema_decay=0.5, **settings)
    trainer.save_model(_internal_call=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "ema",
        "model.safetensors",
        "training_args.bin",
    }
    assert trainer.model is not trainer.tower  # which it is while it is saved


def test_a_checkpoint_without_averaged_weights_is_refused(tmp_path):
    make_trainer(tmp_path, save_strategy="steps", save_steps=3).train()
    with pytest.raises(ValueError, match="ema has no weights: expected model.safetensors"):
        make_trainer(tmp_path, ema_decay=0.5, max_steps=4).train(resume_from_checkpoint=True)


def test_the_best_model_is_loaded_into_the_tower(tmp_path):
    settings = {name: value for name, value in JUDGED.items() if "perceptual" not in name}
    trainer = make_trainer(
        tmp_path,
        save_strategy="steps",
        eval_strategy="steps",
        save_steps=1,
        eval_steps=1,
        load_best_model_at_end=True,
        learning_rate=10.0,
        ema_decay=0.5,
        **settings,
    )
    trainer.train()
    assert trainer.state.best_global_step == 1
    for folder, tower in ((".", trainer.tower), ("ema", trainer.ema.module)):
        best = VilaUVisionTowerForPreTraining.from_pretrained(Path(trainer.state.best_model_checkpoint) / folder)
        for name, tensor in best.state_dict().items():
            assert torch.equal(tower.state_dict()[name], tensor), name


def test_averaged_weights_are_the_moving_average_of_the_steps(tmp_path):
    class Record(TrainerCallback):
        steps = []

        def on_step_end(self, args, state, control, model=None, **kwargs):
            self.steps.append(model.vision_tower.post_quant_conv.weight.detach().clone())

    trainer = make_trainer(tmp_path, callbacks=[Record()], max_steps=4, ema_decay=0.6)
    trainer.train()
    expected = Record.steps[0]
    for weight in Record.steps[1:]:
        expected = 0.6 * expected + 0.4 * weight
    torch.testing.assert_close(trainer.ema.module.vision_tower.post_quant_conv.weight, expected)
    quantizer = trainer.ema.module.vision_tower.quantizer
    assert torch.equal(quantizer.cluster_sum, trainer.tower.vision_tower.quantizer.cluster_sum)


def test_gradients_of_tower_and_discriminator_are_clipped_apart(tmp_path):
    settings = {name: value for name, value in JUDGED.items() if "perceptual" not in name}
    trainer = make_trainer(tmp_path, max_grad_norm=2.0, **settings)
    for module, value in ((trainer.tower, 1e-3), (trainer.discriminator, 1e3)):
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, value)
    norm = trainer._clip_grad_norm(trainer.model)

    def norm_of(module):
        return torch.stack([parameter.grad.norm() for parameter in module.parameters()]).norm()

    torch.testing.assert_close(norm_of(trainer.tower), norm)
    assert norm < 2.0
    torch.testing.assert_close(norm_of(trainer.discriminator), torch.tensor(2.0))


def test_the_discriminator_learns_to_tell_a_tower_that_stands_still(tmp_path):
    settings = {name: value for name, value in JUDGED.items() if "perceptual" not in name}
    settings.update(learning_rate=0.0, discriminator_learning_rate=2e-3, tune_codebook=False, max_steps=25)
    trainer = make_trainer(tmp_path, **settings)
    trainer.train()
    losses = [log["discriminator_loss"] for log in trainer.state.log_history[:-1]]
    assert losses[0] > 0.9 and losses[-1] < 0.3


def test_the_discriminator_gets_its_rate_and_betas(tmp_path):
    settings = {name: value for name, value in JUDGED.items() if "perceptual" not in name}
    settings.update(discriminator_learning_rate=0.25, discriminator_adam_beta1=0.5, weight_decay=0.1)
    trainer = make_trainer(tmp_path, **settings)
    groups = {id(p): group for group in trainer.create_optimizer().param_groups for p in group["params"]}
    for parameter in trainer.discriminator.parameters():
        assert groups[id(parameter)]["lr"] == 0.25 and groups[id(parameter)]["betas"] == (0.5, 0.999)
    for parameter in trainer.tower.vision_tower.pixel_decoder.parameters():
        assert groups[id(parameter)]["lr"] == 1e-3 and groups[id(parameter)]["betas"] == (0.9, 0.999)
    with pytest.raises(ValueError, match="`discriminator_adam_beta1`.* need an Adam as `optim`, got 'sgd'"):
        make_trainer(tmp_path, optim="sgd", **settings).create_optimizer()


def test_activation_checkpointing_changes_nothing_but_memory(tmp_path):
    settings = {name: value for name, value in JUDGED.items() if "perceptual" not in name}
    plain = make_trainer(tmp_path, ema_decay=0.5, **settings)
    plain.train()
    checkpointed = make_trainer(tmp_path, ema_decay=0.5, activation_checkpointing=True, **settings)
    checkpointed.train()
    assert checkpointed.tower.vision_tower.pixel_decoder.gradient_checkpointing
    assert all(layer.gradient_checkpointing for layer in checkpointed.tower.vision_tower.image_encoder.layers)
    actual = whole_state(checkpointed)
    for name, tensor in whole_state(plain).items():
        torch.testing.assert_close(actual[name], tensor, msg=lambda text, name=name: f"{name}: {text}")


# recipes and logs


def test_reconstruction_alone_needs_no_texts_and_moves_what_it_reaches(tmp_path):
    trainer = make_trainer(tmp_path, config={"contrastive_loss_weight": 0.0})
    trainer.data_collator = lambda records: {
        "pixel_values": torch.stack([record["pixel_values"] for record in records]),
        "return_loss": True,
    }
    before = {name: tensor.clone() for name, tensor in trainer.tower.state_dict().items()}
    trainer.train()
    assert "contrastive_loss" not in trainer.state.log_history[0]
    names = moved(trainer.tower, before)
    assert names and all(name.startswith("vision_tower.") for name in names)


def test_the_softmax_loss_trains_the_scale_and_leaves_the_bias(tmp_path):
    trainer = make_trainer(tmp_path, config={"contrastive_loss_type": "softmax"})
    before = {name: tensor.clone() for name, tensor in trainer.tower.state_dict().items()}
    trainer.train()
    names = moved(trainer.tower, before)
    assert "logit_scale" in names and "logit_bias" not in names


def test_use_of_the_codebook_is_logged_for_each_depth(tmp_path):
    seen = []
    trainer = make_trainer(tmp_path, logging_steps=2, max_steps=2)
    trainer.tower.vision_tower.quantizer.register_forward_hook(lambda module, args, output: seen.append(output[1]))
    trainer.train()
    log, codes = trainer.state.log_history[0], torch.cat(seen)
    for depth in range(3):
        of_depth = codes[..., depth]
        assert log[f"codebook_usage_depth_{depth + 1}"] == pytest.approx(codebook_usage(of_depth, 24))
        assert log[f"codebook_perplexity_depth_{depth + 1}"] == pytest.approx(
            codebook_perplexity(of_depth, 24), rel=1e-4
        )
    metrics = trainer.evaluate()
    assert "eval_codebook_usage_depth_3" in trainer.state.log_history[-1] and metrics["eval_loss"] > 0


def test_logs_of_others_leave_the_parts_alone(tmp_path):
    class Speaks(TrainerCallback):
        trainer = None

        def on_step_begin(self, args, state, control, **kwargs):
            self.trainer.log({"something": 1.0})

    speaks = Speaks()
    trainer = make_trainer(tmp_path, callbacks=[speaks], logging_steps=3)
    speaks.trainer = trainer
    trainer.train()
    own, others = ([log for log in trainer.state.log_history if name in log] for name in ("loss", "something"))
    assert len(others) == 3 and not any("contrastive_loss" in log for log in others)
    expected = own[0]["contrastive_loss"] + own[0]["reconstruction_loss"] + 0.25 * own[0]["commitment_loss"]
    assert own[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_siglip_is_trained_by_its_own_loss(tmp_path):
    siglip = SiglipModel(SiglipConfig(vision_config=VISION["encoder_config"], text_config=TEXT_TOWER))
    batch = collate([Pictures()[index] for index in range(8)])
    expected = siglip(**batch).loss.item()
    trainer = train(siglip, tmp_path, max_steps=1, learning_rate=0.0, train_sampling_strategy="sequential")
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        ({"contrastive_loss_weight": 0.0, "reconstruction_loss_weight": 0.0}, {}, "are both 0: nothing to train"),
        (
            {"reconstruction_loss_weight": 0.0},
            {"adversarial_loss_weight": 1.0},
            "must be 0 where the weight of the reconstruction loss is",
        ),
        ({"mse_loss_weight": 0.0}, {"adversarial_loss_weight": 1.0}, "weights are all 0"),
        ({}, {"perceptual_loss_weight": -1.0}, "`perceptual_loss_weight` must be at least 0, got -1.0"),
        ({}, {"ema_decay": 1.0}, "`ema_decay` must be between 0 and 1, got 1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, config, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, config=config, **arguments)


def test_other_arguments_are_refused(tower, tmp_path):
    with pytest.raises(TypeError, match="`args` must be VisionTowerTrainingArguments, got TrainingArguments"):
        VisionTowerTrainer(tower, TrainingArguments(str(tmp_path)))


def test_several_gpus_in_one_process_are_refused(tower, tmp_path):
    args = VisionTowerTrainingArguments(str(tmp_path), use_cpu=True)
    args._n_gpu = 2
    with pytest.raises(ValueError, match=r"`args.n_gpu` must be at most 1, got 2: .* `torchrun`"):
        VisionTowerTrainer(tower, args)


def test_shards_are_refused(tower, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    args = VisionTowerTrainingArguments(str(tmp_path), use_cpu=True)
    monkeypatch.setitem(PartialState._shared_state, "distributed_type", DistributedType.MULTI_GPU)
    with pytest.raises(
        ValueError, match=r"`distributed_type` of accelerate must be NO, MULTI_GPU or MULTI_CPU, got FSDP"
    ):
        VisionTowerTrainer(tower, args)


def test_siglip_has_nothing_to_judge(tmp_path):
    siglip = SiglipModel(SiglipConfig(vision_config=VISION["encoder_config"], text_config=TEXT_TOWER))
    with pytest.raises(ValueError, match="a model without a pixel decoder"):
        train(siglip, tmp_path, adversarial_loss_weight=1.0)
