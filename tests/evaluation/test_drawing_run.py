"""Runs over files of prompts: files of every layout, resume, seeds, settings and several processes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from datasets import load_dataset
from PIL import Image

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.choices import PROMPT_LAYOUTS
from vilau_hf.evaluation.benchmark_layouts import get_layout
from vilau_hf.evaluation.drawing_model import load_pipeline
from vilau_hf.evaluation.drawing_run import DrawingFolder, check_seeds, draw_prompts, draw_rows
from vilau_hf.evaluation.drawing_settings import DrawingOptions
from vilau_hf.evaluation.prompt_files import Prompt, read_prompts


TEXTS = ["a small red cross at the bottom on a white background", "a large blue circle"]
FIELDS = {"tag": "colors", "include": [], "id": "x", "category": "art"}
MODEL = {"name": "tiny", "fingerprint": "1"}


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(TINY_CHECKPOINT)


def prompts(texts=TEXTS):
    return [
        Prompt(text, f"a.jsonl, line {number}", {**FIELDS, "prompt": text, "id": f"id{number}", "prompt_id": number})
        for number, text in enumerate(texts, 1)
    ]


def draw(pipe, out, layout="plain", texts=TEXTS, batch_size=8, model=MODEL, **options):
    is_video = options.get("is_video", False)
    return draw_prompts(
        pipe, prompts(texts), get_layout(layout, is_video), out, DrawingOptions(**options), model, batch_size
    )


def contents(folder):
    """Returns the content of all files but the settings, by their paths."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "settings.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", PROMPT_LAYOUTS)
def test_writes_the_files_of_every_layout(pipe, tmp_path, name):
    options = {"is_video": True, "num_frames": 1, "num_images": 2} if name == "vbench" else {}
    report = draw(pipe, tmp_path, name, sampling={"top_k": 1}, **options)
    expected = {
        "plain": ["00000.png", "00001.png", "metadata.jsonl"],
        "geneval": [
            f"0000{prompt}/{file}"
            for prompt in (0, 1)
            for file in ("metadata.jsonl", *(f"samples/000{sample}.png" for sample in range(4)))
        ],
        "dpg": ["id1.png", "id2.png"],
        "mjhq": ["art/id1.png", "art/id2.png"],
        "genai": ["id1.jpeg", "id2.jpeg"],
        "vbench": [f"videos/{text}-{sample}.mp4" for text in TEXTS for sample in (0, 1)],
        "wise": ["1.png", "2.png"],
    }[name]
    assert sorted(contents(tmp_path)) == sorted(expected)
    assert report.num_files == report.num_drawn == {"geneval": 8, "vbench": 4}.get(name, 2)
    assert report.folder == (tmp_path / "videos" if name == "vbench" else tmp_path)
    side = 64 if name == "dpg" else 32
    for path in expected:
        if path.endswith(("png", "jpeg")):
            assert Image.open(tmp_path / path).size == (side, side)
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["layout"] == name and settings["model"]["fingerprint"] == "1"


def test_each_image_has_its_seed_whatever_the_batch(pipe, tmp_path):
    draw(pipe, tmp_path / "a", num_images=2, seed=5, batch_size=8)
    draw(pipe, tmp_path / "b", num_images=2, seed=5, batch_size=3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    lines = [json.loads(line) for line in (tmp_path / "a" / "metadata.jsonl").read_text().splitlines()]
    assert [(line["file_name"], line["seed"]) for line in lines] == [
        ("00000-0.png", 5),
        ("00000-1.png", 6),
        ("00001-0.png", 7),
        ("00001-1.png", 8),
    ]
    generator = torch.Generator().manual_seed(8)
    expected = pipe(TEXTS[1], generator=generator).images[0]
    assert Image.open(tmp_path / "a" / "00001-1.png").tobytes() == expected.tobytes()


def test_a_plain_folder_is_a_dataset(pipe, tmp_path):
    draw(pipe, tmp_path, sampling={"top_k": 1})
    dataset = load_dataset("imagefolder", data_dir=str(tmp_path), split="train")
    assert dataset["text"] == TEXTS and dataset["seed"] == [0, 1]
    assert dataset[0]["image"].size == (32, 32)


def test_a_dpg_grid_has_the_images_of_four_seeds(pipe, tmp_path):
    draw(pipe, tmp_path, "dpg", texts=TEXTS[:1], seed=2, batch_size=3)
    images = draw_rows(pipe, TEXTS[:1] * 4, [2, 3, 4, 5], {})
    grid = Image.open(tmp_path / "id1.png")
    for corner, image in zip([(0, 0), (32, 0), (0, 32), (32, 32)], images, strict=True):
        assert grid.crop((*corner, corner[0] + 32, corner[1] + 32)).tobytes() == image.tobytes()


def test_candidates_are_ranked_and_described(pipe, tmp_path):
    draw(pipe, tmp_path, texts=TEXTS[:1], num_candidates=2, rank_by="likelihood")
    expected = pipe(TEXTS[0], num_candidates=2, generator=[torch.Generator().manual_seed(0)]).images[0]
    assert Image.open(tmp_path / "00000.png").tobytes() == expected.tobytes()
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert (settings["num_candidates"], settings["rank_by"]) == (2, "likelihood")


def test_resumes_with_the_missing_files(pipe, tmp_path):
    draw(pipe, tmp_path, "geneval", num_images=2)
    before = contents(tmp_path)
    assert draw(pipe, tmp_path, "geneval", num_images=2).num_drawn == 0
    kept = tmp_path / "00000" / "samples" / "0000.png"
    written = kept.stat().st_mtime_ns
    (tmp_path / "00000" / "samples" / "0001.png").unlink()
    (tmp_path / "00001" / "metadata.jsonl").unlink()
    unfinished = tmp_path / f"{'0a' * 16}.unfinished"
    unfinished.touch()
    (tmp_path / "results.jsonl").write_text("of the scorer")
    report = draw(pipe, tmp_path, "geneval", num_images=2, model={**MODEL, "name": "moved"}, batch_size=1)
    assert report.num_drawn == 3 and report.num_files == 4
    assert contents(tmp_path) == {**before, "results.jsonl": b"of the scorer"}
    assert kept.stat().st_mtime_ns == written and not unfinished.exists()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 1}, "`seed` 0, not 1"),
        ({"num_images": 2}, "`num_images` 1, not 2"),
        ({"sampling": {"guidance_scale": 2.0}}, "`guidance_scale` 1.5, not 2.0"),
        ({"sampling": {"visual_decoding": "parallel"}}, "`visual_decoding` 'sequential', not 'parallel'"),
        ({"negative_prompt": "a dog"}, "`negative_prompt` None, not 'a dog'"),
        ({"num_candidates": 2}, "`num_candidates` 1, not 2"),
        ({"layout": "wise"}, "`layout` 'plain', not 'wise'"),
        ({"model": {"fingerprint": "2"}}, "`model.fingerprint` '1', not '2'"),
        ({"texts": TEXTS[::-1]}, "`prompts.sha256` "),
    ],
)
def test_refuses_other_settings_of_a_resumed_run_by_name(pipe, tmp_path, begun, change, name):
    before = contents(begun)
    with pytest.raises(ValueError, match="was begun with `") as error:
        draw(pipe, begun, **change)
    assert name in str(error.value) and contents(begun) == before


@pytest.fixture(scope="module")
def begun(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    draw(pipe, folder)
    return folder


def test_settings_of_a_run_that_drew_nothing_can_change(pipe, tmp_path):
    DrawingFolder(tmp_path, get_layout("plain")).begin({"layout": "wise", "seed": 9}, {})
    draw(pipe, tmp_path, texts=TEXTS[:1])
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == 0


def test_rejects_folders_with_other_files_before_anything_is_drawn(pipe, tmp_path):
    (tmp_path / "holiday.png").write_text("of a user")
    with pytest.raises(ValueError, match=r"has holiday\.png and no settings\.json: choose a new folder"):
        draw(pipe, tmp_path)
    with pytest.raises(ValueError, match=r"must be a folder, got .*holiday\.png, which is a file"):
        draw(pipe, tmp_path / "holiday.png")
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.png"]


def test_rejects_wrong_options_before_the_folder_is_made(pipe, tmp_path):
    for options in (
        {"batch_size": 0},
        {"num_images": 0},
        {"seed": -1},
        {"sampling": {"top_p": 3.0}},
        {"is_video": True, "layout": "wise"},
        {"texts": [TEXTS[0], "red " * 1000]},
    ):
        with pytest.raises(
            ValueError, match=r"batch_size|num_images|seed|top_p|has images, got videos|a\.jsonl, line 2"
        ):
            draw(pipe, tmp_path / "new", **options)
        assert not (tmp_path / "new").exists()


def test_seeds_fit_into_64_bits():
    check_seeds(2**63 - 4, 4)
    with pytest.raises(ValueError, match=r"`seed` must be from 0 to 2\^63 - 4, got "):
        check_seeds(2**63 - 3, 4)


ON_CPU = {**os.environ, "ACCELERATE_USE_CPU": "true"}


@pytest.mark.slow
def test_two_processes_resume_a_killed_one_and_give_the_files_of_one(pipe, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(f"a {color} cross" for color in ("red", "blue", "green", "white", "black")))
    draw_prompts(pipe, read_prompts(file), get_layout("plain"), tmp_path / "one", DrawingOptions(), {}, batch_size=3)
    out = tmp_path / "two"
    command = ["-m", "vilau_hf.cli", "generate", "--prompts", file, "--batch-size", "1", "--out", out]
    killed = subprocess.Popen([sys.executable, *command], env=ON_CPU, stderr=subprocess.DEVNULL)
    while not list(out.glob("*.png")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert 1 <= len(kept) < 5
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    run = subprocess.run([*launcher, *command], env=ON_CPU, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.splitlines() == [str(out)]  # printed by the main process
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(out) == contents(tmp_path / "one")
