import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vilau_hf.evaluation.media_files import save_video
from vilau_hf.integrations.lmms_store import Output, OutputStore, media_name, request_key
from vilau_hf.processing.video_decoding_vilau import decode_video


SETTINGS = {"mode": "generate", "seed": 0, "visual": {"guidance_scale": 3.0}}


def opened(folder: Path, rank: int = 0, settings: dict | None = None) -> OutputStore:
    """Returns a store that has begun and read."""
    store = OutputStore(folder, rank)
    store.begin(SETTINGS if settings is None else settings)
    store.read()
    return store


def test_finds_outputs_of_all_processes_in_a_later_run(tmp_path, shapes):
    first = opened(tmp_path / "out")
    name = first.save_image(shapes[0], "task", 3, 0)
    first.add({"a": Output("", (name,))})
    opened(tmp_path / "out", rank=1).add({"b": Output(["red", "blue"])})
    later = opened(tmp_path / "out")
    assert name == "task/0003_s0.png"
    assert later.find("a") == Output("", (name,))
    assert later.find("b") == Output(["red", "blue"])
    assert later.find("c") is None


def test_forgets_outputs_whose_files_are_missing(tmp_path, shapes):
    store = opened(tmp_path / "out")
    name = store.save_image(shapes[0], "task", 3, 0)
    store.add({"a": Output("", (name,))})
    (tmp_path / "out" / name).unlink()
    assert store.find("a") is None


def test_continues_after_a_line_that_a_kill_has_torn(tmp_path):
    store = opened(tmp_path / "out")
    store.add({"a": Output("red"), "b": Output("blue")})
    lines = tmp_path / "out" / "results-0.jsonl"
    lines.write_bytes(lines.read_bytes()[:-5])
    later = opened(tmp_path / "out")
    assert later.find("a") == Output("red")
    assert later.find("b") is None
    later.add({"b": Output("green")})
    assert opened(tmp_path / "out").find("b") == Output("green")


def test_rejects_a_damaged_line(tmp_path):
    opened(tmp_path / "out").add({"a": Output("red")})
    lines = tmp_path / "out" / "results-0.jsonl"
    lines.write_text('{"key": "a"}\n' + lines.read_text())
    with pytest.raises(ValueError, match=r"results-0.jsonl, line 1 is no output"):
        opened(tmp_path / "out")


def test_rejects_other_settings_by_name(tmp_path):
    opened(tmp_path / "out")
    changed = {**SETTINGS, "visual": {"guidance_scale": 2.0}}
    with pytest.raises(ValueError, match=r"visual.guidance_scale` \(3.0 there, 2.0 now\)"):
        opened(tmp_path / "out", settings=changed)


@pytest.mark.parametrize("form", ["json", "folder", "path"])
def test_gives_images_in_the_forms_that_tasks_expect(tmp_path, form):
    store = OutputStore(tmp_path)
    names = tuple(media_name("task", 3, sample, ".png") for sample in range(2))
    paths = [str(tmp_path / "task" / f"0003_s{sample}.png") for sample in range(2)]
    expected = {
        "json": json.dumps({"text": "", "images": paths}),
        "folder": str(tmp_path / "task"),
        "path": paths[0],
    }
    assert store.response(Output("", names), form) == expected[form]


def test_names_of_tasks_make_no_folders():
    assert media_name("group/task", 12345, 1, ".mp4") == "group_task/12345_s1.mp4"


def test_requests_that_differ_have_other_keys():
    keys = {request_key("task", 1), request_key("task", 2), request_key("task1"), request_key("task", "1")}
    assert len(keys) == 4
    assert request_key("task", 1) == request_key("task", 1)


def test_videos_can_be_read_again(tmp_path, shapes):
    save_video([*shapes, *shapes], tmp_path / "video.mp4", ".mp4")
    frames, metadata = decode_video(str(tmp_path / "video.mp4"))
    assert frames.shape == (6, 32, 32, 3)
    assert metadata.fps == 8
    expected = np.stack([np.asarray(shape) for shape in (*shapes, *shapes)])
    assert np.abs(frames.astype(int) - expected).mean() < 6  # colour has a quarter of the resolution in this format


def test_saved_images_are_exact(tmp_path, shapes):
    store = opened(tmp_path / "out")
    saved = Image.open(store.folder / store.save_image(shapes[1], "task", 0, 0))
    assert saved.tobytes() == shapes[1].tobytes()
    assert not list((tmp_path / "out").rglob("*.tmp"))
