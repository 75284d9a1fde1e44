import pytest

from vilau_hf.data.arguments import ROW_FORMATS, DataArguments


def test_accepts_each_row_format():
    for name in ROW_FORMATS:
        assert DataArguments(row_format=name, max_length=10).row_format == name


def test_rejects_an_unknown_row_format():
    with pytest.raises(ValueError, match="`row_format` must be one of padded, packed, padding_free, got 'rows'"):
        DataArguments(row_format="rows")


def test_packed_rows_require_max_length():
    with pytest.raises(ValueError, match="`row_format` 'packed' needs `max_length`"):
        DataArguments(row_format="packed")


def test_each_argument_has_help():
    assert all(field.metadata["help"] for field in DataArguments.__dataclass_fields__.values())
