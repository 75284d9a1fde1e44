import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vilau_hf.data.collator_vilau import VilaUDataCollator

from ..processing.conftest import build_processor


def build_image(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def asked(words, *answer, question=()):
    content = [*question, {"type": "text", "text": words}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": list(answer)}]


DRAW = {"messages": asked("draw a circle", {"type": "image"}), "images": [build_image(0)]}
ANSWER = {
    "messages": asked("what is this", {"type": "text", "text": "a red square"}, question=[{"type": "image"}]),
    "images": [build_image(1)],
    "videos": [],
}
MOVE = {"messages": asked("it moves", {"type": "video"}), "images": None, "videos": [[build_image(2), build_image(3)]]}
EDIT = {
    "messages": asked("draw it red", {"type": "image"}, question=[{"type": "image"}]),
    "images": [build_image(4), build_image(5)],
}
TEXT = {"messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": "a square"}]}


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def test_batch_has_all_media_in_order(processor):
    batch = VilaUDataCollator(processor, unconditional_probability=0)([DRAW, MOVE, TEXT, ANSWER, EDIT])
    expected = processor.image_processor([build_image(seed) for seed in (0, 1, 4, 5)], return_tensors="pt")
    torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"])
    frames = processor.image_processor([build_image(2), build_image(3)], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(batch["pixel_values_videos"], frames[None])
    assert batch["pixel_values"].dtype == torch.float32
    placeholders = batch["input_ids"] == processor.image_token_id
    assert placeholders.sum(1).tolist() == [4, 0, 0, 4, 8]
    assert (batch["labels"] == processor.image_token_id).sum(1).tolist() == [4, 0, 0, 0, 4]
    assert (batch["labels"] == processor.video_token_id).sum(1).tolist() == [0, 8, 0, 0, 0]


def test_batch_has_no_keys_for_missing_media(processor):
    collator = VilaUDataCollator(processor)
    assert set(collator([TEXT])) == {"input_ids", "attention_mask", "labels"}
    assert set(collator([DRAW])) == {"input_ids", "attention_mask", "labels", "pixel_values"}
    assert set(collator([MOVE])) == {"input_ids", "attention_mask", "labels", "pixel_values_videos"}


def test_dropped_prompt_equals_the_unconditional_prompt(processor):
    batch = VilaUDataCollator(processor, unconditional_probability=1)([DRAW, MOVE])
    prompt = processor.unconditional_prompt_ids()
    for row, marker in enumerate((processor.image_start_token_id, processor.video_start_token_id)):
        assert batch["input_ids"][row, : len(prompt) + 1].tolist() == [*prompt, marker]
        assert batch["labels"][row, : len(prompt)].eq(-100).all() and batch["labels"][row, len(prompt)] == marker


def test_keeps_prompts_of_text_targets_and_images_of_the_user(processor):
    kept, dropped = (VilaUDataCollator(processor, unconditional_probability=share) for share in (0, 1))
    for record in (ANSWER, TEXT):
        assert torch.equal(kept([record])["input_ids"], dropped([record])["input_ids"])
    words = len(processor.tokenizer("draw it red")["input_ids"])
    assert dropped([EDIT])["input_ids"].shape[1] == kept([EDIT])["input_ids"].shape[1] - words
    assert dropped([EDIT])["pixel_values"].shape[0] == 2
    assert EDIT["messages"][0]["content"][1]["text"] == "draw it red"


DRAWN_CODES = {"messages": DRAW["messages"], "codes": [np.zeros((1, 12), dtype=np.uint8)]}  # quicker than pixels


def dropped(collator, records):
    """Returns which of the records lose their prompt. All records must have the same length."""
    lengths = collator(records)["attention_mask"].sum(1)
    return (lengths < VilaUDataCollator(collator.processor, 0)(records)["attention_mask"].shape[1]).tolist()


def test_drops_the_given_share_of_prompts(processor):
    """The share of 400 draws with probability 0.1 stays within 4 sigma (0.06), with and without ids."""
    for records in ([{**DRAWN_CODES, "id": str(number)} for number in range(400)], [DRAWN_CODES] * 400):
        first, again, other = (dropped(VilaUDataCollator(processor, seed=seed), records) for seed in (0, 0, 1))
        assert first == again and first != other
        assert 0.04 < np.mean(first) < 0.16
    with pytest.raises(ValueError, match="unconditional_probability"):
        VilaUDataCollator(processor, unconditional_probability=2)


def test_dropped_prompts_depend_only_on_pass_and_batch(processor):
    collator = VilaUDataCollator(processor, unconditional_probability=0.5)
    records = [{**DRAW, "id": str(number)} for number in range(40)]
    first, others = dropped(collator, records), dropped(collator, records[::-1])
    assert others != first[::-1]
    assert dropped(collator, records) == first
    collator.set_epoch(1)
    second = dropped(collator, records)
    assert second != first
    assert dropped(VilaUDataCollator(processor, 0.5), [{**record, "pass": 1} for record in records]) == second
    collator.set_epoch(0)
    assert dropped(collator, records) == first


def test_workers_give_the_batches_of_one_process_in_every_pass(processor):
    """Persistent workers read the epoch from shared memory."""
    records, passes = [{**DRAW, "id": str(number)} for number in range(16)], []
    for num_workers in (0, 2):
        collator = VilaUDataCollator(processor, unconditional_probability=0.5)
        options = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
        loader = DataLoader(records, batch_size=4, collate_fn=collator, **options)
        passes.append([])
        for epoch in (0, 1):
            collator.set_epoch(epoch)
            passes[-1].append([batch["attention_mask"].sum(1).tolist() for batch in loader])
    assert passes[0] == passes[1] and passes[0][0] != passes[0][1]


def test_cuts_text_at_max_length(processor):
    assert VilaUDataCollator(processor, max_length=10)([TEXT])["input_ids"].shape == (1, 10)


CODES = np.arange(16 * 3, dtype=np.uint8).reshape(4, 4, 3)  # four images or frames of 4 visual tokens and 3 codes


def test_codes_replace_media_in_the_order_of_placeholders(processor):
    """With a video of two frames between two images. `codes` has one list for images and videos."""
    question = [{"type": "image"}, {"type": "video"}, {"type": "image"}]
    messages = asked("what is this", {"type": "text", "text": "a red square"}, question=question)
    pixels = {"images": [build_image(0), build_image(1)], "videos": [[build_image(2), build_image(3)]]}
    collator = VilaUDataCollator(processor)
    expected = collator([{"messages": messages, **pixels}, TEXT])
    for codes in (CODES, CODES.reshape(4, 12)):  # as an array, and flat as they are stored
        record = {"messages": messages, "codes": [codes[:1].tolist(), codes[1:3], codes[3:]]}
        batch = collator([record, {**TEXT, "codes": []}])
        assert set(batch) == {"input_ids", "attention_mask", "labels", "codes"}
        assert torch.equal(batch["codes"], torch.tensor(CODES, dtype=torch.long))
        for name in ("input_ids", "attention_mask", "labels"):
            assert torch.equal(batch[name], expected[name])
    assert "codes" not in collator([{**TEXT, "codes": []}])


def test_codes_of_videos_may_differ_in_length(processor):
    videos = [{"messages": asked("it moves", {"type": "video"}), "codes": [CODES[:frames]]} for frames in (1, 3)]
    batch = VilaUDataCollator(processor)(videos)
    assert (batch["input_ids"] == processor.video_token_id).sum(1).tolist() == [4, 12]
    assert torch.equal(batch["codes"], torch.tensor(CODES[[0, 0, 1, 2]], dtype=torch.long))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": []}, "Found 1 placeholders and 0 images and videos in sample 1"),
        ({"codes": [CODES[:1], CODES[:1]]}, "Found 1 placeholders and 2 images and videos in sample 1"),
        ({"codes": [CODES[:2]]}, r"an image has one frame, but sample 1 gives \[2\] frames"),
        ({"codes": [CODES[:1, :3]]}, r"must be integers of shape \(F, 4, D\), got uint8 of shape \(1, 3, 3\)"),
        ({"codes": [CODES[:1] / 2]}, r"must be integers of shape \(F, 4, D\), got float64"),
        ({"images": [build_image(0)]}, "`codes` replace `images` and `videos`: give one or the other"),
    ],
)
def test_rejects_codes_that_do_not_fit(processor, change, message):
    record = {"messages": DRAW["messages"], "codes": [CODES[:1]]}
    with pytest.raises(ValueError, match=message):
        VilaUDataCollator(processor, unconditional_probability=0)([record, {**record, **change}])


@pytest.mark.parametrize("share", [0, 1])
def test_drops_prompts_of_encoded_records(processor, share):
    records = [
        {**DRAW, "images": None, "codes": [CODES[:1]]},
        {**EDIT, "images": [], "codes": [CODES[:1], CODES[1:2]]},
    ]
    batch = VilaUDataCollator(processor, unconditional_probability=share)(records)
    expected = VilaUDataCollator(processor, unconditional_probability=share)([DRAW, EDIT])
    assert torch.equal(batch["input_ids"], expected["input_ids"]) and torch.equal(batch["labels"], expected["labels"])
    assert torch.equal(batch["codes"], torch.tensor(CODES[[0, 0, 1]], dtype=torch.long))


def test_pads_rows_to_a_multiple(processor):
    plain = VilaUDataCollator(processor, unconditional_probability=0)([DRAW, TEXT])
    batch = VilaUDataCollator(processor, unconditional_probability=0, pad_to_multiple_of=64)([DRAW, TEXT])
    length = plain["input_ids"].shape[1]
    assert length % 64 and batch["input_ids"].shape == (2, -(-length // 64) * 64)
    for name, fill in (("input_ids", processor.tokenizer.pad_token_id), ("labels", -100), ("attention_mask", 0)):
        assert torch.equal(batch[name][:, :length], plain[name]) and batch[name][:, length:].eq(fill).all()
    with pytest.raises(ValueError, match="`pad_to_multiple_of` must be an integer of at least 1, got 0"):
        VilaUDataCollator(processor, pad_to_multiple_of=0)


def test_drops_prompts_of_packed_records_one_by_one(processor):
    records = [DRAW, ANSWER, DRAW]
    single = [VilaUDataCollator(processor, unconditional_probability=1)([record]) for record in records]
    packed = VilaUDataCollator(processor, unconditional_probability=1)([{"records": records}])
    assert torch.equal(packed["input_ids"], torch.cat([each["input_ids"] for each in single], dim=1))
    assert packed["input_ids"].shape[1] < VilaUDataCollator(processor, 0)([{"records": records}])["input_ids"].shape[1]


def test_errors_are_at_visual_targets_alone_and_are_drawn_as_prompts_are(processor):
    collator = VilaUDataCollator(processor, unconditional_probability=0, context_noise=1.0, pad_to_multiple_of=8)
    records = [DRAW, MOVE, TEXT, ANSWER, EDIT]
    batches = []
    for number in range(60):
        collator.set_epoch(number)
        batches.append(collator(records))
    is_target = (batches[0]["labels"] == processor.image_token_id) | (batches[0]["labels"] == processor.video_token_id)
    errors = torch.stack([batch["context_errors"] for batch in batches])
    assert errors.dtype == torch.bool and errors.shape[1:] == batches[0]["input_ids"].shape
    assert not errors[:, ~is_target].any()
    # A rate of [0, 1] for each record: all positions of an image have one half on average, and few or many at once.
    shares = errors[:, 0][:, is_target[0]].float().mean(-1)
    assert 0.35 < shares.mean() < 0.65 and (shares == 0).any() and (shares == 1).any()
    again = VilaUDataCollator(processor, unconditional_probability=0, context_noise=1.0, pad_to_multiple_of=8)
    assert torch.equal(again(records)["context_errors"], batches[0]["context_errors"])
    assert not torch.equal(batches[1]["context_errors"], batches[0]["context_errors"])


def test_a_share_of_records_has_errors_and_none_in_evaluation(processor):
    collator = VilaUDataCollator(processor, context_noise=0.25)
    batch = collator([{**DRAW, "id": str(number)} for number in range(400)])
    # Images of 4 positions with a rate of [0, 1] have an error in 4 of 5 cases: the mean of 1 - (1 - rate) ** 4.
    assert batch["context_errors"].any(1).float().mean() == pytest.approx(0.25 * 0.8, abs=0.06)
    assert "context_errors" not in collator.for_evaluation()([DRAW])
    assert "context_errors" not in VilaUDataCollator(processor)([DRAW])


def test_packed_records_keep_their_errors(processor):
    settings = {"unconditional_probability": 0, "context_noise": 1.0, "seed": 5}
    records = [DRAW, EDIT, MOVE]
    padded = VilaUDataCollator(processor, **settings)(records)
    batch = VilaUDataCollator(processor, padding_free=True, **settings)(records)
    is_token = padded["attention_mask"].bool()
    assert torch.equal(batch["context_errors"][0], padded["context_errors"][is_token])
    packs = VilaUDataCollator(processor, **settings)([{"records": records}, {"records": [TEXT]}])
    is_target = (packs["labels"] == processor.image_token_id) | (packs["labels"] == processor.video_token_id)
    assert packs["context_errors"].shape == packs["input_ids"].shape
    assert packs["context_errors"].any() and not packs["context_errors"][~is_target].any()
