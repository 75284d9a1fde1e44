import re
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from transformers import SiglipConfig, SiglipModel, TrainerCallback, TrainingArguments

from vilau_hf import VilaUVisionTowerForPreTraining
from vilau_hf.evaluation.metrics import codebook_perplexity, codebook_usage
from vilau_hf.training import VisionTowerTrainer, VisionTowerTrainingArguments

from ..conftest import TEXT_TOWER, VISION
from .towers import SIDE, tower_config


class ColoredImages(Dataset):
    """Images of one random colour, each with random ids of a caption."""

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
    trainer = VisionTowerTrainer(model=tower, args=arguments, train_dataset=ColoredImages(), data_collator=collate)
    trainer.train()
    return trainer


def test_logs_losses_that_fall(tower, tmp_path):
    logs = train(tower, tmp_path, max_steps=30, learning_rate=3e-3).state.log_history[:-1]
    for log in logs:
        expected = log["contrastive_loss"] + log["reconstruction_loss"] + 0.25 * log["commitment_loss"]
        assert log["loss"] == pytest.approx(expected, rel=1e-2)
    assert logs[-1]["reconstruction_loss"] < 0.7 * logs[0]["reconstruction_loss"]


@pytest.mark.parametrize("gradient_accumulation_steps", [1, 2])
def test_logged_losses_are_means_over_the_step(tower, tmp_path, gradient_accumulation_steps):
    log = train(tower, tmp_path, gradient_accumulation_steps=gradient_accumulation_steps, max_steps=1)
    log = log.state.log_history[0]
    expected = log["contrastive_loss"] + log["reconstruction_loss"] + 0.25 * log["commitment_loss"]
    assert log["loss"] == pytest.approx(expected, rel=1e-2)


def moved(tower, before):
    return {name for name, tensor in tower.state_dict().items() if not torch.equal(tensor, before[name])}


def test_trains_all_but_the_text_encoder_by_default(tower, tmp_path):
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    names = moved(train(tower, tmp_path).model, before)
    assert not any(name.startswith("text_model.") for name in names)
    for prefix in ("vision_tower.image_encoder.", "vision_tower.pixel_decoder.", "image_pooler.", "logit_"):
        assert any(name.startswith(prefix) for name in names), prefix
    assert "vision_tower.quantizer.codebook.weight" in names


def test_codes_stay_while_only_the_text_encoder_is_trained(tower, tmp_path):
    train(tower, tmp_path)
    pixels = torch.stack([ColoredImages()[index]["pixel_values"] for index in range(4)])
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    codes = tower.eval().vision_tower.encode(pixels).codes
    tower.config.reconstruction_loss_weight = 0.0
    trainer = train(tower, tmp_path, tune_encoder=False, tune_codebook=False, tune_text_model=True)
    assert "reconstruction_loss" not in trainer.state.log_history[0]
    names = moved(tower, before)
    assert names and all(name.startswith(("text_model.", "image_pooler.", "logit_")) for name in names)
    assert torch.equal(tower.eval().vision_tower.encode(pixels).codes, codes)


def test_scale_and_bias_of_the_logits_have_their_learning_rate(tower, tmp_path):
    trainer = train(tower, tmp_path, logit_learning_rate=0.5, lr_scheduler_type="constant")
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert rates[id(tower.logit_scale)] == rates[id(tower.logit_bias)] == 0.5
    assert rates[id(tower.vision_tower.post_quant_conv.weight)] == 1e-2


# perceptual and adversarial losses, averaged weights

ADVERSARIAL = {
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
    images = ColoredImages(SIDE)
    return VisionTowerTrainer(
        model=tower,
        args=arguments,
        train_dataset=images,
        eval_dataset=images,
        data_collator=collate,
        callbacks=callbacks,
    )


def whole_state(trainer):
    """Returns all tensors that training changes: tower, discriminator, averaged weights and optimizer."""
    state = {f"tower.{name}": tensor for name, tensor in trainer.tower.state_dict().items()}
    state.update({f"d.{name}": tensor for name, tensor in trainer.discriminator.state_dict().items()})
    state.update({f"ema.{name}": tensor for name, tensor in trainer.ema.module.state_dict().items()})
    for index, values in trainer.optimizer.state_dict()["state"].items():
        state.update({f"optimizer.{index}.{name}": value for name, value in values.items()})
    return {name: tensor.clone() for name, tensor in state.items()}


def test_logs_every_loss_from_its_start_on(tmp_path, squeeze_weights):
    trainer = make_trainer(tmp_path, max_steps=4, adversarial_start_step=2, **ADVERSARIAL)
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


def test_a_loss_that_starts_between_two_logs_is_the_mean_over_its_steps(tmp_path):
    settings = {name: value for name, value in ADVERSARIAL.items() if "perceptual" not in name}
    often = make_trainer(tmp_path, max_steps=4, adversarial_start_step=2, **settings)
    often.train()
    seldom = make_trainer(tmp_path, max_steps=4, adversarial_start_step=2, logging_steps=4, **settings)
    seldom.train()
    expected = sum(log["discriminator_loss"] for log in often.state.log_history[2:4]) / 2
    assert seldom.state.log_history[0]["discriminator_loss"] == pytest.approx(expected, rel=1e-5)


def test_discriminator_changes_only_after_its_start(tmp_path):
    settings = {name: value for name, value in ADVERSARIAL.items() if "perceptual" not in name}
    trainer = make_trainer(tmp_path, adversarial_start_step=3, weight_decay=0.1, **settings)
    before = {name: tensor.clone() for name, tensor in trainer.discriminator.state_dict().items()}
    trainer.train()
    for name, tensor in trainer.discriminator.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    trainer = make_trainer(tmp_path, adversarial_start_step=2, **settings)
    trainer.train()
    names = moved(trainer.discriminator, before)
    assert {name for name in before if name.endswith("weight")} <= names


def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(tmp_path, squeeze_weights):
    settings = {
        **ADVERSARIAL,
        "max_steps": 4,
        "adversarial_start_step": 1,
        "ema_decay": 0.7,
        "gradient_accumulation_steps": 2,
    }
    settings.update(per_device_train_batch_size=4, lr_scheduler_type="cosine")
    straight = make_trainer(tmp_path / "straight", **settings)
    straight.train()
    make_trainer(tmp_path / "resumed", save_strategy="steps", save_steps=2, **settings).train()
    resumed = make_trainer(tmp_path / "resumed", seed=3, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "resumed" / "checkpoint-2"))
    expected, actual = whole_state(straight), whole_state(resumed)
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


def test_checkpoint_is_a_tower_and_saved_model_has_no_discriminator(tmp_path, squeeze_weights):
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=3, ema_decay=0.5, **ADVERSARIAL)
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


def test_push_to_the_hub_uploads_only_a_tower(tmp_path):
    """`push_to_hub` saves with these arguments before it uploads."""
    settings = {name: value for name, value in ADVERSARIAL.items() if "perceptual" not in name}
    trainer = make_trainer(tmp_path, ema_decay=0.5, **settings)
    trainer.save_model(_internal_call=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "ema",
        "model.safetensors",
        "training_args.bin",
    }
    assert trainer.model is not trainer.tower  # it is only while it is saved


def test_rejects_a_checkpoint_without_averaged_weights(tmp_path):
    make_trainer(tmp_path, save_strategy="steps", save_steps=3).train()
    with pytest.raises(ValueError, match="ema has no weights: expected model.safetensors"):
        make_trainer(tmp_path, ema_decay=0.5, max_steps=4).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("name", ["discriminator.safetensors", "ema/model.safetensors", "model.safetensors"])
def test_names_the_damaged_file_of_a_checkpoint(tmp_path, name):
    settings = {name: value for name, value in ADVERSARIAL.items() if "perceptual" not in name}
    make_trainer(tmp_path, save_strategy="steps", save_steps=1, max_steps=1, ema_decay=0.5, **settings).train()
    file = tmp_path / "checkpoint-1" / name
    content = file.read_bytes()
    for damaged in (b"", content[:100], content[:-10]):
        file.write_bytes(damaged)
        trainer = make_trainer(tmp_path, max_steps=2, ema_decay=0.5, **settings)
        with pytest.raises(ValueError, match=f"cannot read {re.escape(str(file))}: "):
            trainer.train(resume_from_checkpoint=True)
    file.write_bytes(content)
    if name == "discriminator.safetensors":
        weights = load_file(file)
        save_file({key: weights[key] for key in sorted(weights)[1:]}, file)
        with pytest.raises(ValueError, match="discriminator.safetensors are not those of the model: missing"):
            trainer.train(resume_from_checkpoint=True)


def test_loads_the_best_model_into_the_tower(tmp_path):
    settings = {name: value for name, value in ADVERSARIAL.items() if "perceptual" not in name}
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


def test_averaged_weights_follow_the_moving_average(tmp_path):
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


def test_clips_gradients_of_tower_and_discriminator_separately(tmp_path):
    settings = {name: value for name, value in ADVERSARIAL.items() if "perceptual" not in name}
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


def test_discriminator_learns_to_recognise_a_fixed_tower(tmp_path):
    settings = {name: value for name, value in ADVERSARIAL.items() if "perceptual" not in name}
    settings.update(learning_rate=0.0, discriminator_learning_rate=2e-3, tune_codebook=False, max_steps=25)
    trainer = make_trainer(tmp_path, **settings)
    trainer.train()
    losses = [log["discriminator_loss"] for log in trainer.state.log_history[:-1]]
    assert losses[0] > 0.9 and losses[-1] < 0.3


def test_discriminator_has_its_learning_rate_and_betas(tmp_path):
    settings = {name: value for name, value in ADVERSARIAL.items() if "perceptual" not in name}
    settings.update(discriminator_learning_rate=0.25, discriminator_adam_beta1=0.5, weight_decay=0.1)
    trainer = make_trainer(tmp_path, **settings)
    groups = {id(p): group for group in trainer.create_optimizer().param_groups for p in group["params"]}
    for parameter in trainer.discriminator.parameters():
        assert groups[id(parameter)]["lr"] == 0.25 and groups[id(parameter)]["betas"] == (0.5, 0.999)
    for parameter in trainer.tower.vision_tower.pixel_decoder.parameters():
        assert groups[id(parameter)]["lr"] == 1e-3 and groups[id(parameter)]["betas"] == (0.9, 0.999)
    with pytest.raises(ValueError, match="`discriminator_adam_beta1`.* need an Adam as `optim`, got 'sgd'"):
        make_trainer(tmp_path, optim="sgd", **settings).create_optimizer()


def test_activation_checkpointing_trains_the_same_weights(tmp_path):
    settings = {name: value for name, value in ADVERSARIAL.items() if "perceptual" not in name}
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


def test_reconstruction_only_needs_no_texts_and_trains_the_vision_tower(tmp_path):
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


def test_softmax_loss_trains_the_scale_and_not_the_bias(tmp_path):
    trainer = make_trainer(tmp_path, config={"contrastive_loss_type": "softmax"})
    before = {name: tensor.clone() for name, tensor in trainer.tower.state_dict().items()}
    trainer.train()
    names = moved(trainer.tower, before)
    assert "logit_scale" in names and "logit_bias" not in names


def test_logs_the_usage_of_the_codebook_at_each_depth(tmp_path):
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


def test_logs_of_callbacks_do_not_take_the_recorded_losses(tmp_path):
    class LoggingCallback(TrainerCallback):
        trainer = None

        def on_step_begin(self, args, state, control, **kwargs):
            self.trainer.log({"something": 1.0})

    callback = LoggingCallback()
    trainer = make_trainer(tmp_path, callbacks=[callback], logging_steps=3)
    callback.trainer = trainer
    trainer.train()
    training, others = ([log for log in trainer.state.log_history if name in log] for name in ("loss", "something"))
    assert len(others) == 3 and not any("contrastive_loss" in log for log in others)
    expected = training[0]["contrastive_loss"] + training[0]["reconstruction_loss"]
    expected += 0.25 * training[0]["commitment_loss"]
    assert training[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_trains_siglip_by_its_contrastive_loss(tmp_path):
    siglip = SiglipModel(SiglipConfig(vision_config=VISION["encoder_config"], text_config=TEXT_TOWER))
    batch = collate([ColoredImages()[index] for index in range(8)])
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
            "must be 0 if `reconstruction_loss_weight` of the vision tower is 0",
        ),
        (
            {"mse_loss_weight": 0.0},
            {"adversarial_loss_weight": 1.0},
            "`adversarial_loss_weight` must be 0 if the weights .* are all 0",
        ),
        ({}, {"perceptual_loss_weight": -1.0}, "`perceptual_loss_weight` must be at least 0, got -1.0"),
        ({}, {"ema_decay": 1.0}, "`ema_decay` must be between 0 and 1, got 1.0"),
    ],
)
def test_rejects_settings_that_do_not_fit(tmp_path, config, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, config=config, **arguments)


def test_rejects_other_arguments(tower, tmp_path):
    with pytest.raises(TypeError, match="`args` must be VisionTowerTrainingArguments, got TrainingArguments"):
        VisionTowerTrainer(tower, TrainingArguments(str(tmp_path)))


def test_rejects_several_gpus_in_one_process(tower, tmp_path):
    args = VisionTowerTrainingArguments(str(tmp_path), use_cpu=True)
    args._n_gpu = 2
    with pytest.raises(ValueError, match=r"`args.n_gpu` must be at most 1, got 2: .* `torchrun`"):
        VisionTowerTrainer(tower, args)


def test_rejects_fsdp(tower, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    args = VisionTowerTrainingArguments(str(tmp_path), use_cpu=True)
    monkeypatch.setitem(PartialState._shared_state, "distributed_type", DistributedType.MULTI_GPU)
    with pytest.raises(
        ValueError, match=r"`distributed_type` of accelerate must be NO, MULTI_GPU or MULTI_CPU, got FSDP"
    ):
        VisionTowerTrainer(tower, args)


def test_rejects_an_adversarial_loss_for_siglip(tmp_path):
    siglip = SiglipModel(SiglipConfig(vision_config=VISION["encoder_config"], text_config=TEXT_TOWER))
    with pytest.raises(ValueError, match="a model without a pixel decoder"):
        train(siglip, tmp_path, adversarial_loss_weight=1.0)


@pytest.mark.parametrize("losses", [{}, {"adversarial_loss_weight": 0.5, "discriminator_channels": 4}])
def test_model_init_trains_like_the_model_that_it_builds(tmp_path, losses):
    def build():
        torch.manual_seed(3)
        return VilaUVisionTowerForPreTraining(tower_config())

    args = VisionTowerTrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=8,
        ema_decay=0.9,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        discriminator_num_layers=2,
        **losses,
    )
    data = {"train_dataset": ColoredImages(SIDE), "eval_dataset": ColoredImages(SIDE), "data_collator": collate}
    given = VisionTowerTrainer(build(), args, **data)
    built = VisionTowerTrainer(args=args, model_init=build, **data)
    given.train()
    for _ in range(2):  # each call trains a new model, with a new average
        built.train()
    for expected, actual in ((given.tower, built.tower), (given.ema.module, built.ema.module)):
        for (name, tensor), other in zip(expected.state_dict().items(), actual.state_dict().values(), strict=True):
            torch.testing.assert_close(other, tensor, msg=name)
    assert (built.discriminator is None) == (not losses)


def test_compute_metrics_gets_no_losses_and_no_pixels(tower, tmp_path):
    seen = []
    args = VisionTowerTrainingArguments(str(tmp_path), use_cpu=True, report_to="none", per_device_eval_batch_size=8)
    trainer = VisionTowerTrainer(
        tower,
        args,
        eval_dataset=ColoredImages(),
        data_collator=collate,
        compute_metrics=lambda prediction: seen.append(prediction) or {},
    )
    trainer.evaluate()
    logits, image_embeds, text_embeds, codes = seen[0].predictions
    assert logits.shape == (32, 8) and image_embeds.shape == text_embeds.shape == (32, 32)
    assert codes.shape == (32, 16, 3)
