import json

import pytest
from PIL import Image

from vilau_hf.evaluation.result_files import ResultFolder, json_number
from vilau_hf.evaluation.task import SampleResult


def result(index):
    image = Image.new("RGB", (4, 4), (index, 0, 0))
    return SampleResult(index, {"hit": index % 2 == 0, "size": 0.5}, {"prompt": f"é {index}"}, {"generated": image})


def test_results_of_all_processes_are_read_in_the_order_of_their_indices(tmp_path):
    first = ResultFolder(tmp_path / "run", process=0)
    first.begin({"seed": 0})
    first.write([result(0), result(2)], seconds=3)
    ResultFolder(tmp_path / "run", process=1).write([result(1)], seconds=1)
    results = first.read()
    assert list(results) == [0, 1, 2]
    assert results[2].metrics == {"hit": True, "size": 0.5} and results[2].texts == {"prompt": "é 2"}
    assert results[2].seconds == 1.5
    with Image.open(results[2].media["generated"]) as image:
        assert image.getpixel((0, 0)) == (2, 0, 0)


def test_a_line_that_a_kill_has_torn_is_dropped_and_then_written_again(tmp_path):
    folder = ResultFolder(tmp_path)
    folder.begin({})
    folder.write([result(0), result(1)], seconds=1)
    torn = folder.lines.read_bytes()[:-20]
    folder.lines.write_bytes(torn)
    assert list(folder.read()) == [0]
    folder.repair()
    folder.write([result(1)], seconds=1)
    assert list(folder.read()) == [0, 1]


def test_rejects_a_damaged_line_before_the_last_with_file_and_line(tmp_path):
    folder = ResultFolder(tmp_path)
    folder.begin({})
    folder.write([result(0), result(1), result(2)], seconds=1)
    lines = folder.lines.read_text().splitlines(keepends=True)
    folder.lines.write_text("".join([lines[0], lines[1][:30] + "\n", lines[2]]))
    with pytest.raises(ValueError, match=r"results-0\.jsonl, line 2 is no result"):
        folder.read()
    folder.lines.write_text(lines[0] + "[1]\n")
    with pytest.raises(ValueError, match=r"results-0\.jsonl, line 2 is no result"):
        folder.read()


def test_rejects_other_settings_and_names_them(tmp_path):
    settings = {"seed": 0, "metrics": ("psnr",), "model": {"dtype": "auto"}}
    ResultFolder(tmp_path).begin(settings)
    ResultFolder(tmp_path).begin(dict(settings))  # the same settings continue
    with pytest.raises(ValueError, match=r"other settings: `seed` \(0 there, 1 now\)\. Give the same"):
        ResultFolder(tmp_path).begin({**settings, "seed": 1})
    with pytest.raises(ValueError, match=r"`model\.dtype` \('auto' there, 'float32' now\)"):
        ResultFolder(tmp_path).begin({**settings, "model": {"dtype": "float32"}})
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == 0


def test_rejects_a_folder_with_other_files(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"no folder of an evaluation: it has thesis\.tex"):
        ResultFolder(tmp_path).begin({})


def test_a_video_is_saved_with_its_frames(tmp_path):
    folder = ResultFolder(tmp_path)
    folder.begin({})
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 100, 200)]
    folder.write([SampleResult(5, {}, media={"generated": frames})], seconds=0)
    path = folder.read()[5].media["generated"]
    assert path == tmp_path / "samples" / "generated" / "000005.gif"
    with Image.open(path) as video:
        assert video.n_frames == 3


def test_numbers_that_strict_json_lacks_become_null():
    assert json_number(1.5) == 1.5
    assert json_number(float("nan")) is None and json_number(float("inf")) is None
