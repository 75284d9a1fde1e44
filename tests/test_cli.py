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
