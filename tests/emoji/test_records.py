import io
import json
import shutil
from collections import Counter

import pytest
from datasets import load_dataset
from PIL import Image

from vilau_hf.cli import main
from vilau_hf.data.records import validate_record
from vilau_hf.emoji.packages import CLIPS, STYLES
from vilau_hf.emoji.records import ANIMATED, default_cache, emoji_records


@pytest.fixture(scope="module")
def records(records_folder):
    return list(load_dataset(str(records_folder), split="train"))


def open_media(record):
    (media,) = [*record["images"], *record["videos"]]
    return Image.open(io.BytesIO(media["bytes"]))


def test_every_record_is_valid_and_has_an_id_of_its_own(records):
    for record in records:
        validate_record(record)
        assert record["id"] == f"{record['style']}/{record['concept']}"
    assert len({record["id"] for record in records}) == len(records)


def test_there_is_a_record_for_each_image_and_clip(records):
    counts = Counter(record["style"] for record in records)
    assert counts == {"noto": 60, "twemoji": 26, "flat": 26, "3d": 26, ANIMATED: 2}


def test_records_name_source_version_licence_author_and_url(records):
    packages = {package.name: package for package in (*STYLES.values(), *CLIPS)}
    for record in records:
        package = packages[record["source"]]
        named = (record["version"], record["licence"], record["author"], record["url"])
        assert named == (package.version, package.licence, package.author, package.url)
        assert record["style"] == ANIMATED or STYLES[record["style"]] == package
    assert {record["licence"] for record in records} == {"Apache-2.0", "CC-BY-4.0", "MIT"}


def test_images_are_transparent_and_of_the_asked_size(records):
    for record in records:
        if record["style"] != ANIMATED:
            image = open_media(record)
            assert (image.size, image.mode, image.format) == ((32, 32), "RGBA", "PNG")
            assert image.getextrema()[3] == (0, 255) or record["style"] == "3d", record["id"]


def test_clips_keep_their_files_and_still_images_are_no_clips(records, packages):
    # the package also holds a door that does not move
    clips = {record["name"]: record for record in records if record["style"] == ANIMATED}
    assert set(clips) == {"frog", "rainbow"}
    path = packages / "lobehub-fluent-emoji-anim-1" / "assets" / "1f438.webp"
    assert clips["frog"]["videos"][0]["bytes"] == path.read_bytes()
    assert open_media(clips["frog"]).n_frames == 12


def test_caption_is_the_user_and_the_image_the_answer(records):
    record = next(record for record in records if record["id"] == "noto/1f438")
    user, assistant = record["messages"]
    assert user == {"role": "user", "content": [{"type": "text", "text": "frog, noto"}]}
    assert assistant["content"] == [{"type": "image", "text": None}]
    assert (record["name"], record["group"]) == ("frog", "Animals & Nature") and "animal" in record["keywords"]


def test_file_that_a_package_holds_twice_gives_one_record(packages, tmp_path):
    shutil.copytree(packages, tmp_path / "packages")
    folder = tmp_path / "packages" / "lobehub-fluent-emoji-3d" / "assets"
    shutil.copy(folder / "2764-fe0f.webp", folder / "2764.webp")
    shutil.copy(folder / "2764-fe0f.webp", folder / "1f44b-1f3fd.webp")  # a skin tone, which has no name
    read = emoji_records([tmp_path / "packages"], size=8, with_clips=False, cache=tmp_path)
    pytest.importorskip("resvg_py", reason="needs the extra `emoji`")
    ids = [record["id"] for record in read]
    assert ids.count("3d/2764") == 1 and len([id for id in ids if id.startswith("3d/")]) == 26


def test_without_clips_their_packages_are_not_needed(packages, tmp_path):
    pytest.importorskip("resvg_py", reason="needs the extra `emoji`")
    shutil.copytree(packages, tmp_path / "packages", ignore=shutil.ignore_patterns("*anim*"))
    read = emoji_records([tmp_path / "packages"], size=8, with_clips=False, cache=tmp_path)
    assert {record["style"] for record in read} == set(STYLES)
    with pytest.raises(ValueError, match="4 of 10 packages are not in the sources"):
        emoji_records([tmp_path / "packages"], cache=tmp_path)  # raised before the first record


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "`size` must be a positive integer, got 0"),
        ({"with_clips": "no way"}, "`with_clips` must be true"),
    ],
)
def test_wrong_options_are_refused(packages, options, message):
    with pytest.raises(ValueError, match=message):
        emoji_records([packages], **options)


def test_tarballs_are_cached_beside_the_downloads_of_the_hub():
    assert default_cache().parts[-2:] == ("vilau_hf", "emoji")


def test_command_saves_records_and_counts_the_styles(packages, tmp_path, capsys):
    pytest.importorskip("resvg_py", reason="needs the extra `emoji`")
    out = tmp_path / "out"
    main(["records", "emoji", "--option", "size=16", str(packages), str(out), "--records-per-file", "100"])
    printed = capsys.readouterr().out
    assert "140 records: 60 noto, 26 twemoji, 26 flat, 26 3d, 2 animated" in printed and "2 files in" in printed
    dataset = load_dataset(str(out), split="train")
    assert len(dataset) == 140 and dataset[0]["licence"] == "Apache-2.0" and open_media(dataset[0]).size == (16, 16)


def test_command_needs_no_source(packages, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    cache = f"cache={tmp_path / 'cache'}"
    with pytest.raises(SystemExit) as stop:
        main(["records", "emoji", str(tmp_path / "out"), "--option", cache])
    error = capsys.readouterr().err
    assert stop.value.code == 1 and "npm is not installed" in error and error.count("npm pack ") == 10
    assert not list(tmp_path.iterdir())
    pytest.importorskip("resvg_py", reason="needs the extra `emoji`")
    shutil.copytree(packages, tmp_path / "cache")  # as if npm had fetched them
    main(["records", "emoji", str(tmp_path / "out"), "--option", cache, "--option", "size=8"])
    assert "140 records" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--option", "sized=64"], "Options of the format 'emoji' are size, with_clips and cache"),
        (["--target", "text"], "unexpected keyword argument 'target'"),
        (["--option", "size=large"], "`size` must be a positive integer, got 'large'"),
    ],
)
def test_command_refuses_wrong_options(packages, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["records", "emoji", str(packages), str(tmp_path / "out"), *arguments])
    assert stop.value.code == 1 and message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_command_refuses_a_package_of_another_version(packages, tmp_path, capsys):
    shutil.copytree(packages, tmp_path / "packages")
    description = tmp_path / "packages" / "iconify-json-twemoji" / "package.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "version": "1.2.4"}))
    with pytest.raises(SystemExit):
        main(["records", "emoji", str(tmp_path / "packages"), str(tmp_path / "out")])
    assert "must hold @iconify-json/twemoji@1.2.5, it holds @iconify-json/twemoji@1.2.4" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["packages"]


def test_command_refuses_a_folder_with_files_before_it_looks_for_packages(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        main(["records", "emoji", str(tmp_path)])
    assert "`folder` must be new or empty" in capsys.readouterr().err
