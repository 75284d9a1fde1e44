"""Metrics that `evaluate.load` loads from this package, without a network."""

import evaluate
import numpy as np
import pytest
import torch
from PIL import Image

from vilau_hf.drawn.shapes import draw, drawings
from vilau_hf.evaluation.metrics import EVALUATE_METRICS, codebook_perplexity


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)


@pytest.mark.parametrize("shape", [(4, 16), (4, 8, 2), (4, 2, 4, 2)])
def test_codebook_metric_equals_the_functions(shape):
    codes = torch.randint(0, 6, shape)
    scores = evaluate.load(str(EVALUATE_METRICS / "codebook")).compute(predictions=codes, codebook_size=12)
    assert scores == {"usage": codes.unique().numel() / 12, "perplexity": codebook_perplexity(codes, 12)}


@pytest.mark.parametrize("form", ["pil", "array"])
def test_drawn_shapes_metric_finds_a_wrong_background(form):
    targets = drawings("test")[:6]
    arrays = draw(targets).permute(0, 2, 3, 1).numpy()
    pictures = [Image.fromarray(array) for array in arrays] if form == "pil" else list(arrays)
    captions = [drawing.caption for drawing in targets]
    metric = evaluate.load(str(EVALUATE_METRICS / "drawn_shapes"))
    scores = metric.compute(predictions=pictures, references=captions)
    assert set(scores.values()) == {1.0} and len(scores) == 7
    captions[0] = captions[0].replace(targets[0].background, "black" if targets[0].background != "black" else "white")
    for picture, caption in zip(pictures, captions, strict=True):
        metric.add(prediction=picture, reference=caption)
    scores = metric.compute()
    assert scores["background"] == scores["all"] == pytest.approx(5 / 6) and scores["color_and_shape"] == 1


def test_drawn_shapes_metric_rejects_other_captions_and_unequal_sizes():
    metric = evaluate.load(str(EVALUATE_METRICS / "drawn_shapes"))
    pictures = [Image.fromarray(np.zeros((side, side, 3), np.uint8)) for side in (32, 48)]
    with pytest.raises(ValueError, match="`caption` must be the caption of a drawing, .* got 'a cat'"):
        metric.compute(predictions=pictures[:1], references=["a cat"])
    with pytest.raises(ValueError, match=r"images of one size, got \[\(32, 32\), \(48, 48\)\]"):
        metric.compute(predictions=pictures, references=[drawing.caption for drawing in drawings("test")[:2]])


def test_vqa_accuracy_metric_counts_people_who_agree():
    metric = evaluate.load(str(EVALUATE_METRICS / "vqa_accuracy"))
    scores = metric.compute(predictions=["Two.", "a dog"], references=[["2"] * 10, ["cat"] * 8 + ["dog"] * 2])
    assert scores == {"vqa_accuracy": pytest.approx((1 + (2 * 1 + 8 * 2) / 30) / 2)}
