import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, load_dataset

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.data import (
    MediaLoader,
    Mixture,
    MixtureSource,
    PackedDataset,
    RecordPacker,
    RecordStream,
    VilaUDataCollator,
    encode_dataset,
    load_encoded,
    write_records,
)
from vilau_hf.data.code_cache import check_tower
from vilau_hf.data.records import record_features
from vilau_hf.data.tower_fingerprint import describe_tower, vision_tower_of
from vilau_hf.drawn import drawn_shapes
from vilau_hf.loading import load_vision_tower

from .test_media import write_video


DIGITS = "0123456789abcdef" * 2
TASKS = {"text_to_image": 2, "image_to_text": 1, "text_to_video": 1, "video_to_text": 1, "edit": 1, "story": 1}


@pytest.fixture(scope="module")
def processor():
    return VilaUProcessor.from_pretrained(TINY_CHECKPOINT)


@pytest.fixture(scope="module")
def tower():
    return load_vision_tower(TINY_CHECKPOINT)


@pytest.fixture
def model():
    return VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)


def unusual_records():
    """Returns records with videos before and after images, videos of two lengths, text only, and a document."""
    image = {"type": "image"}
    drawn_images = [record["images"][0] for record in drawn_shapes(num_samples=4, tasks={"text_to_image": 1})]
    videos = [record["videos"][0] for record in drawn_shapes(num_samples=3, tasks={"text_to_video": 1})]
    text = {"type": "text", "text": "describe the image"}
    answer = {"role": "assistant", "content": "blue"}
    contents = [[{"type": "video"}, image, text], [image, {"type": "video"}, image], [text]]
    media = [(drawn_images[:1], videos[:1]), (drawn_images[1:3], [videos[1][:2]]), ([], [])]
    records = [
        {
            "id": f"odd {n}",
            "messages": [{"role": "user", "content": content}, answer],
            "images": images,
            "videos": films,
        }
        for n, (content, (images, films)) in enumerate(zip(contents, media, strict=True))
    ]
    drawn = {"messages": [{"role": "user", "content": "a red circle"}, {"role": "assistant", "content": [image]}]}
    document = {"role": "document", "content": [{"type": "text", "text": "a red circle"}, image]}
    return [*records, {**drawn, "images": drawn_images[3:]}, {"messages": [document], "images": drawn_images[:1]}]


class Records:
    """Records in memory with the length and the slices of a dataset."""

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, rows):
        names = ("id", "messages", "images", "videos")
        return {name: [record.get(name) for record in self.records[rows]] for name in names}


@pytest.fixture(scope="module")
def drawn():
    return drawn_shapes(num_samples=50, tasks=TASKS, seed=2)


@pytest.fixture(scope="module")
def encoded(drawn, tower, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoded") / "drawn"
    report = encode_dataset(drawn, folder, tower, processor, batch_size=8, shard_size=20)
    return folder, report


def shard_files(folder):
    return sorted(path.name for path in (Path(folder) / "data").iterdir())


def contents(folder):
    return {path: (Path(folder) / "data" / path).read_bytes() for path in shard_files(folder)}


def test_stores_the_codes_of_the_tower(drawn, encoded, model, processor, tower):
    records = load_encoded(encoded[0], model, processor)
    assert len(records) == 50 and encoded[1].num_records == 50 and encoded[1].is_complete
    count = 0
    for index, (raw, record) in enumerate(zip(drawn, records, strict=True)):
        assert record["id"] == str(index)
        media = [[image] for image in raw["images"]] or raw["videos"]  # drawn records never have both
        assert len(record["codes"]) == len(media)
        for frames, codes in zip(media, record["codes"], strict=True):
            pixels = processor.image_processor(frames, return_tensors="pt")["pixel_values"]
            assert np.array_equal(np.array(codes).reshape(len(frames), 64, 4), tower.encode(pixels).codes)
            count += len(frames)
        for message, kept in zip(raw["messages"], record["messages"], strict=True):
            assert [item.get("text") for item in message["content"]] == [item["text"] for item in kept["content"]]
    assert count == encoded[1].num_images


def test_files_have_the_fingerprint_and_the_smallest_type(encoded, tower, processor):
    folder, report = encoded
    assert shard_files(folder) == [f"train-0000{shard}-of-00003.parquet" for shard in range(3)]
    index = json.loads((folder / "index.json").read_text())
    assert [shard["num_records"] for shard in index["shards"]] == [20, 20, 10]
    assert index["code_shape"] == [64, 4] and index["code_dtype"] == "uint8"  # 256 codes
    fingerprint = describe_tower(tower, processor)["fingerprint"]
    assert index["tower"]["fingerprint"] == fingerprint
    schema = pq.read_schema(folder / index["shards"][1]["file"])
    assert json.loads(schema.metadata[b"vilau_tower"])["fingerprint"] == fingerprint
    assert "uint8" in str(schema.field("codes").type)
    assert report.num_bytes == sum(len(content) for content in contents(folder).values())
    assert report.bytes_per_image < 64 * 4 + 200 and report.images_per_second > 0


@pytest.mark.parametrize("dropped", [0, 1])
@pytest.mark.parametrize("kind", ["drawn", "unusual"])
def test_codes_give_the_losses_and_gradients_of_pixels(drawn, encoded, model, processor, tmp_path, kind, dropped):
    folder, records = encoded[0], [drawn[index] for index in range(12)]
    if kind == "unusual":
        folder, records = tmp_path / "unusual", unusual_records()
        encode_dataset(Records(records), folder, model, processor)
    from_codes = load_encoded(folder, model, processor)
    collator = VilaUDataCollator(processor, unconditional_probability=dropped)
    model.train()
    counts, results = {"num_text_items": 100, "num_visual_items": 1000}, []
    for source in (records, from_codes):
        model.zero_grad()
        losses = []
        for index in range(len(records)):  # one by one: videos of a batch of pixels must be of one length
            batch = collator([source[index]])
            assert ("codes" in batch) == (source is from_codes and len(source[index]["codes"]) > 0)
            losses.append(model(**batch, **counts).loss)
        torch.stack(losses).sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((torch.stack(losses).detach(), gradients))
    torch.testing.assert_close(results[1][0], results[0][0])
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, msg=name)


def test_codes_give_the_batches_of_pixels(drawn, encoded, model, processor, tower):
    records, indices = load_encoded(encoded[0], model, processor), range(0, 50, 3)
    collator = VilaUDataCollator(processor, unconditional_probability=0.5, seed=3)
    batch = collator([records[index] for index in indices])
    expected = collator(
        [{**drawn[index], "id": records[index]["id"]} for index in indices]
    )  # drawn records have no id
    for name in ("input_ids", "labels", "attention_mask"):
        assert torch.equal(batch[name], expected[name])
    assert batch["codes"].dtype == torch.int64
    grid = model.model.get_visual_codes(batch["input_ids"], codes=batch["codes"])
    pixels = {name: expected[name] for name in ("pixel_values", "pixel_values_videos")}
    assert torch.equal(grid, model.model.get_visual_codes(batch["input_ids"], **pixels))


def test_codes_give_the_packs_of_pixels(drawn, encoded, model, processor):
    records = load_encoded(encoded[0], model, processor)
    packer = RecordPacker(processor, max_length=600)
    packed = PackedDataset(records, packer)
    assert packed.packs == PackedDataset(drawn, packer).packs
    batch = VilaUDataCollator(processor, unconditional_probability=0)([packed[0], packed[1]])
    assert batch["input_ids"].shape[0] == 2
    with torch.no_grad():
        assert torch.isfinite(model(**batch).loss)


def test_shuffles_and_packs_a_stream_of_codes(encoded, model, processor):
    source = load_encoded(encoded[0], model, processor, streaming=True)
    stream = RecordStream(source, packer=RecordPacker(processor, max_length=600), shuffle_block=25, num_passes=1)
    packs = list(stream)
    ids = [record["id"] for pack in packs for record in pack["records"]]
    assert sorted(ids, key=int) == [str(index) for index in range(50)] != ids
    batch = VilaUDataCollator(processor)(packs[:2])
    assert batch["input_ids"].shape[0] == 2 and batch["input_ids"].shape[1] <= 600 and "codes" in batch


def test_streaming_gives_the_records_in_order(encoded, model, processor):
    whole = load_encoded(encoded[0], model, processor)
    stream = load_encoded(encoded[0], model, processor, streaming=True)
    assert list(stream) == list(whole)


@pytest.fixture
def stored(tower, processor, tmp_path):
    """Returns a folder with 24 drawn records, their codes in several files, and chats of text only."""
    shapes = drawn_shapes(num_samples=24, tasks={"text_to_image": 1, "image_to_text": 1, "edit": 1})
    write_records([{**shapes[index], "id": str(index)} for index in range(24)], tmp_path / "records")
    records = load_dataset(str(tmp_path / "records"), split="train").with_transform(MediaLoader(processor))
    encode_dataset(records, tmp_path / "encoded", tower, processor, shard_size=10)
    turns = [{"from": "human", "value": "draw a circle"}, {"from": "gpt", "value": "no"}]
    chats = [{"id": str(index), "conversations": turns} for index in range(8)]
    (tmp_path / "chats.json").write_text(json.dumps(chats))
    return tmp_path


def mixture_of(stored, kind, stopping_strategy="all_exhausted_without_replacement"):
    """Returns a mixture of the stored records, or of their codes, and chats."""
    shapes = MixtureSource(str(stored / kind), kind, "shapes", weight=3)
    chats = MixtureSource(str(stored / "chats.json"), "llava", "chats")
    return Mixture([shapes, chats], stopping_strategy=stopping_strategy)


def test_mixture_of_codes_gives_the_losses_of_pixels(stored, model, processor):
    batches = {}
    for kind in ("records", "encoded"):
        stream = RecordStream(mixture_of(stored, kind), MediaLoader(processor), shuffle_block=32, num_passes=1)
        batches[kind] = sorted(stream, key=lambda record: record["id"])
    names = [record["id"] for record in batches["records"]]
    assert names == [record["id"] for record in batches["encoded"]] and len(set(names)) == 32
    collator, losses = VilaUDataCollator(processor, unconditional_probability=0.3), {}
    for kind, records in batches.items():
        chunks = [collator(records[begin : begin + 8]) for begin in range(0, 32, 8)]
        assert all("pixel_values" not in batch for batch in chunks) == (kind == "encoded")
        with torch.no_grad():
            outputs = [model.train()(**batch) for batch in chunks]
        losses[kind] = torch.stack([output[name] for output in outputs for name in ("text_loss", "visual_loss")])
    torch.testing.assert_close(losses["encoded"], losses["records"])


@pytest.mark.parametrize("world_size", [1, 5])
def test_splits_and_packs_a_mixture_of_codes(stored, processor, world_size):
    packer, mixture = RecordPacker(processor, max_length=600), mixture_of(stored, "encoded")
    shares = [
        list(RecordStream(mixture, MediaLoader(processor), packer, num_passes=1).split(rank, world_size))
        for rank in range(world_size)
    ]
    names = [record["id"] for share in shares for pack in share for record in pack["records"]]
    assert sorted(names) == sorted([f"shapes/{n}" for n in range(24)] + [f"chats/{n}" for n in range(8)])
    assert "codes" in VilaUDataCollator(processor)(shares[0])


def test_checks_the_tower_of_a_mixture(stored, model, processor):
    assert mixture_of(stored, "records").encoded_folders == []
    assert mixture_of(stored, "encoded").encoded_folders == [str(stored / "encoded")]
    check_tower(mixture_of(stored, "encoded").encoded_folders, model, processor)
    model.model.vision_tower.quantizer.codebook.weight.data[0] += 1
    with pytest.raises(ValueError, match="they differ in weights"):
        check_tower(mixture_of(stored, "encoded").encoded_folders, model, processor)
    index = json.loads((stored / "encoded/index.json").read_text())
    del index["shards"]
    (stored / "encoded/index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="are not all encoded yet"):
        mixture_of(stored, "encoded")


def test_rejects_pixels_and_codes_in_one_batch(stored, processor):
    sources = [MixtureSource(str(stored / kind), kind, kind) for kind in ("records", "encoded")]
    records = list(RecordStream(Mixture(sources), MediaLoader(processor), num_passes=1))
    with pytest.raises(ValueError, match="'encoded/.*' has codes and 'records/.*' has images. Encode all"):
        VilaUDataCollator(processor)(records)


def test_skips_records_that_cannot_be_opened(stored, tower, processor):
    records = load_dataset(str(stored / "records"), split="train")
    bad = [{"path": "none.png", "bytes": None}]
    features = records.features
    records = [{**record, "images": bad} if index < 6 else record for index, record in enumerate(records)]
    skipping = Dataset.from_list(records, features=features).with_transform(MediaLoader(processor, "skip"))
    report = encode_dataset(skipping, stored / "left", tower, processor, batch_size=4)
    assert (report.num_records, report.num_skipped) == (18, 6)
    assert encode_dataset(skipping, stored / "left", tower, processor, batch_size=4).num_records == 0  # all there


def test_counts_videos_whose_frames_were_repeated(tower, processor, tmp_path):
    videos = {}
    for name, num_frames in (("short", 1), ("long", 24)):
        videos[name] = {"path": str(tmp_path / f"{name}.mp4"), "bytes": None}
        write_video(tmp_path / f"{name}.mp4", num_frames)
    records = [
        {
            "id": str(index),
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {"role": "assistant", "content": [{"type": "video", "text": None}] * len(names)},
            ],
            "images": [],
            "videos": [videos[name] for name in names],
        }
        for index, names in enumerate((["short", "long", "short"], ["long"], ["short"]))
    ]
    dataset = Dataset.from_list(records, features=record_features()).with_transform(MediaLoader(processor))
    report = encode_dataset(dataset, tmp_path / "codes", tower, processor, batch_size=2)
    assert (report.num_records, report.num_repeated_videos) == (3, 3)


@pytest.mark.parametrize("settings", [{"num_workers": 2}, {"batch_size": 50}])
def test_files_do_not_depend_on_workers_or_batch_size(drawn, encoded, tower, processor, tmp_path, settings):
    encode_dataset(drawn, tmp_path / "again", tower, processor, **{"batch_size": 8, "shard_size": 20, **settings})
    assert contents(tmp_path / "again") == contents(encoded[0])


class Interrupted(Exception):
    pass


def test_resumes_with_the_missing_shards(drawn, encoded, model, tower, processor, tmp_path):
    def read_until(limit):
        def read(batch):
            rows = [drawn[index] for index in batch["index"]]
            if max(batch["index"]) >= limit:
                raise Interrupted
            return {name: [row[name] for row in rows] for name in rows[0]}

        return Dataset.from_dict({"index": list(range(50))}).with_transform(read)

    folder = tmp_path / "encoded"
    arguments = {"batch_size": 8, "shard_size": 20}
    with pytest.raises(Interrupted):
        encode_dataset(read_until(43), folder, tower, processor, **arguments)
    assert shard_files(folder) == ["train-00000-of-00003.parquet", "train-00001-of-00003.parquet"]
    with pytest.raises(ValueError, match="are not all encoded yet: run the encoding again"):
        load_encoded(folder, model, processor)
    (folder / "data" / f"train-00002-of-00003.parquet.{DIGITS}.tmp").write_bytes(b"half")  # as a kill would leave it
    (folder / "data" / "train-00000-of-00003.parquet").unlink()
    kept = folder / "data" / "train-00001-of-00003.parquet"
    before = kept.stat().st_mtime_ns
    report = encode_dataset(read_until(50), folder, tower, processor, **arguments)
    assert (report.num_records, report.is_complete) == (30, True)
    assert kept.stat().st_mtime_ns == before and contents(folder) == contents(encoded[0])
    again = encode_dataset(read_until(50), folder, tower, processor, **arguments)
    assert (again.num_records, again.is_complete) == (0, True)


def test_rejects_a_folder_begun_with_other_arguments(drawn, encoded, model, tower, processor, tmp_path):
    folder = encoded[0]
    with pytest.raises(ValueError, match="was begun with `shard_size` 20, not 10"):
        encode_dataset(drawn, folder, tower, processor, shard_size=10)
    with pytest.raises(ValueError, match="was begun with `num_records` 50, not 40"):
        encode_dataset(drawn.select(range(40)), folder, tower, processor, shard_size=20)
    with pytest.raises(ValueError, match="was not made from `dataset`: its record '0' differs"):
        encode_dataset(drawn_shapes(num_samples=50, tasks=TASKS, seed=9), folder, tower, processor, shard_size=20)
    other = VilaUForConditionalGeneration(model.config)
    with pytest.raises(ValueError, match=r"was begun with the tower \w{16}, but .* have the tower \w{16}"):
        encode_dataset(drawn, folder, other, processor, shard_size=20)
    (tmp_path / "index.json.notes.tmp").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and has no index.json"):
        encode_dataset(drawn, tmp_path, tower, processor)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(ValueError, match="index.json is not an index of encoded records"):
        encode_dataset(drawn, tmp_path, tower, processor)
    assert (tmp_path / "index.json.notes.tmp").read_text() == "mine"


def test_resumes_after_a_kill_at_the_start(drawn, tower, processor, tmp_path):
    (tmp_path / f"index.json.{DIGITS}.tmp").write_text("{")
    assert encode_dataset(drawn.select(range(2)), tmp_path, tower, processor).is_complete
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "index.json"]


def test_names_damaged_and_missing_files(drawn, model, tower, processor, tmp_path):
    arguments = {"folder": tmp_path / "encoded", "model": tower, "processor": processor, "shard_size": 20}
    encode_dataset(drawn, **arguments)
    shard = tmp_path / "encoded" / "data" / "train-00001-of-00003.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot read .*train-00001-of-00003.parquet.* Delete it and run"):
        encode_dataset(drawn, **arguments)
    shard.unlink()
    with pytest.raises(ValueError, match="train-00001-of-00003.parquet does not exist"):
        load_encoded(tmp_path / "encoded", model, processor)
    with pytest.raises(ValueError, match="has no index.json: it is not a folder of encoded records"):
        load_encoded(tmp_path, model, processor)


def test_rejects_codes_of_another_tower(encoded, model, processor):
    expected = describe_tower(vision_tower_of(model), processor)["fingerprint"]
    with torch.no_grad():
        model.model.vision_tower.quantizer.codebook.weight[3, 4] += 1e-3
    other = describe_tower(vision_tower_of(model), processor)["fingerprint"]
    assert expected != other
    with pytest.raises(
        ValueError, match=f"are of the tower {expected}, but .* the tower {other}; they differ in weights."
    ):
        load_encoded(encoded[0], model, processor)


def test_rejects_codes_of_images_prepared_in_another_way(encoded, model):
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    processor.image_processor.crop_to_square = True
    with pytest.raises(ValueError, match=r"they differ in `images.crop_to_square` \(False and True\)\."):
        load_encoded(encoded[0], model, processor)


def test_names_invalid_records_and_arguments(tower, processor, tmp_path):
    records = unusual_records()
    records[1]["images"] = records[1]["images"][:1]
    with pytest.raises(
        ValueError, match="Record 'odd 1': `messages` have 2 content parts of type 'image', but `images` has 1"
    ):
        encode_dataset(Records(records), tmp_path / "a", tower, processor)
    with pytest.raises(ValueError, match="`dataset` has no records"):
        encode_dataset(Records([]), tmp_path / "b", tower, processor)
    with pytest.raises(TypeError, match="`dataset` must have a length and slices, got generator"):
        encode_dataset((record for record in records), tmp_path / "b", tower, processor)
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1, got 0"):
        encode_dataset(Records(records), tmp_path / "b", tower, processor, batch_size=0)
    with pytest.raises(ValueError, match="`shard_size` must be an integer of at least 1, got 0"):
        encode_dataset(Records(records), tmp_path / "b", tower, processor, shard_size=0)
    assert not (tmp_path / "b").exists()
    with pytest.raises(ValueError, match="`model` must be or have a VILA-U vision tower, got Linear"):
        encode_dataset(Records(records), tmp_path / "b", torch.nn.Linear(1, 1), processor)


ON_CPU = {**os.environ, "ACCELERATE_USE_CPU": "true"}


def command(*arguments):
    """Returns the command that runs `vilau encode drawn_shapes` in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    return [*launcher, "-m", "vilau_hf.cli", "encode", "drawn_shapes", *map(str, arguments)]


@pytest.mark.slow
def test_two_processes_give_the_files_of_one(tower, processor, tmp_path):
    """Runs the command on the CPU. `accelerate launch` starts processes in the same way on GPUs."""
    arguments = [tmp_path / "two", "--num-records", 50, "--shard-size", 12, "--batch-size", 8]
    result = subprocess.run(command(*arguments), check=True, capture_output=True, text=True, env=ON_CPU)
    encode_dataset(drawn_shapes(num_samples=50), tmp_path / "one", tower, processor, batch_size=8, shard_size=12)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert (tmp_path / "two" / "index.json").read_bytes() == (tmp_path / "one" / "index.json").read_bytes()
    lines = [line for line in result.stdout.splitlines() if "images/s" in line]
    assert sorted(line[:15] for line in lines) == ["process 1 of 2:", "process 2 of 2:"]
    assert sum(int(line.split(" of ")[2].split()[0]) for line in lines) == 50
    assert f"Complete: {tmp_path / 'two'}" in result.stdout


@pytest.mark.slow
def test_one_process_resumes_two_killed_ones(tower, processor, tmp_path):
    arguments = [tmp_path / "killed", "--num-records", 300, "--shard-size", 5]
    launch = subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL, env=ON_CPU)
    data = tmp_path / "killed" / "data"
    deadline = time.monotonic() + 120
    while not data.is_dir() or len(list(data.glob("*.parquet"))) < 3:
        assert launch.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    for process in [*psutil.Process(launch.pid).children(recursive=True), launch]:
        process.send_signal(signal.SIGKILL)
    launch.wait()
    kept = {path: path.stat().st_mtime_ns for path in data.glob("*.parquet")}
    assert 3 <= len(kept) < 60
    assert all(pq.read_metadata(path).num_rows == 5 for path in kept)
    dataset = drawn_shapes(num_samples=300)
    encode_dataset(dataset, tmp_path / "killed", tower, processor, shard_size=5)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    encode_dataset(dataset, tmp_path / "whole", tower, processor, shard_size=5)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_ray_resumes_and_gives_the_files_of_one_process(tower, processor, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'vilau_hf[ray]'")
    folder, home = tmp_path / "encoded", tmp_path / "home"
    example = Path(__file__).parents[2] / "examples" / "encode_with_ray.py"
    run = [sys.executable, str(example), "--out", str(folder), "--samples", "30", "--shard-size", "8"]
    environment = {**os.environ, "HOME": str(home)}  # Ray keeps a token there
    home.mkdir()
    encode_dataset(drawn_shapes(num_samples=30), tmp_path / "one", tower, processor, shard_size=8)
    folder.mkdir()
    (folder / "data").mkdir()
    (folder / "index.json").write_bytes((tmp_path / "one" / "index.json").read_bytes())
    kept = "data/train-00001-of-00004.parquet"  # as if another run had come so far
    (folder / kept).write_bytes((tmp_path / "one" / kept).read_bytes())
    before = (folder / kept).stat().st_mtime_ns
    result = subprocess.run(run, check=True, capture_output=True, text=True, env=environment)
    assert "images/s" in result.stdout and "30 records" in result.stdout
    assert (folder / kept).stat().st_mtime_ns == before
    assert contents(folder) == contents(tmp_path / "one")
