import json

import pytest

from vilau_hf.data import VilaUDataCollator
from vilau_hf.data.converters import convert_records
from vilau_hf.data.media import MediaLoader

from ...processing.conftest import build_processor
from .sources import all_sources, convert


def test_files_become_shards(tmp_path):
    for index in range(5):
        (tmp_path / f"{index}.jsonl").write_text(json.dumps({"question": "q", "answer": str(index)}))
    assert convert_records(str(tmp_path), "vflan").num_shards == 5
    dataset = convert_records([str(tmp_path / "[01].jsonl"), str(tmp_path / "3.jsonl")], "vflan", num_shards=2)
    assert dataset.num_shards == 2 and len(list(dataset)) == 3
    dataset = convert_records(str(tmp_path), "vflan", num_shards=2, name="numbers")
    assert dataset.num_shards == 4
    assert sorted(record["id"] for record in dataset) == [f"numbers/{index}:0" for index in range(5)]


def test_rejects_wrong_arguments(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.jsonl").write_text("{}")
    good = str(tmp_path / "a.jsonl")
    for message, source, format, options in (
        ("`format` must be one of records, llava,.*got 'lava'", good, "lava", {}),
        (
            r"Options of the format 'llava' are \(media_folder.*unexpected keyword argument 'folder'",
            good,
            "llava",
            {"folder": "x"},
        ),
        ("Options of the format 'parquet'.*missing a required argument: 'target'", good, "parquet", {}),
        ("`target` must be 'media' .* or 'text' .*, got 'image'", good, "parquet", {"target": "image"}),
        ("`media` must be 'image' or 'video', got 'audio'", good, "webdataset", {"target": "text", "media": "audio"}),
        (
            "Options of the format 'hub'.*unexpected keyword argument 'folder'",
            good,
            "hub",
            {"target": "text", "folder": "x"},
        ),
        ("`prompt` .*'Draw'.* needs `target='text'`", good, "hub", {"target": "media", "prompt": "Draw"}),
        ("`image_encoding` must be 'path' or 'base64'", good, "vflan", {"image_encoding": "utf8"}),
        (
            "`source` must be a file, a pattern .* found, got '.*none'",
            str(tmp_path / "none"),
            "llava",
            {},
        ),
        ("`source` must be a file of one of the types .json, .*, got '.*a.txt'", str(tmp_path / "a.txt"), "llava", {}),
        ("`num_shards` must be an integer from 1 to 100000, got 0", good, "llava", {"num_shards": 0}),
        ("`num_shards` must be an integer from 1 to 100000, got 1000000000", good, "llava", {"num_shards": 10**9}),
        ("`num_shards` must be an integer from 1 to 100000, got 1.5", good, "llava", {"num_shards": 1.5}),
        ("`num_shards` must be an integer from 1 to 100000, got None", good, "llava", {"num_shards": None}),
        ("`name` must be a string, got 1.5", good, "llava", {"name": 1.5}),
    ):
        with pytest.raises(ValueError, match=message):
            convert_records(source, format, **options)


def test_converted_records_fit_the_collator(tmp_path):
    processor = build_processor()
    collator, media = VilaUDataCollator(processor, unconditional_probability=0), MediaLoader(processor)
    for source, format, options in all_sources(tmp_path):
        records, _ = convert(source, format, **options)
        batch = collator([media.load(record) for record in records])
        assert batch["pixel_values"].shape == (sum(len(record["images"]) for record in records), 3, 8, 8)
        visual_targets = (batch["labels"] == processor.image_token_id).any()
        assert visual_targets == (options.get("target") == "media")
        assert (batch["labels"] != -100).any(1).all()
