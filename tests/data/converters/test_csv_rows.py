"""Rows of CSV and TSV files, some of which have broken quotes."""

import csv

import pytest

from vilau_hf.data.converters.rows import read_rows

from .sources import convert, png


def rows_of(path, text):
    path.write_bytes(text.encode())
    return [row for _, row in read_rows(str(path))]


def test_reads_rows_like_the_csv_module(tmp_path):
    text = 'a,b\r\n1,"x, ""y""\n\nz"\r\n\r\n2\r\n3,c "d" e,\r\n'
    rows = rows_of(tmp_path / "a.csv", text)
    with open(tmp_path / "a.csv", newline="") as file:
        expected = list(csv.DictReader(file))
    expected[-1].pop(None)  # the empty value after the last delimiter
    assert rows == expected
    assert rows_of(tmp_path / "empty.csv", "") == rows_of(tmp_path / "names.csv", "a,b\n") == []


@pytest.mark.parametrize("bad", ['"never closed', '"closed" too early', 'x\t"never closed', "x\ty\tz"])
@pytest.mark.parametrize("last", ["5\te\n", '5\t"e"'])
def test_a_row_with_broken_quotes_or_too_many_values_costs_itself_alone(tmp_path, bad, last):
    text = f"key\tcaption\n0\ta\n{bad}\n2\tb\n{bad}\n4\tc\n{last}"
    rows = rows_of(tmp_path / "a.tsv", text)
    assert [row["key"] for row in rows if isinstance(row, dict)] == ["0", "2", "4", "5"]
    assert [index for index, row in enumerate(rows) if not isinstance(row, dict)] == [1, 3]


def test_bad_rows_are_counted_with_their_positions(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    lines = ["caption,jpg", "one,a.png", '"two,a.png', "three, with a comma,a.png", "four,a.png"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    records, report = convert(tmp_path / "a.csv", "parquet", target="text")
    assert [record["messages"][1]["content"][0]["text"] for record in records] == ["one", "four"]
    assert report.skipped == {"malformed row": 2} and "a:1 in" in str(report) and "a:2 in" in str(report)


def test_names_a_file_whose_names_have_broken_quotes(tmp_path):
    with pytest.raises(ValueError, match=r"Cannot read '.*a\.csv': Error: unexpected end of data"):
        rows_of(tmp_path / "a.csv", 'key,"caption\n0,a\n')
