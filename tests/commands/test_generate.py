"""`vilau generate`: one prompt into a file, files of prompts into layouts, and mistakes in the arguments."""

import argparse
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

import vilau_hf
from vilau_hf import TINY_CHECKPOINT, VilaUPipeline
from vilau_hf.choices import PROMPT_LAYOUTS, RANKERS
from vilau_hf.cli import main
from vilau_hf.commands.generate import DEFAULT_MODEL, add_arguments


CROSS = "a small red cross at the bottom on a white background"


@pytest.fixture(scope="module")
def pipe():
    pipe = VilaUPipeline.from_pretrained(TINY_CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(autouse=True)
def in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def generate(capsys, *arguments):
    main(["generate", *map(str, arguments), "--model", TINY_CHECKPOINT])
    return capsys.readouterr().out.splitlines()


def seeded(seed):
    return [torch.Generator().manual_seed(seed)]


def test_draws_the_image_of_the_pipeline_and_prints_its_path(pipe, tmp_path, capsys):
    (name,) = generate(capsys, CROSS, "--seed", 3)
    assert name == "a-small-red-cross-at-the-bottom-on-a-white-background-seed3.png"
    image = Image.open(tmp_path / name)
    assert image.tobytes() == pipe(CROSS, generator=seeded(3)).images[0].tobytes()
    (second,) = generate(capsys, CROSS, "--seed", 3)
    assert second != name and Image.open(second).tobytes() == image.tobytes()


def test_draws_with_a_shipped_checkpoint_by_default():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(["a cat"]).model == DEFAULT_MODEL
    assert Path(DEFAULT_MODEL).is_relative_to(Path(vilau_hf.__file__).parent) and Path(DEFAULT_MODEL).is_dir()


def test_settings_reach_the_pipeline(pipe, capsys):
    arguments = ["--guidance-scale", 2, "--temperature", 0.9, "--top-k", 50, "--top-p", 0.8]
    (name,) = generate(capsys, CROSS, *arguments, "--negative-prompt", "a large cross", "--out", "new/a.png")
    settings = {
        "guidance_scale": 2.0,
        "temperature": 0.9,
        "top_k": 50,
        "top_p": 0.8,
        "negative_prompt": "a large cross",
    }
    assert name == "new/a.png"
    assert Image.open(name).tobytes() == pipe(CROSS, generator=seeded(0), **settings).images[0].tobytes()


def test_several_images_have_the_seeds_that_json_lists(pipe, capsys):
    (line,) = generate(capsys, CROSS, "--num-images", 3, "--batch-size", 2, "--seed", 4, "--out", "a.png", "--json")
    content = json.loads(line)
    assert content["files"] == [{"path": f"a-{n}.png", "seed": 4 + n} for n in range(3)]
    assert content["prompt"] == CROSS and content["model"]["name"] == TINY_CHECKPOINT
    assert Image.open("a-2.png").tobytes() == pipe(CROSS, generator=seeded(6)).images[0].tobytes()


def test_draws_a_video(capsys):
    (name,) = generate(capsys, "a large red circle moving left", "--video", "--num-frames", 2, "--out", "a.gif")
    assert Image.open(name).n_frames == 2


def test_edits_an_image(pipe, capsys):
    before = pipe(CROSS, generator=seeded(0)).images[0]
    before.save("before.png")
    arguments = ["--edit", "before.png", "--image-guidance-scale", 1.5, "--out", "after.png"]
    generate(capsys, "turn it blue", *arguments)
    expected = pipe("turn it blue", image=before, image_guidance_scale=1.5, generator=seeded(0)).images[0]
    assert Image.open("after.png").tobytes() == expected.tobytes()


@pytest.mark.parametrize("rank", RANKERS)
def test_keeps_the_best_candidate(capsys, rank):
    (name,) = generate(capsys, CROSS, "--candidates", 2, "--rank", rank, "--greedy", "--out", f"{rank}.png")
    assert Image.open(name).size == (32, 32)


def test_draws_a_file_of_prompts(tmp_path, capsys):
    for name, prompt_id in (("a", 7), ("b", 9)):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"Prompt": CROSS, "prompt_id": prompt_id}]))
    arguments = ["--prompts", "a.json", "b.json", "--layout", "wise", "--out", "images", "--greedy"]
    assert generate(capsys, *arguments) == ["images"]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["7.png", "9.png", "settings.json"]
    (line,) = generate(capsys, *arguments, "--json")
    assert json.loads(line) == {
        "folder": "images",
        "num_files": 2,
        "layout": "wise",
        "settings": "images/settings.json",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one prompt, or a file of prompts by `--prompts`"),
        (["a", "--prompts", "a.txt"], "give one prompt, or a file of prompts"),
        ([" "], "`prompt` is empty"),
        (["\udcff"], "`prompt`: the text is not UTF-8"),
        (["a", "--num-frames", "2"], "`--num-frames` needs --video"),
        (["a", "--rank", "tower"], "`--rank` needs --candidates of at least 2"),
        (["a", "--tower", "x"], "`--tower` needs --rank tower"),
        (["a", "--layout", "dpg"], "`--layout` needs --prompts"),
        (["a", "--image-guidance-scale", "2"], "`--image-guidance-scale` needs --edit"),
        (["a", "--num-images", "0"], "`--num-images` must be from 1 to 10000, got 0"),
        (["a", "--batch-size", "0"], "`--batch-size` must be from 1 to 10000, got 0"),
        (["a", "--candidates", "9" * 20], "`--candidates` must be from 1 to 10000, got 999"),
        (["a", "--revision", "v1"], "`revision` is for models on the Hub, got 'v1' for the folder"),
        (["a", "--out", "/dev/null"], "/dev/null) is a file without a suffix"),
        (["a", "--seed", "-1"], "`seed` must be from 0 to 2^63 - 1, got -1"),
        (["a", "--out", "there.png"], "there.png exists. Choose another name"),
        (["a", "--out", "a.tiff"], "must have a suffix of an image"),
        (["a", "--edit", "nowhere.png"], "nowhere.png"),
        (["a", "--model", "nowhere/at/all"], "nowhere/at/all"),
        (["a", "--device", "x"], "`device` 'x' cannot be used"),
        (["a", "--guidance-scale", "0"], "`guidance_scale` must be at least 1"),
        (["--prompts", "a.txt"], "`--prompts` needs --out"),
        (["--prompts", "a.txt", "--out", "new", "--edit", "there.png"], "`--edit` needs one prompt"),
        (["--prompts", "bad.txt", "--out", "new"], "bad.txt, line 2: the prompt is empty"),
        (["--prompts", "a.txt", "--out", "new", "--layout", "geneval"], "a.txt, line 1: the layout 'geneval' needs"),
        (["--prompts", "a.txt", "--out", "there.png"], "`out` must be a folder"),
        (["--prompts", "a.txt", "--out", "."], "and no settings.json: choose a new folder"),
        (
            ["--prompts", "a.txt", "--out", "new", "--layout", "genai", "--num-images", "2"],
            "`num_images` must be 1 for",
        ),
    ],
    ids=str,
)
def test_reports_mistakes_in_one_line_and_draws_nothing(tmp_path, capsys, arguments, message):
    (tmp_path / "there.png").write_text("of a user")
    (tmp_path / "a.txt").write_text("a cat")
    (tmp_path / "bad.txt").write_text("a cat\n\na dog")
    with pytest.raises(SystemExit) as stop:
        main(["generate", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 1 and error.startswith("vilau: ") and message in error, error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "bad.txt", "there.png"]
    assert (tmp_path / "there.png").read_text() == "of a user"


def test_rejects_empty_paths(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["generate", "--prompts", "", "--out", "new"])
    assert stop.value.code == 2 and "argument --prompts: the path is empty" in capsys.readouterr().err


def test_lists_the_layouts_if_the_name_is_unknown(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["generate", "--prompts", "a.txt", "--out", "new", "--layout", "coco"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and all(name in error for name in PROMPT_LAYOUTS)


def test_names_an_image_to_edit_that_cannot_be_read(tmp_path, capsys):
    Image.effect_noise((64, 64), 50).save("whole.png")
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:2000])
    os.mkfifo("fifo.png")
    for name in ("cut.png", "fifo.png"):
        with pytest.raises(SystemExit):
            main(["generate", "turn it blue", "--edit", name, "--out", "after.png"])
        assert name in capsys.readouterr().err
