import json
import shutil

import pytest
import torch
from PIL import Image

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.drawn.shapes import draw, drawings
from vilau_hf.evaluation.evaluated_model import EvaluatedModel
from vilau_hf.evaluation.image_tasks import Reconstruction, ReconstructionFid, ZeroShot
from vilau_hf.evaluation.metrics import psnr
from vilau_hf.evaluation.run_tasks import run_tasks
from vilau_hf.evaluation.sheets import to_pil
from vilau_hf.evaluation.task import TaskOptions


pytest.importorskip("torchmetrics", reason="needs the extra `training`")


@pytest.fixture(scope="module")
def model():
    return EvaluatedModel(TINY_CHECKPOINT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with one class for each of three shapes, as ImageNet has them."""
    folder = tmp_path_factory.mktemp("images")
    targets = [one for one in drawings("train") if one.size == "large" and one.background == "white"]
    for shape in ("circle", "cross", "square"):
        (folder / f"red_{shape}").mkdir()
        chosen = [one for one in targets if (one.color, one.shape) == ("red", shape)][:3]
        for number, pixels in enumerate(draw(chosen)):
            to_pil(pixels).save(folder / f"red_{shape}" / f"{number}.png")
    return folder


def test_reconstruction_compares_images_with_what_the_codes_keep(model, folder, tmp_path):
    task = Reconstruction(model, TaskOptions(data=str(folder), metrics=("psnr", "ssim")))
    content = run_tasks([task], tmp_path, batch_size=4)["tasks"]["reconstruction"]
    assert content["scores"]["psnr"]["count"] == len(task) == 9
    original = task.image(2)
    pixels = model.image_processor([original], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        rebuilt = model.vision_tower.decode(model.vision_tower.encode(pixels).codes)
    rebuilt = ((rebuilt.clamp(-1, 1) + 1) * 127.5).round()
    expected = psnr(rebuilt, ((pixels + 1) * 127.5).round(), 255)
    line = json.loads((tmp_path / "reconstruction" / "results-0.jsonl").read_text().splitlines()[2])
    assert line["metrics"]["psnr"] == pytest.approx(expected, rel=1e-3)
    assert 0.9 < line["metrics"]["ssim"] <= 1


def test_batch_size_does_not_change_reconstruction_scores(model, folder):
    task = Reconstruction(model, TaskOptions(data=str(folder), metrics=("psnr", "ssim")))
    together = [result.metrics for result in task.run([0, 4, 8])]
    alone = [task.run([index])[0].metrics for index in (0, 4, 8)]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_missing_weights_of_lpips_are_an_error_that_says_what_to_do(model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"LPIPS with alex needs .*Download https.*`--metrics psnr ssim`"):
        Reconstruction(model, TaskOptions(data=str(folder))).check()
    with pytest.raises(ValueError, match="`metrics` must be some of psnr, ssim, lpips, got psnf"):
        Reconstruction(model, TaskOptions(data=str(folder), metrics=("psnf",))).check()


def test_rfid_is_smaller_for_better_reconstructions(model, folder, tmp_path):
    task = ReconstructionFid(model, TaskOptions(data=str(folder), features="tower"))
    scores = run_tasks([task], tmp_path)["tasks"]["rfid"]["scores"]
    assert 0 <= scores["rfid"] < 1e4 and scores["psnr"]["count"] == 9
    results = task.run(range(9))
    for result in results:
        result.media["reconstruction"] = Image.new("RGB", (32, 32))
    shutil.rmtree(tmp_path / "rfid")
    task.run = lambda indices: [results[index] for index in indices]
    assert run_tasks([task], tmp_path)["tasks"]["rfid"]["scores"]["rfid"] > 2 * scores["rfid"]


def test_missing_weights_of_inception_are_an_error_that_names_the_offline_features(
    model, folder, tmp_path, monkeypatch
):
    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="FID needs the weights .*inception.*`--features tower`"):
        ReconstructionFid(model, TaskOptions(data=str(folder))).check()
    with pytest.raises(ValueError, match="`features` must be one of inception, tower.*, got 'clip'"):
        ReconstructionFid(model, TaskOptions(data=str(folder), features="clip")).check()


def test_zero_shot_names_the_classes_of_the_folders(model, folder, tmp_path):
    (tmp_path / "templates.txt").write_text("a {}\n")
    options = TaskOptions(data=str(folder), templates=str(tmp_path / "templates.txt"))
    task = ZeroShot(model, options)
    task.check()
    assert task.class_names == ["red circle", "red cross", "red square"]
    results = task.run(range(9))
    assert [result.texts["expected"] for result in results[::3]] == task.class_names
    assert sum(result.metrics["top_1"] for result in results) >= 7
    assert all(result.metrics["top_5"] for result in results)  # of three classes


def test_zero_shot_rejects_bad_names_templates_and_data(model, folder, tmp_path):
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"names\.txt has 2 names, but .* has 3 classes"):
        ZeroShot(model, TaskOptions(data=str(folder), classes=str(tmp_path / "names.txt"))).check()
    (tmp_path / "names.txt").write_text("one\ntwo\none\n")
    with pytest.raises(ValueError, match="each class must have another name, got one more than once"):
        ZeroShot(model, TaskOptions(data=str(folder), classes=str(tmp_path / "names.txt"))).check()
    (tmp_path / "templates.txt").write_text("a {}\na photo\n")
    with pytest.raises(ValueError, match=r"templates\.txt, line 2 must have \{\} once, got 'a photo'"):
        ZeroShot(model, TaskOptions(data=str(folder), templates=str(tmp_path / "templates.txt"))).check()
    with pytest.raises(ValueError, match="has no classes: give a folder with one subfolder for each class"):
        ZeroShot(model, TaskOptions(data=str(folder / "red_circle"))).check()
    with pytest.raises(ValueError, match="task 'zero-shot' needs `--data`, got none"):
        ZeroShot(model).check()
    with pytest.raises(ValueError, match="20 samples are needed, but .* has 9"):
        ZeroShot(model, TaskOptions(data=str(folder), samples=20)).check()


def test_zero_shot_without_a_text_encoder_says_how_to_get_one(folder, tmp_path):
    # a model whose folder has no tower beside it
    shutil.copytree(TINY_CHECKPOINT, tmp_path / "model", ignore=shutil.ignore_patterns("tower"))
    task = ZeroShot(EvaluatedModel(str(tmp_path / "model")), TaskOptions(data=str(folder)))
    with pytest.raises(ValueError, match=r"has no text encoder.* `--tower FOLDER`\. .*`vilau train` trains one"):
        task.check()
    given = EvaluatedModel(str(tmp_path / "model"), tower=f"{TINY_CHECKPOINT}/tower")
    ZeroShot(given, TaskOptions(data=str(folder))).check()
