import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vilau_hf.training.data import VilaUDataCollator

from ..processing.conftest import build_processor


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def asked(words, *answer, question=()):
    content = [*question, {"type": "text", "text": words}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": list(answer)}]


DRAW = {"messages": asked("draw a circle", {"type": "image"}), "images": [picture(0)]}
ANSWER = {
    "messages": asked("what is this", {"type": "text", "text": "a red square"}, question=[{"type": "image"}]),
    "images": [picture(1)],
    "videos": [],
}
MOVE = {"messages": asked("it moves", {"type": "video"}), "images": None, "videos": [[picture(2), picture(3)]]}
EDIT = {
    "messages": asked("draw it red", {"type": "image"}, question=[{"type": "image"}]),
    "images": [picture(4), picture(5)],
}
TEXT = {"messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": "a square"}]}


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def test_a_batch_holds_all_media_in_order(processor):
    batch = VilaUDataCollator(processor, unconditional_probability=0)([DRAW, MOVE, TEXT, ANSWER, EDIT])
    expected = processor.image_processor([picture(seed) for seed in (0, 1, 4, 5)], return_tensors="pt")
    torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"])
    frames = processor.image_processor([picture(2), picture(3)], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(batch["pixel_values_videos"], frames[None])
    assert batch["pixel_values"].dtype == torch.float32
    placeholders = batch["input_ids"] == processor.image_token_id
    assert placeholders.sum(1).tolist() == [4, 0, 0, 4, 8]
    assert (batch["labels"] == processor.image_token_id).sum(1).tolist() == [4, 0, 0, 0, 4]
    assert (batch["labels"] == processor.video_token_id).sum(1).tolist() == [0, 8, 0, 0, 0]


def test_keys_of_media_that_are_not_there_are_absent(processor):
    collator = VilaUDataCollator(processor)
    assert set(collator([TEXT])) == {"input_ids", "attention_mask", "labels"}
    assert set(collator([DRAW])) == {"input_ids", "attention_mask", "labels", "pixel_values"}
    assert set(collator([MOVE])) == {"input_ids", "attention_mask", "labels", "pixel_values_videos"}


def test_a_dropped_prompt_is_the_unconditional_prompt(processor):
    batch = VilaUDataCollator(processor, unconditional_probability=1)([DRAW, MOVE])
    prompt = processor.unconditional_prompt_ids()
    for row, marker in enumerate((processor.image_start_token_id, processor.video_start_token_id)):
        assert batch["input_ids"][row, : len(prompt) + 1].tolist() == [*prompt, marker]
        assert batch["labels"][row, : len(prompt)].eq(-100).all() and batch["labels"][row, len(prompt)] == marker


def test_prompts_of_text_targets_and_images_of_the_user_are_kept(processor):
    kept, dropped = (VilaUDataCollator(processor, unconditional_probability=share) for share in (0, 1))
    for record in (ANSWER, TEXT):
        assert torch.equal(kept([record])["input_ids"], dropped([record])["input_ids"])
    words = len(processor.tokenizer("draw it red")["input_ids"])
    assert dropped([EDIT])["input_ids"].shape[1] == kept([EDIT])["input_ids"].shape[1] - words
    assert dropped([EDIT])["pixel_values"].shape[0] == 2
    assert EDIT["messages"][0]["content"][1]["text"] == "draw it red"


def dropped_rows(collator, batches=40):
    lengths = [collator([DRAW] * 20)["attention_mask"].sum(1) for _ in range(batches)]
    return torch.cat(lengths) < torch.cat(lengths).max()


def test_the_share_of_dropped_prompts_and_its_seed(processor):
    first, again, other = (dropped_rows(VilaUDataCollator(processor, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert 0.06 < first.float().mean() < 0.14
    with pytest.raises(ValueError, match="unconditional_probability"):
        VilaUDataCollator(processor, unconditional_probability=2)


def test_workers_of_a_loader_give_the_same_batches_each_time(processor):
    def batches():
        collator = VilaUDataCollator(processor, unconditional_probability=0.5)
        loader = DataLoader([DRAW] * 16, batch_size=4, num_workers=2, collate_fn=collator)
        return [batch["attention_mask"].sum(1) for batch in loader]

    first, again = batches(), batches()
    assert len(first) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(torch.cat(first).unique()) == 2


def test_max_length_reaches_the_processor(processor):
    assert VilaUDataCollator(processor, max_length=10)([TEXT])["input_ids"].shape == (1, 10)
