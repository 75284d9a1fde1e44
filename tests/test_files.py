"""Atomic writes, new folders and JSON files."""

import pytest

from vilau_hf.files import first_five, is_new_or_empty, read_json, write_then_rename


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
