"""Files are written here in the layouts of their publishers, whose sources each test names."""

import base64
import csv
import gzip
import io
import json
import pickle
import sys
import tarfile
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, Image, List, load_dataset
from PIL import Image as PILImage

from vilau_hf.data import VilaUDataCollator
from vilau_hf.data.converters import ConversionReport, convert_records, write_records
from vilau_hf.data.media import MediaLoader
from vilau_hf.data.records import record_features

from ..processing.conftest import build_processor


def png(seed=0) -> bytes:
    data = io.BytesIO()
    PILImage.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


def save_picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(seed))


def convert(source, format, **options):
    report = ConversionReport()
    return list(convert_records(str(source), format, report=report, **options)), report


def turns(record):
    """Roles and parts of a record, an image or a video as its type alone."""
    return [
        (message["role"], [part["text"] if part["type"] == "text" else (part["type"],) for part in message["content"]])
        for message in record["messages"]
    ]


def llava_rows(folder):
    save_picture(folder / "coco/train2017/000000033471.jpg")
    save_picture(folder / "vg/1.jpg")
    question, answer = "What are the colors of the bus?", "The bus is white and red."
    image = "coco/train2017/000000033471.jpg"

    def talk(*texts):
        return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]

    return [
        {
            "id": "000000033471",
            "image": image,
            "conversations": talk(f"<image>\n{question}", answer, "And the sky?", "Blue."),
        },
        {"id": 7, "image": image, "conversations": talk("Describe the image concisely.\n<image>", "a bus")},
        {"id": "vila", "image": image, "conversations": talk(question, answer)},
        {"id": "wgByO4Y_0", "model": "", "conversations": talk("hello", "hi")},
        {"id": "two", "image": [image, "vg/1.jpg"], "conversations": talk("<image>\n<image>\nWhich is older?", "a")},
        {"id": "gone", "image": "coco/train2017/none.jpg", "conversations": talk("<image>\nwhat", "that")},
        {"id": "wrong", "image": image, "conversations": talk("<image>\n<image>\nwhat", "that")},
        {"id": "tool", "conversations": [{"from": "function", "value": "x"}]},
        {"id": "open", "conversations": talk("no answer")},
    ]


@pytest.mark.parametrize("kind", ["json", "jsonl", "jsonl.gz"])
def test_llava(tmp_path, kind):
    """github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md; llava_v1_5_mix665k.json, ShareGPT4V's JSON and
    VILA's finetuning/README.md (no placeholder) have the same fields."""
    rows = llava_rows(tmp_path)
    lines = "\n".join(json.dumps(row) for row in rows)
    file = tmp_path / f"mix.{kind}"
    file.write_bytes(gzip.compress(lines.encode()) if kind.endswith("gz") else (lines.encode()))
    if kind == "json":
        file.write_text(json.dumps(rows, indent=2))
    records, report = convert(file, "llava")
    assert [record["id"] for record in records] == ["000000033471", "7", "vila", "wgByO4Y_0", "two"]
    question, answer = "What are the colors of the bus?", "The bus is white and red."
    assert turns(records[0]) == [
        ("user", [("image",), question]),
        ("assistant", [answer]),
        ("user", ["And the sky?"]),
        ("assistant", ["Blue."]),
    ]
    assert turns(records[1])[0] == ("user", ["Describe the image concisely.", ("image",)])
    assert turns(records[2])[0] == ("user", [("image",), question])
    assert turns(records[3]) == [("user", ["hello"]), ("assistant", ["hi"])]
    assert turns(records[4])[0] == ("user", [("image",), ("image",), "Which is older?"])
    paths = [str(tmp_path / "coco/train2017/000000033471.jpg"), str(tmp_path / "vg/1.jpg")]
    assert [image["path"] for image in records[4]["images"]] == paths
    assert report.num_records == 5
    assert report.skipped == {
        "file of an image or video is missing": 1,
        "number of images differs from their parts": 1,
        "unknown speaker 'function'": 1,
        "no target": 1,
    }
    assert report.media == {"images in files": 5}


def test_llava_videos(tmp_path):
    """LLaVA-Video-178K writes `<image>` where its `video` stands, Video-LLaVA `<video>`."""
    save_picture(tmp_path / "a.mp4")
    rows = [
        {"id": str(place), "video": "a.mp4", "conversations": [{"from": "human", "value": f"<{word}>\nwhat"}, answer]}
        for place, (word, answer) in enumerate(
            [("image", {"from": "gpt", "value": "it"}), ("video", {"from": "gpt", "value": "it"})]
        )
    ]
    (tmp_path / "videos.json").write_text(json.dumps(rows))
    records, _ = convert(tmp_path / "videos.json", "llava")
    assert [turns(record)[0] for record in records] == [("user", [("video",), "what"])] * 2
    assert [len(record["videos"]) for record in records] == [1, 1] and not records[0]["images"]


def test_a_large_array_is_read_piece_by_piece(tmp_path):
    row = json.dumps({"id": "a", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})
    (tmp_path / "broken.json").write_text(f"[{', '.join([row] * 2000)}, oops")
    records = iter(convert_records(str(tmp_path / "broken.json"), "llava"))
    assert next(records)["id"] == "a"  # before the end is seen
    with pytest.raises(ValueError, match=r"Cannot read '.*broken.json': ValueError: no valid JSON array"):
        list(records)


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("[]")
    monkeypatch.setitem(sys.modules, "ijson", None)
    with pytest.raises(ImportError, match=r"To read '.*a.json' piece by piece: pip install 'vilau_hf\[data\]'"):
        convert(tmp_path / "a.json", "llava")


def mmc4_document():
    """The example of github.com/allenai/mmc4, README, with shorter sentences."""
    return {
        "image_info": [
            {
                "face_detections": None,
                "image_name": "b9040a0dbb22.jpg",
                "matched_sim": 0.27694183588027954,
                "matched_text_index": 2,
                "raw_url": "http://www.hfitinfo.com/honda_fit_pics/3/2/index.90.jpg",
            },
            {
                "face_detections": None,
                "image_name": "db1c21bc8474.jpg",
                "matched_sim": 0.3234919607639313,
                "matched_text_index": 1,
                "raw_url": "http://www.hfitinfo.com/honda_fit_pics/3/2/index.91.jpg",
            },
        ],
        "similarity_matrix": [[0.24, 0.31, 0.27], [0.22, 0.32, 0.26]],
        "text_list": [
            "When you lock the door, all lock.",
            "Press the <image> switch.",
            "When you unlock, all unlock.",
        ],
        "url": "http://www.hfitinfo.com/hofi-48.html",
        "could_have_url_duplicate": 0,
    }


def write_mmc4(folder):
    lost = {**mmc4_document(), "url": "http://lost"}
    lost["image_info"] = [{**lost["image_info"][0], "image_name": "none.jpg"}]
    half = {**mmc4_document(), "url": "http://half"}
    half["image_info"] = [{**half["image_info"][0], "image_name": "none.jpg"}, half["image_info"][1]]
    lines = [json.dumps(row) for row in (mmc4_document(), lost, half)] + ['{"text_list": ["cut off']
    for name in ("b9040a0dbb22.jpg", "db1c21bc8474.jpg"):
        save_picture(folder / "images" / name)
    file = folder / "docs_no_face_shard_0_v3.jsonl.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("docs_no_face_shard_0_v3.jsonl", "\n".join(lines))
    return file


def test_mmc4(tmp_path):
    """github.com/allenai/mmc4, README: zipped JSON lines; images are downloaded by `raw_url` to `image_name`."""
    records, report = convert(write_mmc4(tmp_path), "mmc4", media_folder=str(tmp_path / "images"))
    first, second, third = (
        "When you lock the door, all lock.",
        "Press the <IMAGE> switch.",
        "When you unlock, all unlock.",
    )
    assert turns(records[0]) == [("document", [first, ("image",), second, ("image",), third])]
    assert [image["path"][-16:] for image in records[0]["images"]] == ["db1c21bc8474.jpg", "b9040a0dbb22.jpg"]
    assert turns(records[1]) == [("document", [first, ("image",), f"{second} {third}"])]
    assert [record["id"] for record in records] == ["http://www.hfitinfo.com/hofi-48.html", "http://half"]
    assert report.skipped == {"document without images": 1, "malformed row": 1}
    assert report.examples["malformed row"] == ["docs_no_face_shard_0_v3:3"]
    assert report.dropped == {"file of an image or video is missing": 2}


def test_mmc4_options(tmp_path):
    file = write_mmc4(tmp_path)
    records, report = convert(file, "mmc4", media_folder=str(tmp_path / "images"), min_similarity=0.3)
    assert [len(record["images"]) for record in records] == [1, 1]
    assert report.dropped["image less similar than 0.3"] == 3
    records, report = convert(file, "mmc4", media_folder=str(tmp_path / "images"), max_images=1)
    assert records[0]["images"][0]["path"].endswith("b9040a0dbb22.jpg")  # the first one that the document names
    assert report.dropped["image beyond the first 1 of a document"] == 1
    with pytest.raises(ValueError, match="`max_images` must be at least 1, got 0"):
        convert(file, "mmc4", max_images=0)


def test_img2dataset_parquet_in_both_directions(tmp_path):
    """github.com/rom1504/img2dataset, README and writer.py: parquet output has the metadata and the image as `jpg`."""
    rows = [
        {"caption": "a red bus ", "url": "http://a", "key": "000000000", "status": "success", "jpg": png(0)},
        {"caption": "gone", "url": "http://b", "key": "000000001", "status": "failed_to_download", "jpg": None},
        {"caption": None, "url": "http://c", "key": "000000002", "status": "success", "jpg": png(1)},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "00000.parquet")
    records, report = convert(tmp_path, "parquet", target="media")
    assert turns(records[0]) == [("user", ["a red bus"]), ("assistant", [("image",)])]
    assert records[0]["id"] == "000000000" and records[0]["images"][0]["bytes"] == png(0)
    assert report.skipped == {"no image or video": 1, "field 'caption' is no text": 1}
    records, _ = convert(tmp_path, "parquet", target="text")
    assert turns(records[0]) == [("user", [("image",)]), ("assistant", ["a red bus"])]
    records, _ = convert(tmp_path, "parquet", target="text", prompt="Describe it.")
    assert turns(records[0])[0] == ("user", [("image",), "Describe it."])


def test_coyo_with_urls(tmp_path):
    """github.com/kakaobrain/coyo-dataset, README, "Attributes"."""
    row = {"id": 2559800550877, "url": "https://artusa.com/a.jpg", "text": "Fuel State Critical", "width": 600}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "part-00000.snappy.parquet")
    options = {"caption_field": "text", "media_field": "url", "id_field": "id"}
    records, report = convert(tmp_path / "*.parquet", "parquet", target="media", **options)
    assert records[0]["id"] == "2559800550877" and records[0]["images"][0]["path"] == "https://artusa.com/a.jpg"
    assert "1 images by URL, to be downloaded before training" in str(report)


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_webdataset(tmp_path):
    """github.com/rom1504/img2dataset, README: webdataset output; github.com/webdataset/webdataset: names and keys."""
    meta = json.dumps({"url": "http://a", "caption": "from json", "key": "000000000", "status": "success"}).encode()
    write_tar(
        tmp_path / "00000.tar",
        [
            ("./000000000.jpg", png()),
            ("./000000000.txt", b"a red bus"),
            ("./000000000.json", meta),
            ("./000000001.txt", b"no image"),
            ("./000000001.json", meta),
            ("./000000002.png", png(2)),
            ("./000000002.txt", b"\xff\xfe"),
            ("./000000003.webp", png(3)),
            ("./000000003.pyd", pickle.dumps({"caption": "never read"})),
        ],
    )
    records, report = convert(tmp_path / "00000.tar", "webdataset", target="media")
    assert [turns(record) for record in records] == [[("user", ["a red bus"]), ("assistant", [("image",)])]]
    assert records[0]["id"] == "./000000000" and records[0]["images"][0]["bytes"] == png()
    assert report.skipped == {"no image file": 1, "unreadable .txt file": 1, "no .txt file": 1}
    records, report = convert(tmp_path / "00000.tar", "webdataset", target="text", caption_field="json.caption")
    assert turns(records[0]) == [("user", [("image",)]), ("assistant", ["from json"])]
    assert report.skipped == {"no image file": 1, "no .json file": 2}
    write_tar(tmp_path / "videos.tar", [("a.mp4", b"x"), ("a.txt", b"it moves")])
    records, _ = convert(tmp_path / "videos.tar", "webdataset", target="media", media="video")
    assert turns(records[0])[1] == ("assistant", [("video",)]) and records[0]["videos"][0]["bytes"] == b"x"


def test_a_tar_that_is_cut_off_is_named(tmp_path):
    write_tar(tmp_path / "whole.tar", [("a.jpg", png()), ("a.txt", b"a"), ("b.jpg", b"0" * 4000), ("b.txt", b"b")])
    (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:4000])
    with pytest.raises(ValueError, match=r"Cannot read '.*cut.tar': ReadError"):
        convert(tmp_path / "cut.tar", "webdataset", target="media")


def test_openvid(tmp_path):
    """huggingface.co/datasets/nkp37/OpenVid-1M: columns of data/train/OpenVid-1M.csv, videos unpacked to `video`."""
    header = "video,caption,aesthetic score,motion score,temporal consistency score,camera motion,frame,fps,seconds"
    with open(tmp_path / "OpenVid-1M.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerow(["celebv_1_0.mp4", 'A woman says "hi",\nthen leaves.', 4.8, 5.1, 0.99, "static", 84, 24, 3.5])
        writer.writerow(["gone.mp4", "Nothing.", 4.8, 5.1, 0.99, "pan_left", 84, 24, 3.5])
    save_picture(tmp_path / "video/celebv_1_0.mp4")
    options = {"media_folder": str(tmp_path / "video")}
    records, report = convert(tmp_path / "OpenVid-1M.csv", "openvid", target="media", **options)
    assert turns(records[0]) == [("user", ['A woman says "hi",\nthen leaves.']), ("assistant", [("video",)])]
    assert records[0]["videos"] == [{"path": str(tmp_path / "video/celebv_1_0.mp4"), "bytes": None}]
    assert records[0]["id"] == "celebv_1_0.mp4" and report.skipped == {"file of an image or video is missing": 1}
    records, _ = convert(tmp_path / "OpenVid-1M.csv", "openvid", target="text", prompt="What happens?", **options)
    assert turns(records[0])[0] == ("user", [("video",), "What happens?"])


def test_vflan(tmp_path):
    """github.com/NVlabs/VILA: fields of data_prepare/sft/preprocess_m3it.py, images as in M3IT a list of base64;
    `<image>` is taken out of the question as in llava/data/dataset.py."""
    rows = [
        {"question": "<image>\nWhat is it?", "answer": "a cat", "image": [base64.b64encode(png()).decode()]},
        {"question": "2 + 2?", "answer": "4", "image": None},
        {"question": "What?", "answer": "", "image": []},
        {"question": "What?", "answer": "x", "image": ["no base64!"]},
        {"question": "What?"},
    ]
    (tmp_path / "vqa.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    records, report = convert(tmp_path / "vqa.jsonl", "vflan", image_encoding="base64")
    assert turns(records[0]) == [("user", [("image",), "What is it?"]), ("assistant", ["a cat"])]
    assert records[0]["images"][0]["bytes"] == png()
    assert turns(records[1]) == [("user", ["2 + 2?"]), ("assistant", ["4"])]
    assert report.skipped == {"field 'answer' is empty": 1, "image is no base64": 1, "no field 'answer'": 1}
    assert [record["id"] for record in records] == ["vqa:0", "vqa:1"]
    row = {"q": "Which?", "answer:": "b", "image:": "a.jpg", "id": 3}
    save_picture(tmp_path / "pictures/a.jpg")
    (tmp_path / "files.jsonl").write_text(json.dumps(row))
    options = {"question_field": "q", "answer_field": "answer:", "image_field": "image:", "id_field": "id"}
    records, _ = convert(tmp_path / "files.jsonl", "vflan", media_folder=str(tmp_path / "pictures"), **options)
    assert records[0]["id"] == "3" and records[0]["images"][0]["path"].endswith("pictures/a.jpg")


def test_hub_captions_of_an_imagefolder(tmp_path):
    """huggingface.co/docs/datasets/image_dataset: an imagefolder with metadata.jsonl."""
    for index in range(3):
        save_picture(tmp_path / "data/train" / f"{index}.png", index)
    lines = [{"file_name": f"{index}.png", "caption": f"picture {index}"} for index in range(3)]
    (tmp_path / "data/train/metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    for num_shards in (1, 2):
        records, _ = convert(tmp_path / "data", "hub", target="media", num_shards=num_shards)
        assert sorted(turns(record)[0][1][0] for record in records) == ["picture 0", "picture 1", "picture 2"]
        assert len({record["id"] for record in records}) == 3
    opened = MediaLoader(build_processor()).load(records[0])["images"][0]
    assert opened.size == (8, 6)


def test_hub_captions_of_a_parquet_dataset(tmp_path):
    """huggingface.co/docs/datasets/image_load: a column of images is stored as `{"bytes", "path"}`."""
    dataset = Dataset.from_dict({"image": [{"bytes": png(), "path": "a.png"}], "text": ["a bus"], "n": [1]})
    dataset = dataset.cast_column("image", Image())
    (tmp_path / "data").mkdir()
    dataset.to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
    records, _ = convert(tmp_path / "data", "hub", target="text", caption_field="text", id_field="n")
    assert turns(records[0]) == [("user", [("image",)]), ("assistant", ["a bus"])]
    assert records[0]["images"][0]["bytes"] == png() and records[0]["id"] == "1"


def chat_rows(folder):
    save_picture(folder / "a.png")
    said = {"role": "assistant", "content": "a cat"}
    return [
        {"messages": [{"role": "user", "content": "What is it?"}, said], "images": ["a.png"]},
        {"prompt": [{"role": "user", "content": "What?"}], "completion": [said], "image": "a.png"},
        {"prompt": "The sky is", "completion": " blue."},
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
            ],
            "images": ["a.png"],
        },
        {"prompt": "The sky is"},
        {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]},
    ]


def check_chats(records, report):
    assert turns(records[0]) == [("user", [("image",), "What is it?"]), ("assistant", ["a cat"])]
    assert turns(records[1]) == [("user", [("image",), "What?"]), ("assistant", ["a cat"])]
    assert turns(records[2]) == [("user", ["The sky is"]), ("assistant", [" blue."])]
    assert turns(records[3])[:2] == [("system", ["Be brief."]), ("user", ["What?", ("image",)])]
    assert report.skipped == {"neither messages nor prompt and completion": 1, "unknown role": 1}


def test_chats_of_trl(tmp_path):
    """huggingface.co/docs/trl/dataset_formats; placement of images as in trl's `prepare_multimodal_messages`."""
    rows = chat_rows(tmp_path)
    (tmp_path / "chats.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    check_chats(*convert(tmp_path / "chats.jsonl", "chat"))


def test_chats_of_trl_in_a_table(tmp_path):
    """As huggingface.co/datasets/trl-lib/llava-instruct-mix: typed columns, so that parts have an empty `text`."""
    row = chat_rows(tmp_path)[3] | {"images": [{"bytes": png(), "path": "a.png"}]}
    dataset = Dataset.from_list([row]).cast_column("images", List(Image()))
    assert dataset[0]["messages"][1]["content"][1] == {"type": "image", "text": None}
    (tmp_path / "data").mkdir()
    dataset.to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
    records, _ = convert(tmp_path / "data", "chat")
    assert turns(records[0])[1] == ("user", ["What?", ("image",)])
    assert records[0]["images"][0]["bytes"] == png()


@pytest.mark.parametrize("name", ["coyo_1m.pkl", "disguised.json"])
def test_pickles_are_refused(tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    (tmp_path / name).write_bytes(pickle.dumps([Bomb()]))
    for source in (tmp_path / name, tmp_path):
        if name.endswith("json") and source is tmp_path:
            continue
        with pytest.raises(ValueError, match="is a pickle. Reading one runs whatever code its author put in"):
            convert(source, "vflan")
    with pytest.raises(ValueError, match="`format` 'pickle': a source that is a pickle"):
        convert(tmp_path / name, "pickle")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet", "csv", "tar"])
def test_parts_of_a_file_are_the_file(tmp_path, kind):
    numbers = [str(number) for number in range(23)]
    rows = [{"key": number, "caption": f"no {number}", "jpg": "http://a"} for number in numbers]
    file, format, options = tmp_path / f"rows.{kind}", "parquet", {"target": "media"}
    if kind == "json":
        file.write_text(json.dumps(rows))
    elif kind == "jsonl":
        file.write_text("\n".join(json.dumps(row) for row in rows))
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=5)
    elif kind == "csv":
        file.write_text("key,caption,jpg\n" + "".join(f"{n},no {n},http://a\n" for n in numbers))
    else:
        members = [(f"{n}.{end}", data) for n in numbers for end, data in (("jpg", b"x"), ("txt", b"a"))]
        write_tar(file, members)
        format = "webdataset"
    for num_shards in (1, 2, 4, 7, 40):  # of parquet: by row group up to 5, by row from then on
        dataset = convert_records(str(file), format, num_shards=num_shards, **options)
        assert dataset.num_shards == num_shards
        shards = [list(dataset.shard(num_shards, index)) for index in range(num_shards)]
        assert sorted(record["id"] for shard in shards for record in shard) == sorted(numbers)
        assert num_shards > 5 or all(shards)


def test_several_files_make_shards(tmp_path):
    for index in range(5):
        (tmp_path / f"{index}.jsonl").write_text(json.dumps({"question": "q", "answer": str(index)}))
    assert convert_records(str(tmp_path), "vflan").num_shards == 5
    dataset = convert_records([str(tmp_path / "[01].jsonl"), str(tmp_path / "3.jsonl")], "vflan", num_shards=2)
    assert dataset.num_shards == 2 and len(list(dataset)) == 3
    dataset = convert_records(str(tmp_path), "vflan", num_shards=2, name="numbers")
    assert dataset.num_shards == 4
    assert sorted(record["id"] for record in dataset) == [f"numbers/{index}:0" for index in range(5)]


def test_wrong_arguments_are_named(tmp_path):
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
        ("`source` must be a file, a pattern or a folder with .*, got '.*none'", str(tmp_path / "none"), "llava", {}),
        ("`source` must be of the kinds .json, .*, got '.*a.txt'", str(tmp_path / "a.txt"), "llava", {}),
        ("`num_shards` must be at least 1, got 0", good, "llava", {"num_shards": 0}),
    ):
        with pytest.raises(ValueError, match=message):
            convert_records(source, format, **options)


def all_sources(tmp_path):
    """A source of each kind of record."""
    (tmp_path / "mix.json").write_text(json.dumps(llava_rows(tmp_path)))
    rows = [{"caption": "draw a red circle", "key": "0", "jpg": png()}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "coyo.parquet")
    return [
        (tmp_path / "mix.json", "llava", {}),
        (write_mmc4(tmp_path), "mmc4", {"media_folder": str(tmp_path / "images")}),
        (tmp_path / "coyo.parquet", "parquet", {"target": "media"}),
        (tmp_path / "coyo.parquet", "parquet", {"target": "text"}),
    ]


def test_written_records_are_read_back(tmp_path):
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
    with pytest.raises(ValueError, match="`records` has none"):
        write_records([], tmp_path / "empty")
    assert not list(tmp_path.glob("empty*"))


def test_a_write_that_is_interrupted_leaves_no_folder(tmp_path):
    def records():
        yield convert(*all_sources(tmp_path)[0][:2])[0][0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(records(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(write_records(convert(*all_sources(tmp_path)[0][:2])[0], tmp_path / "out")) == 1


def test_converted_records_become_batches(tmp_path):
    processor = build_processor()
    collator, media = VilaUDataCollator(processor, unconditional_probability=0), MediaLoader(processor)
    for source, format, options in all_sources(tmp_path):
        records, _ = convert(source, format, **options)
        batch = collator([media.load(record) for record in records])
        assert batch["pixel_values"].shape == (sum(len(record["images"]) for record in records), 3, 8, 8)
        visual_targets = (batch["labels"] == processor.image_token_id).any()
        assert visual_targets == (options.get("target") == "media")
        assert (batch["labels"] != -100).any(1).all()


def test_the_report_is_a_table():
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
