"""The checkpoint that is shipped with the package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
)

from vilau_hf import (
    TINY_CHECKPOINT,
    VilaUConfig,
    VilaUForConditionalGeneration,
    VilaUProcessor,
    VilaUVisionTowerForPreTraining,
)
from vilau_hf.drawn import drawn_shapes
from vilau_hf.drawn.oracle import read_motion
from vilau_hf.drawn.scores import evaluate_images, evaluate_reconstruction, evaluate_tower
from vilau_hf.drawn.shapes import drawings, motions
from vilau_hf.evaluation.metrics import exact_match
from vilau_hf.evaluation.model_outputs import answer_questions, generate_from_captions


@pytest.fixture(scope="module")
def tiny():
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()
    return model, VilaUProcessor.from_pretrained(TINY_CHECKPOINT)


def test_auto_classes_load_the_checkpoint():
    assert type(AutoConfig.from_pretrained(TINY_CHECKPOINT)) is VilaUConfig
    assert type(AutoModel.from_pretrained(TINY_CHECKPOINT)) is VilaUForConditionalGeneration
    assert type(AutoModelForImageTextToText.from_pretrained(TINY_CHECKPOINT)) is VilaUForConditionalGeneration
    assert type(AutoProcessor.from_pretrained(TINY_CHECKPOINT)) is VilaUProcessor


def test_checkpoint_has_at_most_15_mb_and_a_training_log():
    size = sum(path.stat().st_size for path in Path(TINY_CHECKPOINT).rglob("*") if path.is_file())
    assert size <= 15e6
    log = json.loads((Path(TINY_CHECKPOINT) / "training_log.json").read_text())
    assert log["arguments"]["steps"] == 1.0 and log["training_seconds"] <= 7200


def test_saving_and_loading_is_bit_equal(tiny, tmp_path):
    model, processor = tiny
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = VilaUForConditionalGeneration.from_pretrained(tmp_path)
    assert again.generation_config.to_dict() == model.generation_config.to_dict()
    for (name, tensor), (other, loaded) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other and torch.equal(tensor, loaded)
    assert VilaUProcessor.from_pretrained(tmp_path).to_dict() == processor.to_dict()


def test_images_of_new_captions_agree_with_their_captions(tiny):
    targets = drawings("test")[::3]
    pixels = generate_from_captions(*tiny, [drawing.caption for drawing in targets], "image", seed=1)
    logged = json.loads((Path(TINY_CHECKPOINT) / "training_log.json").read_text())["scores"]
    assert evaluate_images(pixels, targets)["picture_color_and_shape"] >= logged["picture_color_and_shape"] - 0.2


def test_videos_of_new_captions_move_in_the_right_direction(tiny):
    targets = motions("test")[::5]
    videos = generate_from_captions(*tiny, [motion.caption for motion in targets], "video", seed=1)
    right = sum(a.direction == b.direction for a, b in zip(read_motion(videos), targets, strict=True))
    assert right >= 0.6 * len(targets)


def test_answers_questions_about_new_images(tiny):
    records = list(drawn_shapes("test", 60, tasks={"image_to_text": 1}, seed=5))
    references = [record["messages"][-1]["content"][0]["text"] for record in records]
    assert exact_match(answer_questions(*tiny, records), references) >= 0.8


def test_tower_reconstructs_and_classifies(tiny):
    model, processor = tiny
    scores = evaluate_reconstruction(model.model.vision_tower, processor, seed=3)
    assert scores["reconstruction_psnr"] >= 20
    assert scores["codebook_usage"] >= 0.6
    folder = Path(TINY_CHECKPOINT) / "tower"
    tower = AutoModelForZeroShotImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(tower) is VilaUVisionTowerForPreTraining
    zero_shot = evaluate_tower(tower, processor, caption_length=tower.config.text_config.max_position_embeddings)
    logged = json.loads((Path(TINY_CHECKPOINT) / "training_log.json").read_text())["scores"]
    assert zero_shot["zero_shot_color_and_shape"] >= logged["zero_shot_color_and_shape"] - 0.1


def test_import_and_loading_need_no_network():
    script = """
import socket

def refuse(*args, **kwargs):
    raise RuntimeError("network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import vilau_hf
vilau_hf.VilaUForConditionalGeneration.from_pretrained(vilau_hf.TINY_CHECKPOINT)
vilau_hf.VilaUProcessor.from_pretrained(vilau_hf.TINY_CHECKPOINT)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
