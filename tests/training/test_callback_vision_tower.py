from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F
from transformers import AutoTokenizer, SiglipConfig, SiglipModel, TrainerCallback

from vilau_hf import TINY_CHECKPOINT, VilaUImageProcessor, VilaUVisionTowerForPreTraining
from vilau_hf.data import VisionTowerDataCollator
from vilau_hf.drawn import drawn_shapes
from vilau_hf.drawn.scores import evaluate_reconstruction, evaluate_tower
from vilau_hf.drawn.shapes import COLORS, SHAPES
from vilau_hf.evaluation.sheets import to_uint8
from vilau_hf.training import VisionTowerEvaluationCallback, VisionTowerTrainer, VisionTowerTrainingArguments

from ..conftest import TEXT_TOWER, VISION


CLASSES = [(color, shape) for color in COLORS for shape in SHAPES]
CAPTIONS = [f"a {color} {shape}" for color, shape in CLASSES]


def label_of(record):
    return CLASSES.index((record["drawing"]["color"], record["drawing"]["shape"]))


@pytest.fixture(scope="module")
def shipped():
    """Loads the shipped tower with its processor, and held-out drawings."""
    folder = f"{TINY_CHECKPOINT}/tower"
    tower = VilaUVisionTowerForPreTraining.from_pretrained(folder, dtype=torch.float32)
    tokenizer, image_processor = AutoTokenizer.from_pretrained(folder), VilaUImageProcessor.from_pretrained(folder)
    size = tower.config.image_size
    drawings = drawn_shapes("test", 60, size, tasks={"text_to_image": 1}, seed=0)
    length = tower.config.text_config.max_position_embeddings
    return SimpleNamespace(
        tower=tower,
        processor=SimpleNamespace(tokenizer=tokenizer, image_processor=image_processor),
        drawings=drawings,
        collator=VisionTowerDataCollator(image_processor, tokenizer, length),
        length=length,
    )


def make_trainer(shipped, folder, **kwargs):
    settings = {"max_steps": 2, "learning_rate": 0.0, "save_strategy": "no", "report_to": "none", **kwargs}
    arguments = VisionTowerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        per_device_eval_batch_size=25,
        use_cpu=True,
        disable_tqdm=True,
        tune_codebook=False,
        **settings,
    )
    return VisionTowerTrainer(
        model=shipped.tower,
        args=arguments,
        train_dataset=shipped.drawings,
        eval_dataset=shipped.drawings,
        data_collator=shipped.collator,
    )


def test_scores_equal_those_of_the_drawn_shapes(shipped, tmp_path):
    trainer = make_trainer(shipped, tmp_path)
    trainer.add_callback(VisionTowerEvaluationCallback(trainer, CAPTIONS, label_of, num_images=0))
    metrics = trainer.evaluate()
    expected = evaluate_reconstruction(shipped.tower.vision_tower, shipped.processor, num_samples=60)
    assert metrics["eval_psnr"] == pytest.approx(expected["reconstruction_psnr"], abs=1e-3)
    expected = evaluate_tower(shipped.tower, shipped.processor, shipped.length, num_samples=60)
    assert metrics["eval_zero_shot_accuracy"] == pytest.approx(expected["zero_shot_color_and_shape"])
    assert trainer.state.log_history[-1]["eval_psnr"] == metrics["eval_psnr"]
    assert not (tmp_path / "reconstructions").exists()


@torch.no_grad()
def test_ssim_follows_its_equation(shipped, tmp_path):
    """Wang et al. (2004), eq. 13: a Gaussian window of 11 pixels and deviation 1.5, mirrored at the borders."""
    trainer = make_trainer(shipped, tmp_path)
    actual = VisionTowerEvaluationCallback(trainer).score(shipped.tower)["ssim"]
    pixels = shipped.collator([shipped.drawings[index] for index in range(60)])["pixel_values"]
    rebuilt = to_uint8(shipped.tower.vision_tower.decode(shipped.tower.vision_tower.encode(pixels).codes)).double()
    original = to_uint8(pixels).double()
    steps = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(steps**2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]

    def mean(images):
        return F.conv2d(F.pad(images, (5, 5, 5, 5), mode="reflect").flatten(0, 1)[:, None], window)

    x, y = mean(original), mean(rebuilt)
    variance_x, variance_y = mean(original**2) - x**2, mean(rebuilt**2) - y**2
    covariance = mean(original * rebuilt) - x * y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    quality = (2 * x * y + c1) * (2 * covariance + c2) / ((x**2 + y**2 + c1) * (variance_x + variance_y + c2))
    assert actual == pytest.approx(quality.mean().item(), abs=1e-4)
    assert 0.8 < actual < 1


def test_logs_and_saves_a_sheet(shipped, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    trainer = make_trainer(shipped, tmp_path, report_to="tensorboard", eval_strategy="steps", eval_steps=1)
    trainer.add_callback(VisionTowerEvaluationCallback(trainer, num_images=3))
    trainer.train()
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [event.step for event in events.Images("eval/reconstructions")] == [1, 2]
    assert len(events.Scalars("eval/psnr")) == len(events.Scalars("eval/ssim")) == 2
    sheets = sorted((tmp_path / "reconstructions").iterdir())
    assert [sheet.name for sheet in sheets] == ["step-00000001.png", "step-00000002.png"]
    image, event = Image.open(sheets[0]), events.Images("eval/reconstructions")[0]
    assert image.size == (event.width, event.height)
    assert image.width > 3 * 2 * 96


def test_scores_averaged_weights_and_scores_choose_the_best_checkpoint(shipped, tmp_path):
    class Spoil(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 2:
                with torch.no_grad():
                    model.vision_tower.pixel_decoder.conv_out.bias.add_(0.5)

    trainer = make_trainer(
        shipped,
        tmp_path,
        max_steps=3,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
        ema_decay=0.9,
        load_best_model_at_end=True,
        metric_for_best_model="psnr",
        greater_is_better=True,
    )
    trainer.eval_dataset = shipped.drawings.select(range(10))
    trainer.add_callback(Spoil())
    trainer.add_callback(VisionTowerEvaluationCallback(trainer, num_images=0))
    before = shipped.tower.vision_tower.pixel_decoder.conv_out.bias.detach().clone()
    trainer.train()
    scores = [log for log in trainer.state.log_history if "eval_psnr" in log]
    assert scores[0]["eval_ema_psnr"] == pytest.approx(scores[0]["eval_psnr"])
    assert scores[2]["eval_psnr"] + 3 < scores[2]["eval_ema_psnr"] < scores[0]["eval_psnr"]
    assert trainer.state.best_global_step == 1
    assert torch.equal(shipped.tower.vision_tower.pixel_decoder.conv_out.bias, before)


def test_rejects_a_trainer_that_cannot_be_scored(shipped, tmp_path):
    trainer = make_trainer(shipped, tmp_path)
    with pytest.raises(ValueError, match="`classes` and `label_of` must be given together"):
        VisionTowerEvaluationCallback(trainer, classes=CAPTIONS)
    trainer.eval_dataset = None
    with pytest.raises(ValueError, match="`trainer.eval_dataset` must be one dataset read by index, got NoneType"):
        VisionTowerEvaluationCallback(trainer)
    siglip = SiglipModel(SiglipConfig(vision_config=VISION["encoder_config"], text_config=TEXT_TOWER))
    arguments = VisionTowerTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match="must train a vision tower"):
        VisionTowerEvaluationCallback(VisionTowerTrainer(model=siglip, args=arguments))


def test_fid_without_its_weights_raises_an_error(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="the reconstruction FID needs the weights .*inception"):
        VisionTowerEvaluationCallback(make_trainer(shipped, tmp_path), fid=True)


@pytest.mark.slow
@torch.no_grad()
def test_fid_follows_its_equation(shipped, tmp_path, monkeypatch):
    """Heusel et al. (2017), eq. 6, for features of the same network with random weights."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict):
            return None

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    path = tmp_path / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2]
    path.parent.mkdir()
    torch.save({}, path)
    network = Untrained("random", ["2048"], str(path))
    torch.save(network.state_dict(), path)

    trainer = make_trainer(shipped, tmp_path)
    trainer.eval_dataset = shipped.drawings.select(range(4))
    callback = VisionTowerEvaluationCallback(trainer, fid=True)
    actual = callback.score(shipped.tower)["rfid"]

    pixels = shipped.collator([shipped.drawings[index] for index in range(4)])["pixel_values"]
    rebuilt = to_uint8(shipped.tower.vision_tower.decode(shipped.tower.vision_tower.encode(pixels).codes))
    features = [callback.fid.inception(images).double() for images in (to_uint8(pixels), rebuilt)]
    means = [vectors.mean(0) for vectors in features]
    centered = [vectors - mean for vectors, mean in zip(features, means, strict=True)]
    covariances = [vectors.T @ vectors / 3 for vectors in centered]
    # The trace of the root is the sum of the singular values of the product of the two factors.
    root = torch.linalg.svdvals(centered[0] @ centered[1].T).sum() / 3
    expected = (means[0] - means[1]).square().sum() + sum(c.trace() for c in covariances) - 2 * root
    assert actual == pytest.approx(expected.item(), rel=1e-2)
