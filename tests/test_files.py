"""Atomic writes, new folders and JSON files."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

import vilau_hf
from vilau_hf.files import (
    disk_errors,
    first_five,
    is_new_or_empty,
    new_folder,
    read_json,
    read_yaml,
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


def test_reads_yaml_with_and_without_a_byte_order_mark(tmp_path):
    for mark in ("", "\ufeff"):
        (tmp_path / "file.yaml").write_text(f"{mark}name: Bär", encoding="utf-8")
        assert read_yaml(tmp_path / "file.yaml") == {"name": "Bär"}
    (tmp_path / "file.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ValueError, match="cannot read '.*file.yaml': 'utf-8' codec can't decode"):
        read_yaml(tmp_path / "file.yaml")


def test_reads_files_as_utf8_in_a_locale_without_it(tmp_path):
    (tmp_path / "a.json").write_text('[{"name": "Bär"}]', encoding="utf-8")
    (tmp_path / "b.json").write_text('{"name": "Bär"}', encoding="utf-8")
    (tmp_path / "c.yaml").write_text("name: Bär", encoding="utf-8")
    code = (
        "import locale; from pathlib import Path; from vilau_hf.files import read_json, read_yaml\n"
        "assert locale.getpreferredencoding(False).lower() not in ('utf-8', 'utf8')\n"
        "assert read_json(Path('b.json')) == read_yaml(Path('c.yaml')) == {'name': 'B\\xe4r'}\n"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_every_text_file_is_opened_with_its_encoding():
    """The default encoding is that of the locale, in which the same file has another content."""
    missing = []
    for file in Path(vilau_hf.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            is_open = isinstance(call.func, ast.Name) and name == "open"
            binary = any(isinstance(each, ast.Constant) and "b" in str(each.value) for each in call.args[1:2])
            has_encoding = any(keyword.arg == "encoding" for keyword in call.keywords)
            if (name in ("read_text", "write_text") or (is_open and not binary)) and not has_encoding:
                missing.append(f"{file.name}:{call.lineno}")
    assert not missing


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs the file system of processes")
def test_rejects_folders_in_which_no_file_can_be_made():
    with pytest.raises(OSError, match="/proc"), temporary_folder(Path("/proc")):
        pass
