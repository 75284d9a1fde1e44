"""`vilau chat`: a terminal, a script, and mistakes."""

import io
import json
import os
import pty
import sys

import pytest
from PIL import Image

from vilau_hf.cli import main
from vilau_hf.commands.chat import CHECKPOINTS
from vilau_hf.commands.generate import DEFAULT_MODEL


CROSS = "a small red cross at the bottom on a white background"


@pytest.fixture(autouse=True)
def in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def chat(capsys, monkeypatch, lines, *arguments):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    main(["chat", *map(str, arguments)])
    return capsys.readouterr()


def test_prints_an_answer_as_json_on_each_line(capsys, monkeypatch):
    lines = [f"/draw {CROSS}", "/attach vilau_chat/*", "describe the image", "/quit", "never read"]
    lines[1] = "/attach vilau_chat/a-small-red-cross-at-the-bottom-on-a-white-background-seed4.png"
    printed = chat(capsys, monkeypatch, lines, "--json", "--seed", 4)
    first, second = map(json.loads, printed.out.splitlines())
    (part,) = first["content"]
    assert first == {"role": "assistant", "seed": 4, "content": [part]} and part["type"] == "image"
    assert Image.open(part["path"]).size == (32, 32) and f"/attach {part['path']}" == lines[1]
    assert second["seed"] == 5 and second["content"] == [{"type": "text", "text": CROSS}]
    assert "1 attached" in printed.err


def test_prints_files_and_texts_where_no_image_can_be_shown(capsys, monkeypatch):
    printed = chat(capsys, monkeypatch, ["/new", f"/draw {CROSS}"], "--out", "new/folder.d")
    (path,) = printed.out.splitlines()
    assert path == "new/folder.d/a-small-red-cross-at-the-bottom-on-a-white-background-seed0.png"
    assert Image.open(path).size == (32, 32) and "The conversation is empty." in printed.err


def test_the_first_mistake_of_a_script_ends_the_chat(capsys, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        chat(capsys, monkeypatch, ["/nonsense", CROSS])
    assert stop.value.code == 1 and "there is no command /nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "`seed` must be from 0 to"),
        (["--max-images", "0"], "`--max-images` must be at least 1, got 0"),
        (["--num-frames", "0"], "`--num-frames` must be at least 1, got 0"),
        (["--out", "/dev/null"], "`--out` must be a folder, got /dev/null"),
        (["--model", "nowhere/at/all"], "nowhere/at/all"),
        (["--device", "x"], "`device` 'x' cannot be used"),
    ],
    ids=str,
)
def test_reports_mistakes_in_one_line(capsys, monkeypatch, arguments, message):
    with pytest.raises(SystemExit) as stop:
        chat(capsys, monkeypatch, [], *arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 1 and error.startswith("vilau: ") and message in error, error


def test_shipped_checkpoints_answer_single_messages():
    assert CHECKPOINTS.is_dir() and DEFAULT_MODEL.startswith(str(CHECKPOINTS))


def test_talks_at_a_terminal(tmp_path):
    """Types lines into a terminal of 256 colours that answers no sixel, and reads what it shows."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="100")
        os.environ.pop("NO_COLOR", None)
        command = [sys.executable, "-m", "vilau_hf.cli", "chat", "--images", "blocks"]
        os.execv(sys.executable, command)
    typed = [b"/nonsense\n", f"/draw {CROSS}\n".encode(), b"\x04"]
    shown, waiting = b"", b""
    while True:
        try:
            received = os.read(descriptor, 10_000)
        except OSError:  # the terminal is closed
            break
        if not received:
            break
        shown += received
        waiting += received
        if typed and waiting.endswith(b"> "):
            os.write(descriptor, typed.pop(0))
            waiting = b""
    _, status = os.waitpid(pid, 0)
    os.close(descriptor)
    text = shown.decode()
    assert os.waitstatus_to_exitcode(status) == 0, text
    assert "there is no command /nonsense" in text and "64 of 64 positions" in text and text.count("▀") > 32 * 16
    (file,) = (tmp_path / "vilau_chat").iterdir()
    assert file.name in text
