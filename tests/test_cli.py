import pytest
from PIL import Image

from vilau_hf.cli import main


def test_demo_writes_what_it_names(tmp_path, capsys):
    main(["demo", "--out", str(tmp_path), "--seed", "1"])
    printed = capsys.readouterr().out
    assert str(tmp_path) in printed
    assert Image.open(tmp_path / "pictures.png").width > 4 * 192
    assert Image.open(tmp_path / "reconstructions.png").width > 2 * 256
    gifs = list(tmp_path.glob("*.gif"))
    assert len(gifs) == 4 and all(Image.open(gif).n_frames == 4 for gif in gifs)
    table = (tmp_path / "answers.md").read_text().splitlines()
    assert len(table) == 2 + 20
    for word in ("pictures.png", "*.gif", "reconstructions.png", "answers.md"):
        assert word in printed


def test_help_and_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and "demo" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2


@pytest.mark.parametrize("command", [["demo"], ["push", "me/tiny", "--dry-run", "out"]])
def test_a_model_that_is_not_there_is_named_without_a_traceback(command, tmp_path, capsys):
    option = "--source" if command[0] == "push" else "--model"
    with pytest.raises(SystemExit) as stop:
        main([*command, option, str(tmp_path / "nowhere")])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("vilau: ") and "nowhere" in error
