from vilau_hf.data.converters import ConversionReport


def test_report_prints_a_table():
    report = ConversionReport()
    for index in range(5):
        report.skip("no image or video", f"row:{index}")
    report.skip("no target", "x")
    report.add({"images": [{"path": None, "bytes": b"x"}, {"path": "a.png", "bytes": None}], "videos": []})
    assert str(report).splitlines() == [
        "1 records, 6 rows skipped",
        "         5  no image or video  (row:0, row:1, row:2)",
        "         1  no target  (x)",
        "1 images in files",
        "1 images within the records",
    ]
