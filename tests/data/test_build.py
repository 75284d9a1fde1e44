import pytest
from datasets import Dataset, Image, List
from transformers import TrainingArguments

from vilau_hf import TINY_CHECKPOINT, VilaUProcessor
from vilau_hf.data import DataArguments, PackedDataset, ReadableRows, RecordStream, encode_dataset, write_records
from vilau_hf.data.build import build_collator, build_dataset, build_eval_dataset, encoded_folders, load_records
from vilau_hf.drawn import drawn_shapes
from vilau_hf.loading import load_vision_tower


@pytest.fixture(scope="module")
def processor():
    return VilaUProcessor.from_pretrained(TINY_CHECKPOINT)


@pytest.fixture(scope="module")
def tower():
    return load_vision_tower(TINY_CHECKPOINT)


@pytest.fixture(scope="module")
def folders(processor, tower, tmp_path_factory):
    """Returns a folder with records, their codes, and mixtures of each."""
    root = tmp_path_factory.mktemp("build")
    shapes = drawn_shapes(num_samples=6, tasks={"text_to_image": 1})
    write_records([{**shapes[index], "id": str(index)} for index in range(6)], root / "records")
    encode_dataset(shapes, root / "encoded", tower, processor)
    for name in ("records", "encoded"):
        entry = f"{{name: shapes, format: {name}, source: {root / name}}}"
        (root / f"{name}.yaml").write_text(f"datasets: [{entry}]")
    return root


def arguments(tmp_path, **options):
    return TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, **options)


def test_finds_folders_of_codes_in_datasets_and_mixtures(folders):
    codes = str(folders / "encoded")
    for name, expected in (("encoded", [codes]), ("encoded.yaml", [codes]), ("records", []), ("records.yaml", [])):
        assert encoded_folders(DataArguments(dataset=str(folders / name))) == expected


def test_builds_each_type_of_dataset(folders, processor, tower, tmp_path):
    args = arguments(tmp_path, max_steps=1)

    def build(name, **options):
        return build_dataset(DataArguments(dataset=str(name), **options), args, processor, tower)

    assert len(build("drawn_shapes", num_train_samples=3)) == 3
    stored = build(folders / "records", num_train_samples=4)
    assert len(stored) == 4 and stored[0]["images"][0].size == (32, 32)
    assert isinstance(build(folders / "records", on_bad_media="skip"), ReadableRows)
    assert "codes" in build(folders / "encoded").column_names
    assert isinstance(build(folders / "records", row_format="packed", max_length=400), PackedDataset)
    stream = build(folders / "records.yaml", row_format="packed", max_length=400)
    assert isinstance(stream, RecordStream) and stream.packer.max_length == 400
    assert isinstance(build(folders / "encoded.yaml"), RecordStream)


def test_adds_lengths_to_group_by_length(folders, processor, tower, tmp_path):
    args = arguments(tmp_path, train_sampling_strategy="group_by_length")
    dataset = build_dataset(DataArguments(dataset=str(folders / "records")), args, processor, tower)
    assert all(length > 64 for length in dataset.with_format(None)["length"])


def test_rejects_datasets_that_do_not_fit_the_run(folders, processor, tmp_path):
    mixture = DataArguments(dataset=str(folders / "records.yaml"))
    with pytest.raises(ValueError, match="a mixture has no end: give `max_steps`, got -1"):
        build_dataset(mixture, arguments(tmp_path), processor, None)
    grouped = arguments(tmp_path, max_steps=1, train_sampling_strategy="group_by_length")
    with pytest.raises(ValueError, match="must be 'random' or 'sequential' for a mixture and for packed rows"):
        build_dataset(mixture, grouped, processor, None)
    for name in ("encoded", "encoded.yaml"):
        codes = DataArguments(dataset=str(folders / name))
        with pytest.raises(ValueError, match="`model` must be given for a dataset of codes"):
            build_dataset(codes, arguments(tmp_path, max_steps=1), processor, None)


def test_builds_evaluation_data(folders, processor):
    assert build_eval_dataset(DataArguments(), processor, None) is None
    data = DataArguments(eval_dataset=str(folders / "records"), eval_split="train", num_eval_samples=2)
    assert len(build_eval_dataset(data, processor, None)) == 2
    with pytest.raises(ValueError, match="`eval_dataset` must not be a mixture"):
        build_eval_dataset(DataArguments(eval_dataset=str(folders / "records.yaml")), processor, None)


def test_builds_the_collator_of_each_row_format(processor, tmp_path):
    args = arguments(tmp_path, seed=3)
    padded, packed, padding_free = (
        build_collator(DataArguments(row_format=name, max_length=400, pad_to_multiple_of=8), args, processor)
        for name in ("padded", "packed", "padding_free")
    )
    assert (padded.max_length, packed.max_length, padding_free.max_length) == (400, None, 400)
    assert padding_free.padding_free and not padded.padding_free and not packed.padding_free
    assert (padded.seed, padded.pad_to_multiple_of, padded.unconditional_probability) == (3, 8, 0.1)


def test_records_of_any_schema_are_loaded_with_closed_media(folders):
    records = Dataset.from_parquet([str(path) for path in (folders / "records").glob("*.parquet")])
    folder = folders / "decoded"
    folder.mkdir()
    records.cast_column("images", List(Image(decode=True))).to_parquet(folder / "train.parquet")
    loaded = load_records(str(folder), "train")
    assert loaded.features["images"] == List(Image(decode=False))
    with pytest.raises(ValueError, match="`dataset` must be the folder or the Hub id of records"):
        load_records("", "train")
