import math

import pytest
import torch
from PIL import Image

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.evaluation.alignment import alignment_curve, chamfer_distance
from vilau_hf.evaluation.model_outputs import user_message


def naive_distance(first, second):
    """The definition with loops over pairs."""

    def distance(a, b):
        return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    there = [min(distance(a, b) for b in second) for a in first]
    back = [min(distance(a, b) for a in first) for b in second]
    return (sum(there) / len(there) + sum(back) / len(back)) / 2


def test_distance_equals_the_definition():
    first, second = torch.randn(5, 8), torch.randn(3, 8)
    assert chamfer_distance(first, second) == pytest.approx(naive_distance(first.tolist(), second.tolist()), abs=1e-6)


def test_distance_counts_directions_and_not_lengths():
    vectors = torch.randn(4, 8)
    assert chamfer_distance(vectors, 3 * vectors.flip(0)) == pytest.approx(0, abs=1e-6)
    assert chamfer_distance(vectors[:1], -vectors[:1]) == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("shapes", [((0, 4), (2, 4)), ((2, 4), (0, 4)), ((2, 4), (2, 5))])
def test_distance_rejects_empty_sets_and_other_widths(shapes):
    with pytest.raises(ValueError, match="must contain vectors of one width"):
        chamfer_distance(*(torch.ones(shape) for shape in shapes))


@pytest.fixture(scope="module")
def shapes():
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT, dtype=torch.float32).eval()
    return model, VilaUProcessor.from_pretrained(TINY_CHECKPOINT)


def record(color, question):
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return {"messages": user_message(content), "images": [Image.new("RGB", (32, 32), color)]}


def test_curve_compares_visual_and_text_positions_of_every_layer(shapes):
    model, processor = shapes
    records = [record("red", "which color?"), record("blue", "describe the picture in a few words")]
    curve = alignment_curve(model, processor, records, batch_size=2)
    assert len(curve) == model.config.text_config.num_hidden_layers + 1
    assert all(score.count == 2 for score in curve)
    # one record by hand, without the padding that the longer one brings
    prompt = processor.apply_chat_template(records[0]["messages"], add_generation_prompt=True)
    inputs = processor(text=prompt, images=records[0]["images"], return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    ids = inputs["input_ids"][0]
    special = set(processor.tokenizer.all_special_ids)
    visual = [index for index, token in enumerate(ids.tolist()) if token == model.config.image_token_id]
    text = [index for index, token in enumerate(ids.tolist()) if token not in special]
    alone = alignment_curve(model, processor, records[:1])
    assert len(visual) == 64 and len(text) > 2
    for layer, score in zip(states, alone, strict=True):
        expected = naive_distance(layer[0, visual].tolist(), layer[0, text].tolist())
        assert score.value == pytest.approx(expected, abs=1e-4)


def test_curve_rejects_records_without_images(shapes):
    model, processor = shapes
    with pytest.raises(ValueError, match="record 1 of `records` has no image"):
        alignment_curve(model, processor, [record("red", "what?"), {"messages": user_message([]), "images": []}])
    with pytest.raises(ValueError, match="at least one record"):
        alignment_curve(model, processor, [])
