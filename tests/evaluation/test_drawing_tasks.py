import json

import pytest
from PIL import Image

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.drawn.shapes import draw, drawings
from vilau_hf.evaluation.drawing_tasks import PromptFid
from vilau_hf.evaluation.evaluated_model import EvaluatedModel
from vilau_hf.evaluation.run_tasks import run_tasks
from vilau_hf.evaluation.sheets import to_pil
from vilau_hf.evaluation.task import TaskOptions


pytest.importorskip("torchmetrics", reason="needs the extra `training`")


@pytest.fixture(scope="module")
def model():
    return EvaluatedModel(TINY_CHECKPOINT)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Returns prompts and real images in the layout of MJHQ-30K: ids with categories, and a folder for each."""
    folder = tmp_path_factory.mktemp("mjhq")
    entries = {}
    for color in ("red", "blue"):
        (folder / "images" / color).mkdir(parents=True)
        chosen = [one for one in drawings("train") if one.color == color and one.size == "large"][:4]
        for number, (target, pixels) in enumerate(zip(chosen, draw(chosen), strict=True)):
            to_pil(pixels).resize((48, 40)).save(folder / "images" / color / f"{number}.jpg")
            if number < 3:
                entries[f"{color}{number}"] = {"category": color, "prompt": target.caption}
    (folder / "meta_data.json").write_text(json.dumps(entries))
    return folder


def options(benchmark, **kwargs):
    values = {"prompts": str(benchmark / "meta_data.json"), "reference": str(benchmark / "images")}
    return TaskOptions(**{**values, "features": "tower", **kwargs})


def test_distances_are_those_of_all_images_and_of_each_category(model, benchmark, tmp_path):
    task = PromptFid(model, options(benchmark))
    scores = run_tasks([task], tmp_path)["tasks"]["fid"]["scores"]
    assert set(scores) == {
        f"{name}{category}" for name in ("fid", "kid", "kid_std") for category in ("", "_red", "_blue")
    }
    assert scores["fid"] >= 0
    drawn = sorted((tmp_path / "fid" / "samples" / "generated").iterdir())
    assert [path.name for path in drawn] == [f"{index:06d}.png" for index in range(6)]
    with Image.open(drawn[0]) as image:
        assert image.size == (32, 32)


def test_rejects_a_reference_with_fewer_images_than_prompts_with_both_counts(model, benchmark, tmp_path):
    (tmp_path / "few").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "few" / "a.png")
    with pytest.raises(ValueError, match="few has 1 images, but 6 are needed"):
        PromptFid(model, options(benchmark, reference=str(tmp_path / "few"))).check()
    for category, count in (("red", 4), ("blue", 2)):
        (tmp_path / "some" / category).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (32, 32)).save(tmp_path / "some" / category / f"{number}.png")
    with pytest.raises(ValueError, match="blue has 2 images, but 3 are needed"):
        PromptFid(model, options(benchmark, reference=str(tmp_path / "some"))).check()
    with pytest.raises(ValueError, match="at least 2 prompts of each category, got 1 of the category 'red'"):
        PromptFid(model, options(benchmark, samples=2)).check()
    with pytest.raises(ValueError, match="`--reference` must be a folder of images"):
        PromptFid(model, options(benchmark, reference=str(tmp_path / "none"))).check()


def test_rejects_bad_prompts_before_anything_is_drawn(model, benchmark, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a red circle"}\n{"text\n')
    with pytest.raises(ValueError, match=r"prompts\.jsonl, line 2"):
        PromptFid(model, options(benchmark, prompts=str(tmp_path / "prompts.jsonl"))).check()
    with pytest.raises(ValueError, match="task 'fid' needs `--reference`"):
        PromptFid(model, TaskOptions(prompts=str(benchmark / "meta_data.json"))).check()
