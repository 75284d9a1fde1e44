import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from transformers import DataCollatorWithFlattening
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

from vilau_hf import TINY_CHECKPOINT, VilaUConfig, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.data import MediaLoader, PackedDataset, RecordPacker, RecordStream, VilaUDataCollator, record_features
from vilau_hf.data.packing import best_fit
from vilau_hf.drawn import drawn_shapes
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments


TASKS = {"text_to_image": 2, "image_to_text": 2, "text_to_video": 1, "video_to_text": 1, "edit": 1, "story": 1}
TEXT = {
    "messages": [
        {"role": "user", "content": "what color is the shape?"},
        {"role": "assistant", "content": [{"type": "text", "text": "blue"}]},
    ]
}
FIELDS = ("messages", "images", "videos")
DOCUMENT = {"messages": [{"role": "document", "content": "a red circle"}]}


@pytest.fixture(scope="module")
def processor():
    return VilaUProcessor.from_pretrained(TINY_CHECKPOINT)


@pytest.fixture(scope="module")
def records():
    drawn = [next(iter(drawn_shapes(num_samples=1, tasks={task: 1.0}))) for task in TASKS if task != "video_to_text"]
    return [*drawn[:2], TEXT, *drawn[2:], DOCUMENT]


@pytest.fixture
def model():
    return VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)


def loss_and_gradients(model, batches, **counts):
    """Returns the summed losses of `batches`, each divided by the counts of all batches, and the gradients."""
    model.zero_grad()
    outputs = []
    for batch in batches:
        outputs.append(model(**batch, **counts))
        outputs[-1].loss.backward()
    losses = [sum(output[name].detach() for output in outputs) for name in ("text_loss", "visual_loss")]
    return losses, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_packed_equals_single(model, processor, records, packed):
    """Compares a packed batch with each record in a separate batch, where records cannot see each other."""
    collator = VilaUDataCollator(processor, unconditional_probability=0)
    single = [collator([record]) for record in records]
    visual = sum(((b["labels"] == 8) | (b["labels"] == 9))[:, 1:].sum() for b in single)
    text = sum((b["labels"] != -100)[:, 1:].sum() for b in single) - visual
    counts = {"num_text_items": text, "num_visual_items": visual}
    losses, gradients = loss_and_gradients(model.train(), single, **counts)
    packed_losses, packed_gradients = loss_and_gradients(model, [packed])  # it counts its targets itself
    for packed_loss, loss in zip(packed_losses, losses, strict=True):
        torch.testing.assert_close(packed_loss, loss)
    assert packed_gradients.keys() == gradients.keys() and len(gradients) > 50
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, msg=name, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_one_row_gives_the_losses_and_gradients_of_its_records(model, processor, records, attention):
    model.model.language_model.set_attn_implementation(attention)
    packed = VilaUDataCollator(processor, unconditional_probability=0, padding_free=True)(records)
    assert packed["input_ids"].shape[0] == 1 and "attention_mask" not in packed
    assert_packed_equals_single(model, processor, records, packed)


@pytest.mark.slow
def test_one_row_gives_the_losses_of_its_records_with_flex_attention(model, processor, records):
    """Without gradients, which torch does not have for flex attention on the CPU."""
    packed = VilaUDataCollator(processor, unconditional_probability=0, padding_free=True)(records)
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        expected = model.train()(**packed)
        model.model.language_model.set_attn_implementation("flex_attention")
        output = model(**packed)
    torch.testing.assert_close(output.text_loss, expected.text_loss)
    torch.testing.assert_close(output.visual_loss, expected.visual_loss)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has gradients of flex attention on a GPU only")
def test_one_row_gives_the_gradients_of_its_records_with_flex_attention(model, processor, records):
    packed = VilaUDataCollator(processor, unconditional_probability=0, padding_free=True)(records)
    packed = {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in packed.items()}
    results = []
    for attention in ("sdpa", "flex_attention"):
        model.cuda().train().model.language_model.set_attn_implementation(attention)
        results.append(loss_and_gradients(model, [packed]))
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, msg=name, atol=1e-4, rtol=1e-2)


def test_padded_packs_give_the_losses_and_gradients_of_their_records(model, processor, records):
    packs = [{"records": records[:4]}, {"records": records[4:5]}, {"records": records[5:]}]
    packed = VilaUDataCollator(processor, unconditional_probability=0, pad_to_multiple_of=100)(packs)
    assert packed["input_ids"].shape[0] == 3 and packed["input_ids"].shape[1] % 100 == 0
    assert_packed_equals_single(model, processor, records, packed)


def test_separates_samples_without_labels(model, processor, records):
    """For custom losses. With the cache that a language model creates, its masks ignore packed samples."""
    batch = VilaUDataCollator(processor, padding_free=True)(records[:2])
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model.train()(**batch).logits
        torch.testing.assert_close(logits, model.eval()(**batch, labels=labels).logits)


@pytest.mark.parametrize(
    "text_config",
    [
        {"model_type": "mistral", "sliding_window": 12, "num_key_value_heads": 2},
        {"model_type": "gemma2", "sliding_window": 12, "head_dim": 12, "num_key_value_heads": 2},
        {"model_type": "qwen3", "head_dim": 12, "num_key_value_heads": 2},
        {"model_type": "gpt2", "n_positions": 64, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    ],
    ids=lambda text_config: text_config["model_type"],
)
def test_language_models_separate_samples(config, text_config):
    """With sliding windows, grouped keys and learned positions. The other tests use llama."""
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    values = {**config.to_dict(), "text_config": {"vocab_size": 60, **sizes, **text_config}}
    model = VilaUForConditionalGeneration(VilaUConfig(**values)).train()
    rows = [torch.randint(5, 50, (1, length)) for length in (20, 31, 7)]
    expected = sum(model(row, labels=row, num_text_items=55).loss for row in rows)
    labels = torch.cat([torch.nn.functional.pad(row[:, 1:], (1, 0), value=-100) for row in rows], dim=1)
    positions = torch.cat([torch.arange(row.shape[1]) for row in rows])[None]
    packed = model(torch.cat(rows, dim=1), position_ids=positions, labels=labels)
    torch.testing.assert_close(packed.loss, expected)
    assert not torch.isclose(model(torch.cat(rows, dim=1), labels=labels).loss, expected, rtol=1e-3)


def test_positions_restart_and_first_labels_are_ignored(processor, records):
    collator = VilaUDataCollator(processor, unconditional_probability=0)
    single = [collator([record]) for record in records]
    batch = VilaUDataCollator(processor, unconditional_probability=0, padding_free=True)(records)
    ends = np.cumsum([each["input_ids"].shape[1] for each in single])
    for each, end in zip(single, ends, strict=True):
        row_slice = slice(end - each["input_ids"].shape[1], end)
        assert torch.equal(batch["input_ids"][:, row_slice], each["input_ids"])
        assert batch["position_ids"][0, row_slice].tolist() == list(range(each["input_ids"].shape[1]))
        assert batch["labels"][0, row_slice.start] == -100
        assert torch.equal(batch["labels"][:, row_slice][:, 1:], each["labels"][:, 1:])
    assert ends[-1] == batch["input_ids"].shape[1]


def test_ignores_a_target_in_the_first_position(processor):
    """The first word of a document without a token before it must not be predicted from the previous sample."""
    plain = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    plain.chat_template = processor.chat_template.replace("{{- bos_token -}}", "")
    plain.tokenizer.add_bos_token = False
    alone = VilaUDataCollator(plain)([DOCUMENT])
    assert alone["labels"][0, 0] == alone["input_ids"][0, 0]
    packed = VilaUDataCollator(plain, padding_free=True)([DOCUMENT, DOCUMENT])
    length = alone["labels"].shape[1]
    assert packed["labels"][0, 0] == -100 and packed["labels"][0, length] == -100


def test_flash_attention_arguments_equal_those_of_transformers(processor, records):
    collator = VilaUDataCollator(processor, unconditional_probability=0)
    single = [{name: tensor[0] for name, tensor in collator([record]).items()} for record in records]
    expected = DataCollatorWithFlattening(return_flash_attn_kwargs=True)(
        [{name: sample[name] for name in ("input_ids", "labels")} for sample in single]
    )
    batch = VilaUDataCollator(processor, unconditional_probability=0, padding_free=True)(records)
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(batch[name], value) and batch[name].dtype == value.dtype, name
        else:
            assert batch[name] == value and type(batch[name]) is type(value), name


def test_padding_of_a_row_is_a_sample_for_flash_attention(processor, records):
    packs = [{"records": records[:4]}, {"records": records[4:5]}, {"records": records[5:]}]
    batch = VilaUDataCollator(processor, unconditional_probability=0)(packs)
    (borders, _), (longest, _) = prepare_fa_kwargs_from_position_ids(batch["position_ids"])
    assert torch.equal(batch["cu_seq_lens_q"], borders) and torch.equal(batch["cu_seq_lens_k"], borders)
    assert batch["max_length_q"] == batch["max_length_k"] == longest
    assert borders[-1] == batch["input_ids"].numel()


def test_best_fit_equals_a_solution_by_hand():
    #                 0  1  2  3  4  5  6
    bins = best_fit([3, 8, 2, 5, 7, 1, 4], 10)
    # longest first: 8 | 7 | 5 | 4 beside 5 | 3 beside 7 | 2 beside 8 | 1 beside 5 and 4
    assert bins == [[0, 4], [1, 2], [3, 5, 6]]
    assert best_fit([], 10) == [] and best_fit([10, 10], 10) == [[0], [1]]


def test_best_fit_fills_rows_and_keeps_all_records():
    lengths = np.random.default_rng(0).integers(20, 600, 2000).tolist()
    bins = best_fit(lengths, 1024)
    assert sorted(index for each in bins for index in each) == list(range(2000))
    assert max(sum(lengths[index] for index in each) for each in bins) <= 1024
    assert sum(lengths) / (1024 * len(bins)) > 0.98


def row_lengths(processor, packs, **kwargs):
    collator = VilaUDataCollator(processor, unconditional_probability=0, **kwargs)
    return [collator([pack])["input_ids"].shape[1] for pack in packs]


def test_packs_of_a_dataset_fit_max_length(processor):
    dataset, packer = drawn_shapes(num_samples=60, tasks=TASKS), RecordPacker(processor, max_length=600)
    packed = PackedDataset(dataset, packer)
    assert sorted(index for pack in packed.packs for index in pack) == list(range(60))
    lengths = row_lengths(processor, packed)
    assert max(lengths) <= 600 and packed.fill == pytest.approx(sum(lengths) / (600 * len(lengths)))
    assert packed.fill > 0.8
    assert packed.packs == PackedDataset(dataset, packer).packs
    assert set(row_lengths(processor, packed, pad_to_multiple_of=600)) == {600}
    windows = PackedDataset(dataset, packer, window=20)
    assert all(len({index // 20 for index in pack}) == 1 for pack in windows.packs)
    assert sorted(index for pack in windows.packs for index in pack) == list(range(60))


@pytest.fixture(scope="module")
def stored():
    """Returns drawn records in the schema of stored records, images as bytes, and records of text only."""
    drawn = drawn_shapes(num_samples=30, tasks={"text_to_image": 1, "image_to_text": 1, "edit": 1, "story": 1})
    records = [{"id": f"r{n}", **{name: record[name] for name in FIELDS}} for n, record in enumerate(drawn)]
    records += [{"id": f"t{n}", "messages": TEXT["messages"], "images": [], "videos": []} for n in range(10)]
    for record in records:
        for message in record["messages"]:
            if isinstance(message["content"], str):
                message["content"] = [{"type": "text", "text": message["content"]}]
    return Dataset.from_list(records, features=record_features())


def stream_of(stored, processor, max_length=600):
    source = stored.to_iterable_dataset(num_shards=2)
    packer = RecordPacker(processor, max_length)
    return RecordStream(source, MediaLoader(processor), packer, shuffle_block=16, num_passes=1)


def ids_of(packs):
    return [[record["id"] for record in pack["records"]] for pack in packs]


def test_packs_a_stream_while_it_is_read(stored, processor):
    packs = list(stream_of(stored, processor))
    assert sorted(name for pack in ids_of(packs) for name in pack) == sorted(stored["id"])
    lengths = row_lengths(processor, packs)
    assert max(lengths) <= 600 and sum(lengths) > 0.8 * 600 * len(packs)
    assert ids_of(packs) == ids_of(stream_of(stored, processor))


def test_resumes_a_stream_of_packs(stored, processor):
    packs, interrupted, seen = list(stream_of(stored, processor)), stream_of(stored, processor), []
    for pack in interrupted:
        seen.append(pack)
        if len(seen) == 3:
            state = interrupted.state_dict()
            break
    resumed = stream_of(stored, processor)
    resumed.load_state_dict(state)
    assert len(packs) > 6 and ids_of([*seen, *resumed]) == ids_of(packs)


def test_counts_stored_media_without_opening_them(stored, processor):
    packer = RecordPacker(processor, max_length=600)
    packed = PackedDataset(stored, packer)
    opened = stored.with_transform(MediaLoader(processor))
    assert packed.packs == PackedDataset(opened, packer).packs
    assert max(row_lengths(processor, PackedDataset(opened, packer))) <= 600
    broken = stored.map(lambda record: {"images": [{"path": "nowhere.png", "bytes": None} for _ in record["images"]]})
    assert PackedDataset(broken.with_transform(MediaLoader(processor)), packer).packs == packed.packs


def test_counts_listed_frames(processor):
    drawn = drawn_shapes(num_samples=8, num_frames=3, tasks={"text_to_video": 1, "video_to_text": 1})
    content = List({"type": Value("string"), "text": Value("string")})
    features = {"messages": List({"role": Value("string"), "content": content}), "videos": List(List(Image()))}
    rows = [{name: record[name] for name in features} for record in drawn]
    listed = PackedDataset(Dataset.from_list(rows, features=Features(features)), RecordPacker(processor, 600))
    assert listed.packs == PackedDataset(drawn, RecordPacker(processor, 600)).packs
    lengths = row_lengths(processor, PackedDataset(drawn, RecordPacker(processor, 600)))
    assert listed.fill == pytest.approx(sum(lengths) / (600 * len(lengths)))


def test_counts_sampled_frames_of_video_files(processor):
    asked = [
        {"role": "user", "content": [{"type": "video", "text": None}, {"type": "text", "text": "what"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a circle"}]},
    ]
    record = {"messages": asked, "images": [], "videos": [{"path": "a.mp4", "bytes": None}]}
    stored = Dataset.from_list([{"id": name, **record} for name in "ab"], features=record_features())
    frames = next(iter(drawn_shapes(num_samples=1, tasks={"text_to_video": 1})))["videos"]
    length = row_lengths(processor, [{"records": [{"messages": asked, "videos": frames}]}])[0]
    assert len(PackedDataset(stored, RecordPacker(processor, 2 * length))) == 1
    assert len(PackedDataset(stored, RecordPacker(processor, 2 * length - 1))) == 2


def test_names_or_counts_records_that_are_too_long(processor):
    texts = ["a red circle", "a red circle " * 50, "a blue square", "a red circle " * 60]
    messages = [[{"role": "document", "content": text}] for text in texts]
    dataset = Dataset.from_dict({"id": list("abcd"), "messages": messages})
    strict, lenient = (RecordPacker(processor, 100, on_too_long) for on_too_long in ("error", "skip"))
    with pytest.raises(ValueError, match=r"the record 'b' has 15\d tokens, more than `max_length` \(100\)"):
        PackedDataset(dataset, strict)
    with pytest.raises(ValueError, match="the record 1 has"):
        PackedDataset(dataset.remove_columns("id"), strict)
    with pytest.raises(ValueError, match="the record 'b' has"):
        list(RecordStream(dataset.to_iterable_dataset(), packer=strict, num_passes=1))
    packed = PackedDataset(dataset, lenient)
    assert ids_of(packed) == [["a", "c"]] and packed.num_skipped == 2
    stream = RecordStream(dataset.to_iterable_dataset(), packer=lenient, num_passes=1)
    assert sorted(ids_of(stream)[0]) == ["a", "c"] and lenient.num_skipped == 4


def test_rejects_wrong_arguments(processor):
    packer = RecordPacker(processor, 100)
    for make, error, message in (
        (lambda: RecordPacker(processor, 0), ValueError, "`max_length` must be an integer of at least 1, got 0"),
        (lambda: RecordPacker(processor, 9, "cut"), ValueError, "`on_too_long` must be 'error' or 'skip', got 'cut'"),
        (
            lambda: PackedDataset(Dataset.from_list([DOCUMENT]), packer, 0),
            ValueError,
            "`window` must be an integer of at least 1",
        ),
        (lambda: PackedDataset([DOCUMENT], packer), TypeError, "`dataset` must be a datasets.Dataset, got list"),
    ):
        with pytest.raises(error, match=message):
            make()


def test_training_on_packs_equals_training_on_records(processor, tmp_path):
    """The same records, packed or not, give the same losses and weights in one optimizer step."""
    records = [*drawn_shapes(num_samples=6, tasks=TASKS, seed=1), TEXT, DOCUMENT]
    columns = {name: [record.get(name) or [] for record in records] for name in FIELDS}
    packs = [{"records": pack} for pack in RecordPacker(processor, max_length=500)(columns)["records"]]

    def train(dataset, size, steps):
        torch.manual_seed(0)
        model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
        arguments = VilaUTrainingArguments(
            str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            learning_rate=0.1,
            optim="sgd",
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        collator = VilaUDataCollator(processor, unconditional_probability=0)
        trainer = VilaUTrainer(model=model, args=arguments, train_dataset=dataset, data_collator=collator)
        trainer.train()
        return trainer.state.log_history[0], model.state_dict()

    assert 1 < len(packs) < 6
    expected_log, expected = train(records, 2, 4)
    log, weights = train(packs, 1, len(packs))
    for name in ("loss", "text_loss", "visual_loss"):
        assert log[name] == pytest.approx(expected_log[name], rel=1e-4)
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, msg=name, atol=1e-5, rtol=1e-3)
