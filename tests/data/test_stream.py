"""Streams that ranks and workers share, and training that resumes at the next record."""

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from datasets import Dataset, Features, Image, List
from torch.utils.data import _utils as loader_utils
from torchdata.stateful_dataloader import StatefulDataLoader
from transformers import TrainingArguments

from vilau_hf import VilaUForConditionalGeneration
from vilau_hf.data import VilaUDataCollator
from vilau_hf.data.converters import convert_records
from vilau_hf.data.media import MediaError, MediaLoader
from vilau_hf.data.records import record_features
from vilau_hf.data.stream import RecordStream
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments
from vilau_hf.training.stream_trainer import StreamTrainer

from ..processing.conftest import build_processor
from .mixtures import ALL_IDS, chats, once, write_chats, write_images


def ids_of(loader, num_batches=None):
    return [record["id"] for batch in itertools.islice(loader, num_batches) for record in batch]


def as_worker(monkeypatch, worker_id, num_workers):
    """Makes `get_worker_info` report this process as a worker of a loader."""
    info = loader_utils.worker.WorkerInfo(id=worker_id, num_workers=num_workers, seed=0, dataset=None)
    monkeypatch.setattr(loader_utils.worker, "_worker_info", info if num_workers else None)


@pytest.mark.parametrize("num_files", [1, 4])
@pytest.mark.parametrize("shuffle_block", [1, 5])
@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (1, 3), (2, 2), (3, 1), (4, 3)])
def test_ranks_and_workers_read_every_record_once_in_each_pass(
    tmp_path, monkeypatch, world_size, num_workers, shuffle_block, num_files
):
    stream = RecordStream(once(tmp_path, num_files=num_files), shuffle_block=shuffle_block, num_passes=2)
    seen = Counter()
    for rank in range(world_size):
        for worker in range(max(1, num_workers)):
            as_worker(monkeypatch, worker, num_workers)
            seen.update(record["id"] for record in stream.split(rank, world_size))
    assert seen == dict.fromkeys(ALL_IDS, 2)


def test_workers_of_a_loader_read_every_record_once(tmp_path):
    seen = []
    for rank in (0, 1):
        stream = RecordStream(once(tmp_path), num_passes=1).split(rank, 2)
        seen += ids_of(StatefulDataLoader(stream, batch_size=2, num_workers=2, collate_fn=list))
    assert sorted(seen) == ALL_IDS


def test_splits_a_dataset_by_its_shards(tmp_path, monkeypatch):
    records = convert_records(write_chats(tmp_path, "a", 20), "llava", num_shards=6)
    seen = []
    for rank, worker in itertools.product(range(2), range(2)):
        as_worker(monkeypatch, worker, 2)
        seen += [record["id"] for record in RecordStream(records, num_passes=1).split(rank, 2)]
    assert sorted(seen, key=int) == [str(number) for number in range(20)]


def test_order_depends_only_on_seed_and_pass(tmp_path):
    def order(seed):
        records = [record["id"] for record in RecordStream(once(tmp_path), seed=seed, num_passes=2)]
        return records[: len(ALL_IDS)], records[len(ALL_IDS) :]

    first, second = order(0)
    assert order(0) == (first, second)
    assert sorted(first) == sorted(second) == ALL_IDS and first != second
    assert order(1)[0] != first
    in_order = [record["id"] for record in RecordStream(chats(tmp_path, {"b": 23}), shuffle_block=1, num_passes=1)]
    assert in_order == [f"b/{number}" for number in range(23)]


def test_order_of_files_depends_on_seed_and_pass(tmp_path):
    """With eight files of one record. A random order is the order on disk once in 8! = 40320."""
    mixture, orders = chats(tmp_path, {"a": 8}, num_files=8), []
    for seed in range(3):
        files = RecordStream(mixture, shuffle_block=1, seed=seed, num_passes=3)
        by_file = [int(record["id"][2:]) for record in files]
        assert by_file == [int(record["id"][2:]) for record in files]
        orders += [tuple(by_file[begin : begin + 8]) for begin in (0, 8, 16)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len({tuple(range(8)), *orders}) == 10


def test_draws_depend_on_the_seed_of_the_mixture(tmp_path):
    def order(**seeds):
        mixture = once(tmp_path, **{name: value for name, value in seeds.items() if name != "stream"})
        stream = RecordStream(mixture, shuffle_block=1, seed=seeds.get("stream", 0), num_passes=1)
        return [record["id"] for record in stream]

    assert order(seed=0) == order(seed=0) != order(seed=1)
    assert order(seed=0) != order(seed=0, stream=1)


@pytest.mark.parametrize("stopping_strategy", ["all_exhausted", "all_exhausted_without_replacement"])
@pytest.mark.parametrize("shuffle_block", [1, 4])
def test_resumes_after_any_record_with_the_next_one(tmp_path, stopping_strategy, shuffle_block):
    mixture = chats(tmp_path, weights={"a": 2, "b": 5, "c": 3}, stopping_strategy=stopping_strategy)

    def stream():
        return RecordStream(mixture, shuffle_block=shuffle_block).split(1, 2)

    whole = [record["id"] for record in itertools.islice(stream(), 50)]
    for num_seen in (0, 1, 2, 5, 11, 14, 15, 16, 17, 18, 31, 45):
        before = stream()
        seen = [record["id"] for record in itertools.islice(before, num_seen)]
        after = stream()
        after.load_state_dict(before.state_dict())
        assert seen + [record["id"] for record in itertools.islice(after, 5)] == whole[: num_seen + 5], num_seen


@pytest.mark.parametrize("num_workers", [0, 3])
def test_loader_resumes_after_any_batch(tmp_path, num_workers):
    mixture = once(tmp_path)

    def loader():
        stream = RecordStream(mixture, shuffle_block=3).split(0, 2)
        return StatefulDataLoader(stream, batch_size=2, num_workers=num_workers, collate_fn=list)

    whole = ids_of(loader(), 24)
    assert len(set(whole)) < len(whole)  # more than one pass
    for num_batches in (1, 5, 17):
        before, after = loader(), loader()
        seen = ids_of(before, num_batches)
        after.load_state_dict(before.state_dict())
        assert seen + ids_of(after, 24 - num_batches) == whole


def test_resumes_a_packed_stream(tmp_path):
    def packer(columns):
        """Makes packs of 1, 2 and 3 records in turn."""
        records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        packs, sizes = [], itertools.cycle([1, 2, 3])
        while records:
            size = next(sizes)
            packs.append(records[:size])
            records = records[size:]
        return {"records": packs}

    def stream():
        return RecordStream(once(tmp_path), packer=packer, shuffle_block=8, num_passes=1)

    whole = [[record["id"] for record in pack["records"]] for pack in stream()]
    assert sorted(itertools.chain(*whole)) == ALL_IDS and {len(pack) for pack in whole} == {1, 2, 3}
    for num_seen in (1, 4, 9):
        before, after = stream(), stream()
        list(itertools.islice(before, num_seen))
        after.load_state_dict(before.state_dict())
        assert [[record["id"] for record in pack["records"]] for pack in after] == whole[num_seen:]


def test_raises_or_skips_and_counts_bad_media(tmp_path):
    mixture, processor = write_images(tmp_path, bad=(3, 11)), build_processor()
    with pytest.raises(MediaError, match="record 'images/(3|11)'"):
        list(RecordStream(mixture, MediaLoader(processor), num_passes=1))
    stream = RecordStream(mixture, MediaLoader(processor, "skip"), shuffle_block=6, num_passes=1)
    whole = [record["id"] for record in stream]
    assert sorted(whole, key=lambda name: int(name[7:])) == [f"images/{n}" for n in range(20) if n not in (3, 11)]
    assert stream.state_dict()["num_skipped"] == 2
    for num_seen in range(1, 18):  # the number of skipped records is resumed, too
        before = RecordStream(mixture, MediaLoader(processor, "skip"), shuffle_block=6, num_passes=1)
        after = RecordStream(mixture, MediaLoader(processor, "skip"), shuffle_block=6, num_passes=1)
        list(itertools.islice(before, num_seen))
        after.load_state_dict(before.state_dict())
        assert [record["id"] for record in after] == whole[num_seen:]
        assert after.media.num_skipped == 2


def test_rejects_a_stream_without_records(tmp_path):
    with pytest.raises(ValueError, match="`source` gave no record to worker 0 of rank 0"):
        next(iter(RecordStream(chats(tmp_path, {"a": 0}))))
    mixture = write_images(tmp_path, bad=range(20))
    with pytest.raises(ValueError, match="or all of them were skipped"):
        next(iter(RecordStream(mixture, MediaLoader(build_processor(), "skip"))))


class Numbers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, numbers):
        return {"loss": (self.weight - numbers.float()).square().mean()}


class Recorder(StreamTrainer):
    """Keeps the numbers of its training records."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.seen.append(inputs["numbers"].tolist())
        return model(**inputs)["loss"]


def numbers_of(records):
    return {"numbers": torch.tensor([int(record["id"].split("/")[1]) for record in records])}


def record_training(folder, mixture, max_steps, resume=None, trainer_class=Recorder, **kwargs):
    arguments = TrainingArguments(
        str(folder),
        max_steps=max_steps,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        save_steps=5,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **kwargs,
    )
    trainer = trainer_class(
        Numbers(), arguments, train_dataset=RecordStream(mixture, shuffle_block=4), data_collator=numbers_of
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumed_training_reads_the_records_of_an_uninterrupted_run(tmp_path, num_workers):
    mixture = once(tmp_path)
    kwargs = {"dataloader_num_workers": num_workers, "logging_steps": 5}
    whole = record_training(tmp_path, mixture, 15, **kwargs)
    assert len(whole.seen) == 30 and Counter(itertools.chain(*whole.seen)).total() == 60
    resumed = record_training(tmp_path, mixture, 15, str(tmp_path / "checkpoint-5"), **kwargs)
    assert resumed.seen == whole.seen[10:]
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert [log["epoch"] for log in resumed.state.log_history[:3]] == pytest.approx([1 / 3, 2 / 3, 1], abs=0.01)


def test_rejects_a_stream_state_that_does_not_fit(tmp_path):
    mixture = once(tmp_path)
    record_training(tmp_path / "out", mixture, 5)
    checkpoint = tmp_path / "out/checkpoint-5"
    with pytest.raises(ValueError, match="was saved with dataloader_num_workers 0, got 2: a stream resumes with as"):
        record_training(tmp_path / "out", mixture, 10, str(checkpoint), dataloader_num_workers=2)
    (checkpoint / "stream_state_0.pth").unlink()
    with pytest.raises(ValueError, match="has no stream_state_0.pth, the state of a stream"):
        record_training(tmp_path / "out", mixture, 10, str(checkpoint))


class GroupedRecorder(Recorder, VilaUTrainer):
    def count_targets(self, batches):
        return None


def test_length_grouped_training_resumes_within_an_epoch(tmp_path):
    dataset = Dataset.from_dict({"id": [f"a/{number}" for number in range(18)], "length": [1, 2, 3] * 6})

    def train(resume=None):
        arguments = VilaUTrainingArguments(
            str(tmp_path), num_train_epochs=3, per_device_train_batch_size=2, save_steps=4, report_to="none",
            train_sampling_strategy="group_by_length", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = GroupedRecorder(Numbers(), arguments, train_dataset=dataset, data_collator=numbers_of)
        trainer.train(resume_from_checkpoint=resume)
        return trainer.seen

    whole = train()
    epochs = [whole[begin : begin + 9] for begin in (0, 9, 18)]
    assert all(sorted(itertools.chain(*epoch)) == list(range(18)) for epoch in epochs) and epochs[0] != epochs[1]
    assert all(len({number % 3 for number in batch}) == 1 for batch in whole)
    for step in (4, 12, 20):
        assert train(str(tmp_path / f"checkpoint-{step}")) == whole[step:]


def test_stream_training_requires_torchdata(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdata.stateful_dataloader", None)
    with pytest.raises(ImportError, match=r"To train on a stream: pip install 'vilau_hf\[data\]' \(torchdata\)"):
        record_training(tmp_path / "out", once(tmp_path), 5)


def test_stage_2_training_from_a_mixture_resumes_with_equal_weights(config, tmp_path):
    """With real model, processor and collator. The weights of resumed and uninterrupted run are bit-equal."""
    mixture = write_images(tmp_path)
    processor = build_processor(num_visual_tokens=16, size=16)
    for name in ("image_start", "image_end", "video_start", "video_end", "image", "video"):
        setattr(config, f"{name}_token_id", getattr(processor, f"{name}_token_id"))
    config.text_config.vocab_size = max(60, len(processor.tokenizer))

    def train(resume=None):
        torch.manual_seed(0)
        arguments = VilaUTrainingArguments(
            str(tmp_path / "out"), max_steps=4, save_steps=2, per_device_train_batch_size=3, seed=1,
            learning_rate=1e-2, lr_scheduler_type="constant", report_to="none", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        stream = RecordStream(mixture, MediaLoader(processor), shuffle_block=5)
        collator = VilaUDataCollator(processor, unconditional_probability=0)
        model = VilaUForConditionalGeneration(config)
        trainer = VilaUTrainer(model, arguments, train_dataset=stream, data_collator=collator)
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.state_dict()

    whole = train()
    for name, tensor in train(str(tmp_path / "out/checkpoint-2")).items():
        assert torch.equal(tensor, whole[name]), name


DISTRIBUTED = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.data.test_stream import once, record_training

folder, resume = Path(sys.argv[2]), sys.argv[3]
trainer = record_training(folder / "out", once(folder), 10, resume or None)
(folder / f"seen_{trainer.args.process_index}.json").write_text(json.dumps(trainer.seen))
trainer.accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_read_their_shares_and_resume(tmp_path):
    (tmp_path / "train.py").write_text(DISTRIBUTED)
    stream = RecordStream(once(tmp_path), shuffle_block=4)
    records = [itertools.islice(stream.split(rank, 2), 40) for rank in (0, 1)]
    numbers = [[int(record["id"].split("/")[1]) for record in share] for share in records]
    batches = [[share[begin : begin + 2] for begin in range(0, 40, 2)] for share in numbers]
    for resume, begin in (("", 0), (str(tmp_path / "out/checkpoint-5"), 10)):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command += [str(tmp_path / "train.py"), str(Path(__file__).parents[2]), str(tmp_path), resume]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
        for rank in (0, 1):
            assert json.loads((tmp_path / f"seen_{rank}.json").read_text()) == batches[rank][begin:]


def test_a_stream_leaves_media_to_the_loader():
    item = {"path": "zip://a.png::http://127.0.0.1:9/x.zip", "bytes": None}
    messages = [{"role": "assistant", "content": [{"type": "image", "text": None}]}]
    features = Features({**record_features(), "images": List(Image()), "thumbnail": Image()})
    rows = [{"id": "a", "messages": messages, "images": [item], "videos": [], "thumbnail": item}]
    source = Dataset.from_list(rows, features=features).to_iterable_dataset()
    with pytest.raises(MediaError, match="it is a URL, download it first"):
        list(RecordStream(source, MediaLoader(build_processor()), num_passes=1))
