"""Each example runs as its first lines say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments, cwd):
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


def test_generate_image_writes_a_picture(tmp_path):
    run("generate_image.py", "a large green circle on the left on a black background", cwd=tmp_path)
    assert Image.open(tmp_path / "picture.png").size == (256, 256)


def test_generate_video_writes_a_gif_that_moves(tmp_path):
    run("generate_video.py", cwd=tmp_path)
    video = Image.open(tmp_path / "video.gif")
    assert video.n_frames == 4


def test_describe_image_answers(tmp_path):
    assert run("describe_image.py", "--question", "what color is the shape?", cwd=tmp_path).strip() == "blue"


def test_edit_image_writes_before_and_after(tmp_path):
    run("edit_image.py", "move it to the left", cwd=tmp_path)
    assert Image.open(tmp_path / "edited.png").size == (528, 256)


def test_continue_video_writes_a_gif(tmp_path):
    run("continue_video.py", cwd=tmp_path)
    assert Image.open(tmp_path / "continued.gif").n_frames == 4


def test_tell_story_writes_sentences_and_pictures(tmp_path):
    lines = run("tell_story.py", cwd=tmp_path).splitlines()
    assert len(lines) == 4 and "yellow circle" in lines[0]
    assert [Image.open(tmp_path / line.strip("[]")).size for line in lines[1::2]] == [(256, 256)] * 2


def test_encode_dataset_trains_from_codes_with_the_loss_of_pixels(tmp_path):
    printed = run("encode_dataset.py", "--samples", "40", cwd=tmp_path)
    pixels, codes = (float(line.split("loss")[1].split()[0]) for line in printed.splitlines() if "loss" in line)
    assert pixels == codes
    assert "images/s" in printed and "bytes an image" in printed


@pytest.mark.slow
def test_score_tiny_scores_and_draws_sheets(tmp_path):
    run("score_tiny.py", "--samples", "8", cwd=tmp_path)
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert {"zero_shot_color_and_shape", "picture_all", "edit_move", "continued_direction", "story_first"} <= set(
        scores
    )
    for name in ("edits", "stories", "continued"):
        assert Image.open(tmp_path / "scores" / f"{name}.png").width > 800


@pytest.mark.slow
def test_train_tiny_stories_trains_and_saves(tmp_path):
    run("train_tiny_stories.py", "--steps", "0.002", "--out", "stories", cwd=tmp_path)
    assert run("edit_image.py", "--model", "stories", cwd=tmp_path)


@pytest.mark.slow
def test_finetune_lora_learns_and_shows_it(tmp_path):
    printed = run("finetune_lora.py", "--steps", "12", "--out", "ring", cwd=tmp_path)
    assert "PSNR to true rings" in printed
    assert Image.open(tmp_path / "ring" / "before_and_after.png").width > 2 * 3 * 128
    assert (tmp_path / "ring" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_preference_dpo_raises_the_margin_of_what_is_preferred(tmp_path):
    printed = run("preference_dpo.py", "--steps", "6", "--samples", "6", "--out", "large", cwd=tmp_path)
    results = json.loads((tmp_path / "large" / "results.json").read_text())
    margin = results["log_probability_margin"]
    assert margin["after"] > margin["before"] + 1
    assert "right colour and shape" in results["shares"] and "right colour and shape" in printed
    assert Image.open(tmp_path / "large" / "before_and_after.png").width > 4 * 2 * 96
    assert (tmp_path / "large" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_train_tiny_trains_saves_and_scores_every_part(tmp_path):
    run("train_tiny.py", "--steps", "0.003", "--samples", "8", "--out", "tiny", cwd=tmp_path)
    log = json.loads((tmp_path / "tiny" / "training_log.json").read_text())
    assert {"siglip", "tower", "language", "scores"} <= set(log)
    assert {"visual_loss", "text_loss"} <= set(log["language"][0])
    out = run("generate_image.py", "--model", "tiny", cwd=tmp_path)
    assert "picture.png" in out
