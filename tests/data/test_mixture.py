import itertools
import json

import datasets
import numpy as np
import pytest
import yaml

from vilau_hf.data import VilaUDataCollator
from vilau_hf.data.converters import write_records
from vilau_hf.data.media import MediaLoader
from vilau_hf.data.mixture import Mixture, MixtureSource, add_lengths, keep_media_closed
from vilau_hf.data.records import record_features
from vilau_hf.data.stream import RecordStream

from ..processing.conftest import build_processor
from .mixtures import chats, write_chats, write_images


def test_weights_hold_for_the_whole_pass(tmp_path):
    """The share of 1000 draws with probability 3/4 stays within 4 sigma (0.055)."""
    mixture = chats(tmp_path, {"a": 5, "b": 50}, {"a": 3.0, "b": 1.0})
    assert mixture.probabilities == [0.75, 0.25]
    records = itertools.islice(RecordStream(mixture), 1000)
    share = np.mean([record["id"].startswith("a") for record in records])
    assert abs(share - 0.75) < 0.055


def test_reads_a_mixture_from_yaml(tmp_path):
    write_images(tmp_path)
    (tmp_path / "captions.jsonl").write_text(json.dumps({"caption": "a circle", "jpg": "0.png", "key": "x"}))
    file = tmp_path / "mixture.yaml"
    file.write_text(
        f"""
seed: 3
stopping_strategy: all_exhausted_without_replacement
datasets:
  - {{name: chat, format: llava, source: {tmp_path}/images.json, weight: 2}}
  - {{name: draw, format: parquet, source: "{tmp_path}/captions.jsonl", target: media}}
  - name: describe
    format: parquet
    source: [{tmp_path}/captions.jsonl]
    target: text
    weight: 0.5
    options: {{prompt: "What is it?"}}
"""
    )
    mixture = Mixture.from_yaml(file)
    assert mixture.seed == 3 and mixture.probabilities == [2 / 3.5, 1 / 3.5, 0.5 / 3.5]
    records = {record["id"]: record for record in mixture.stream()}
    assert set(records) == {*(f"chat/{number}" for number in range(20)), "draw/x", "describe/x"}
    kinds = [[item["type"] for item in message["content"]] for message in records["draw/x"]["messages"]]
    assert kinds == [["text"], ["image"]]
    kinds = [[item["type"] for item in message["content"]] for message in records["describe/x"]["messages"]]
    assert kinds == [["image", "text"], ["text"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "must hold a key `datasets` with a list"),
        ("datasets: []", "`sources` must be at least one"),
        ("{datasets: [], sed: 1}", r"missing: \[\], unknown: \['sed'\]"),
        ("datasets: [x]", r"`datasets\[0\]` of '.*mixture.yaml' must be a dictionary, got 'x'"),
        ("datasets: [{name: a, format: llava, wieght: 2}]", r"missing: \['source'\], unknown: \['wieght'\]"),
        (
            "datasets: [{name: a, format: llava, source: CHATS, weight: 0}]",
            "`weight` of the source 'a' must be a posit",
        ),
        ("datasets: [{name: a, format: llava, source: CHATS, target: text}]", "Options of the format 'llava'"),
        ("datasets: [{name: a, format: parquet, source: CHATS}]", "missing a required argument: 'target'"),
        (
            "datasets: [{name: a, format: llava, source: CHATS}, {name: a, format: llava, source: CHATS}]",
            r"with different names, got \['a', 'a'\]",
        ),
        (
            "{datasets: [{name: a, format: llava, source: CHATS}], stopping_strategy: never}",
            "`stopping_strategy` must be one of all_exhausted, .*got 'never'",
        ),
    ],
)
def test_rejects_invalid_yaml(tmp_path, text, message):
    (tmp_path / "mixture.yaml").write_text(text.replace("CHATS", f"'{write_chats(tmp_path, 'a', 2)}'"))
    with pytest.raises(ValueError, match=message):
        Mixture.from_yaml(tmp_path / "mixture.yaml")


def test_dataset_has_random_access_and_lengths(tmp_path):
    processor = build_processor()
    image_records = list(write_images(tmp_path).stream())
    for name, records in (("images", image_records), ("chats", list(chats(tmp_path, {"a": 9}).stream()))):
        write_records(records, tmp_path / "records" / name, records_per_file=6)
    sources = [MixtureSource(str(tmp_path / "records" / name), "records", name) for name in ("images", "chats")]
    mixture = Mixture(sources, stopping_strategy="all_exhausted_without_replacement")
    dataset = add_lengths(mixture.dataset(), processor)
    assert sorted(dataset["id"]) == sorted([record["id"] for record in image_records] + [f"a/{n}" for n in range(9)])
    batch = dataset.with_transform(MediaLoader(processor)).__getitems__(list(range(29)))
    lengths = VilaUDataCollator(processor)(batch)["attention_mask"].sum(1)
    assert dataset["length"] == lengths.tolist() and len(lengths.unique()) == 2
    with pytest.raises(ValueError, match="source 'a' must be of the format 'records' for random access, got 'llava'"):
        chats(tmp_path, {"a": 9}).dataset()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": 0}, "`options` of the source 'a' must be a dictionary of options by name, got 0"),
        ({"options": {1: 2}}, "`options` of the source 'a' must be a dictionary"),
        ({"options": {"media_folder": 1}}, "the option `media_folder` of the format 'llava' must be"),
        ({"source": 0}, "`source` must be the name of a file, .*, got 0"),
        ({"source": []}, "`source` must be the name of a file"),
        ({"source": [None]}, "`source` must be the name of a file"),
        ({"name": {}}, "`name` of a source must be a string that is not empty, got {}"),
        ({"name": ""}, "`name` of a source must be a string"),
        ({"format": []}, r"`format` must be one of .*, got \[\]"),
        ({"format": None}, "`format` must be one of"),
        ({"weight": float("inf")}, "`weight` of the source 'a' must be a positive number, got inf"),
        ({"weight": float("nan")}, "`weight` of the source 'a' must be a positive number, got nan"),
        ({"weight": [1]}, "`weight` of the source 'a' must be a positive number"),
        ({1: 2}, r"unknown: \[1\]"),
    ],
)
def test_names_the_fault_of_a_source(tmp_path, change, message):
    (tmp_path / "a.json").write_text("[]")
    entry = {"source": str(tmp_path / "a.json"), "format": "llava", "name": "a", **change}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": [entry]}))
    with pytest.raises(ValueError, match=message):
        Mixture.from_yaml(tmp_path / "mixture.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [", "cannot read '.*mixture.yaml'"),
        ("datasets: [1]\nseed: 1\n1: 2", r"unknown: \[1\]"),
        ("datasets:\n- {name: a, format: llava, source: a.json}\nseed: x", "`seed` of a mixture must be an integer"),
        ("a: &a [x, x]\nb: &b [*a, *a]\ndatasets: [*b]", "must hold|must have the keys"),
    ],
)
def test_names_the_file_of_a_mixture_that_is_not_valid(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "mixture.yaml").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        Mixture.from_yaml(tmp_path / "mixture.yaml")
    assert "\n" not in str(caught.value)


def test_datasets_leaves_media_of_other_schemas_closed(tmp_path):
    url = "zip://a.png::http://127.0.0.1:9/x.zip"
    features = datasets.Features({"id": datasets.Value("string"), "images": datasets.List(datasets.Image())})
    rows = [{"id": "a", "images": [{"path": url, "bytes": None}]}]
    dataset = keep_media_closed(datasets.Dataset.from_list(rows, features=features))
    assert dataset[0]["images"] == [{"path": url, "bytes": None}]
    rows = [{"id": "a", "messages": [], "images": [], "videos": []}]
    stored = datasets.Dataset.from_list(rows, features=record_features())
    assert keep_media_closed(stored) is stored


def test_media_in_other_columns_and_in_messages_stay_closed(tmp_path):
    item = {"path": "zip://a.png::http://127.0.0.1:9/x.zip", "bytes": None}
    part = {"type": datasets.Value("string"), "image": datasets.Image()}
    features = datasets.Features(
        {
            "messages": datasets.List({"role": datasets.Value("string"), "content": datasets.List(part)}),
            "thumbnail": datasets.Image(),
            "scores": datasets.List(datasets.Value("float32"), length=2),
        }
    )
    row = {
        "messages": [{"role": "user", "content": [{"type": "image", "image": item}]}],
        "thumbnail": item,
        "scores": [0.0, 1.0],
    }
    dataset = datasets.Dataset.from_list([row], features=features)
    closed = keep_media_closed(dataset)
    assert closed[0] == row and closed.features["scores"] == features["scores"]
