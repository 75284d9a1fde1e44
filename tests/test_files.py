"""Atomic writes, new folders and JSON files."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vilau_hf
from vilau_hf.files import first_five, is_new_or_empty, read_json, read_yaml, write_then_rename


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
