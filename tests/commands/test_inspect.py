"""`vilau inspect`: tables, JSON, sheets and mistakes."""

import json

import pytest
from PIL import Image

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.cli import main
from vilau_hf.drawn import drawn_shapes


@pytest.fixture(autouse=True)
def in_a_folder_with_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = [record["images"][0] for record in drawn_shapes("test", 3, tasks={"text_to_image": 1})]
    images[0].resize((50, 40)).save("a.png")
    images[0].save("b.gif", save_all=True, append_images=images[1:])
    (tmp_path / "text.png").write_text("no image")


def inspect(capsys, *arguments):
    main(["inspect", *map(str, arguments)])
    return capsys.readouterr().out


def test_prints_the_figures_of_each_image_and_of_all(capsys):
    lines = inspect(capsys, "a.png", "b.gif", "--num-frames", 2).splitlines()
    assert "32 x 32 pixels, 8 x 8 positions, 4 codes of 256 at each" in lines[0]
    assert [line for line in lines if line in ("a.png", "b.gif, frame 1", "b.gif, frame 2")] == [
        "a.png",
        "b.gif, frame 1",
        "b.gif, frame 2",
    ]
    assert sum(line.startswith("PSNR in dB") for line in lines) == 3
    assert "Use of the codebook by 3 images of 64 positions" in lines
    assert [line.split()[0] for line in lines[-5:]] == ["1", "2", "3", "4", "all"]
    assert not any("\x1b" in line for line in lines)  # the output is no terminal


@pytest.mark.parametrize("model", [TINY_CHECKPOINT, f"{TINY_CHECKPOINT}/tower"])
def test_json_has_all_codes_and_figures(capsys, tmp_path, model):
    arguments = ["a.png", "b.gif", "--num-frames", 3, "--batch-size", 2, "--sheet", "sheet.png", "--json"]
    content = json.loads(inspect(capsys, *arguments, "--model", model))
    assert content["model"] == model and content["sheet"] == "sheet.png"
    assert content["tower"] == {"image_size": 32, "grid_size": 8, "code_depth": 4, "codebook_size": 256}
    assert [image["name"] for image in content["images"]] == ["a.png", *(f"b.gif, frame {n}" for n in (1, 2, 3))]
    for image in content["images"]:
        codes = image["codes"]
        assert len(codes) == len(codes[0]) == 8 and len(codes[0][0]) == len(image["psnr"]) == 4
        by_depth = [len({position[depth] for row in codes for position in row}) for depth in range(4)]
        assert image["distinct_codes"] == by_depth and image["psnr"][3] > 20
    assert [row["depth"] for row in content["use"]] == [1, 2, 3, 4, None]
    with Image.open("sheet.png") as sheet:
        assert sheet.size[0] == 8 + 5 * (128 + 8)


def test_shows_images_if_asked(capsys):
    printed = inspect(capsys, "a.png", "--images", "sixel")
    assert printed.count("\x1bPq") == 2 and "map of code 4" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png"], "cannot read 'nowhere.png'"),
        (["text.png"], "cannot read 'text.png'"),
        (["a.png", "--num-frames", "0"], "`--num-frames` must be at least 1, got 0"),
        (["a.png", "--batch-size", "0"], "`--batch-size` must be at least 1, got 0"),
        (["a.png", "--sheet", "text.png"], "text.png exists"),
        (["a.png", "--sheet", "sheet.tiff"], "must have a suffix of an image"),
        (["a.png", "--sheet", "sheet"], "`--sheet` must have a suffix of an image"),
        (["a.png", "--model", "nowhere/at/all"], "nowhere/at/all"),
    ],
    ids=str,
)
def test_reports_mistakes_in_one_line(capsys, tmp_path, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["inspect", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 1 and error.startswith("vilau: ") and message in error, error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.gif", "text.png"]
