"""Names of the files of one prompt. No file is overwritten unless it is asked for."""

from pathlib import Path

import pytest
from PIL import Image

from vilau_hf.evaluation.drawing_files import name_files, write_results


PROMPT = "A small, red CROSS / at the bottom!"


def test_names_files_after_prompt_and_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stem = "a-small-red-cross-at-the-bottom"
    assert name_files(None, PROMPT, [0]) == [Path(f"{stem}-seed0.png")]
    assert name_files(Path("new/folder"), PROMPT, [3, 4]) == [
        Path(f"new/folder/{stem}-seed{seed}.png") for seed in (3, 4)
    ]
    assert name_files(tmp_path, PROMPT, [0], is_video=True) == [tmp_path / f"{stem}-seed0.mp4"]
    assert name_files(None, "ein großer Kreis", [0]) == [Path("ein-großer-kreis-seed0.png")]
    assert name_files(None, "?!", [0]) == [Path("image-seed0.png")]
    assert len(name_files(None, "word " * 100, [0])[0].name) < 80


def test_numbers_names_that_exist(tmp_path):
    for expected in ("a-cat-seed0.png", "a-cat-seed0-2.png", "a-cat-seed0-3.png"):
        (path,) = name_files(tmp_path, "a cat", [0])
        assert path.name == expected
        path.touch()


def test_numbers_several_files_of_a_given_name(tmp_path):
    assert name_files(tmp_path / "a.png", "a cat", [0]) == [tmp_path / "a.png"]
    assert name_files(tmp_path / "a.GIF", "a cat", [5, 6], is_video=True) == [
        tmp_path / "a-0.GIF",
        tmp_path / "a-1.GIF",
    ]


def test_replaces_a_file_only_if_it_is_asked_for(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("an older file")
    with pytest.raises(ValueError, match=r"a\.png exists\. Choose another name, or replace it by `--overwrite`"):
        name_files(path, "a cat", [0])
    with pytest.raises(ValueError, match="exists"):  # as if it was written while the image was drawn
        write_results([Image.new("RGB", (2, 2))], [path])
    assert path.read_text() == "an older file"
    write_results([Image.new("RGB", (2, 2))], name_files(path, "a cat", [0], overwrite=True), overwrite=True)
    assert Image.open(path).size == (2, 2)
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


def test_makes_folders_and_writes_videos(tmp_path):
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    write_results([frames], [tmp_path / "new" / "a.GIF"])
    assert Image.open(tmp_path / "new" / "a.GIF").n_frames == 2


@pytest.mark.parametrize(
    ("name", "is_video", "message"),
    [
        ("a.mp4", False, "must have a suffix of an image, .png, .jpg, .jpeg, .webp, got "),
        ("a.png", True, "must have a suffix of a video, .mp4, .gif, .webp, got "),
        ("plain", False, "is a file without a suffix"),
        ("plain/new/a.png", False, "cannot be written: .*plain is a file"),
    ],
)
def test_rejects_other_suffixes(tmp_path, name, is_video, message):
    (tmp_path / "plain").touch()
    with pytest.raises(ValueError, match=message):
        name_files(tmp_path / name, "a cat", [0], is_video)
