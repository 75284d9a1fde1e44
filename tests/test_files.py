"""Atomic writes, new folders and JSON files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from vilau_hf.files import (
    disk_errors,
    first_five,
    is_new_or_empty,
    new_folder,
    read_json,
    temporary_files,
    temporary_folder,
    write_then_rename,
)


DIGITS = "0123456789abcdef" * 2


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_then_rename(path, lambda temporary: temporary.write_text("whole"))

    def fail(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_then_rename(path, fail)
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


def test_folders_with_content_and_files_are_not_new(tmp_path):
    assert is_new_or_empty(tmp_path) and is_new_or_empty(tmp_path / "folder")
    (tmp_path / "file").touch()
    assert not is_new_or_empty(tmp_path) and not is_new_or_empty(tmp_path / "file")


def test_lists_five_names_in_order():
    assert first_five("gfedcba") == "a, b, c, d, e and 2 more"
    assert first_five("ba") == "a, b"


@pytest.mark.parametrize(("text", "message"), [("[1]", "must hold a JSON object, got list"), ("{", "cannot read")])
def test_rejects_a_file_without_a_json_object(tmp_path, text, message):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "file.json")


@pytest.mark.parametrize("exists", [False, True])
def test_a_new_folder_gets_its_name_when_it_is_complete(tmp_path, monkeypatch, exists):
    monkeypatch.chdir(tmp_path)
    folder = Path("parent/folder")
    if exists:
        folder.mkdir(parents=True)
    with new_folder(folder) as unfinished:
        (unfinished / "file").write_text("whole")
        assert not folder.exists() or not list(folder.iterdir())
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_new_folder_leaves_nothing(tmp_path, error):
    with pytest.raises((KeyboardInterrupt, OSError)):
        with new_folder(tmp_path / "folder") as unfinished:
            (unfinished / "file").write_text("half")
            raise error
    assert not list(tmp_path.iterdir())


def test_a_link_to_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with new_folder(tmp_path / "link") as unfinished:
        (unfinished / "file").touch()
    assert (tmp_path / "real" / "file").is_file() and (tmp_path / "link").is_symlink()


def start(folder):
    """Starts a process that has begun a new folder and waits."""
    script = (
        "import sys; from pathlib import Path; from vilau_hf.files import new_folder\n"
        "with new_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'file').touch(); print('begun', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    return process


def test_deletes_what_killed_processes_left_and_nothing_else(tmp_path):
    """The names of others look similar. A process that runs keeps its folder."""
    others = [".vilau-notes", f".vilau-{DIGITS}", "folder.incomplete", ".folder-abcdefgh"]
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
    killed, running = start(tmp_path / "killed"), start(tmp_path / "running")
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert len(list(tmp_path.glob(".vilau-*.lock"))) == 2
    with new_folder(tmp_path / "folder"):
        pass
    assert len(list(tmp_path.glob(".vilau-*.lock"))) == 1
    running.communicate()
    assert {path.name for path in tmp_path.iterdir()} == {*others, "folder", "running"}
    assert (tmp_path / "running" / "file").is_file()


def test_a_temporary_folder_is_gone_at_the_end(tmp_path):
    with temporary_folder(tmp_path / "parent") as folder, temporary_folder(tmp_path / "parent") as other:
        assert folder.is_dir() and other.is_dir() and folder != other
    assert not list((tmp_path / "parent").iterdir())


def test_lists_temporary_files_by_their_random_digits(tmp_path):
    for name in ("index.json.notes.tmp", f"index.json.{DIGITS}.tmp", f"other.json.{DIGITS}.tmp"):
        (tmp_path / name).touch()
    assert temporary_files(tmp_path, "index.json") == [tmp_path / f"index.json.{DIGITS}.tmp"]


def test_a_full_disk_is_an_os_error_with_the_name_of_the_folder(tmp_path):
    with pytest.raises(OSError, match=r"cannot write to .*: I/O error: No space left"), disk_errors(tmp_path):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
