import pytest
from datasets import load_dataset

from vilau_hf.data.converters import write_records
from vilau_hf.data.records import record_features

from .sources import all_sources, convert


def test_reads_back_what_it_writes(tmp_path):
    records = [
        record for source, format, options in all_sources(tmp_path) for record in convert(source, format, **options)[0]
    ]
    files = write_records(records, tmp_path / "out", records_per_file=4)
    assert [file[-27:] for file in files] == [f"train-0000{index}-of-00003.parquet"[-27:] for index in range(3)]
    assert sorted(str(path) for path in tmp_path.glob("out*/*")) == files
    again, report = convert(tmp_path / "out", "records")
    assert again == records and not report.skipped
    dataset = load_dataset(str(tmp_path / "out"), split="train")
    assert dataset.features == record_features() and dataset.to_list() == records
    with pytest.raises(ValueError, match="`folder` must be new or empty"):
        write_records(records, tmp_path / "out")
    with pytest.raises(ValueError, match="`records` has no records, so .*empty.* was not written"):
        write_records([], tmp_path / "empty")
    assert not list(tmp_path.glob("empty*"))


def test_deletes_no_folder_of_others(tmp_path):
    for name in ("out.incomplete", ".out-notes", ".vilau-notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
    write_records(convert(*all_sources(tmp_path)[0][:2])[0], tmp_path / "out")
    assert len(list(tmp_path.rglob("notes.txt"))) == 3


def test_leaves_no_folder_if_interrupted(tmp_path):
    def records():
        yield convert(*all_sources(tmp_path)[0][:2])[0][0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(records(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(write_records(convert(*all_sources(tmp_path)[0][:2])[0], tmp_path / "out")) == 1
