"""Small sources in published formats, whose documentation each test names."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image as PILImage

from vilau_hf.data.converters import ConversionReport, convert_records


def png(seed=0) -> bytes:
    data = io.BytesIO()
    PILImage.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


def save_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(seed))


def convert(source, format, **options):
    report = ConversionReport()
    return list(convert_records(str(source), format, report=report, **options)), report


def turns(record):
    """Returns roles and contents of a record. An image or a video is a tuple with its type."""
    return [
        (message["role"], [item["text"] if item["type"] == "text" else (item["type"],) for item in message["content"]])
        for message in record["messages"]
    ]


def llava_rows(folder):
    save_image(folder / "coco/train2017/000000033471.jpg")
    save_image(folder / "vg/1.jpg")
    question, answer = "What are the colors of the bus?", "The bus is white and red."
    image = "coco/train2017/000000033471.jpg"

    def talk(*texts):
        return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]

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


def mmc4_document():
    """Returns the example of github.com/allenai/mmc4, README, with shorter sentences."""
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
        save_image(folder / "images" / name)
    file = folder / "docs_no_face_shard_0_v3.jsonl.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("docs_no_face_shard_0_v3.jsonl", "\n".join(lines))
    return file


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def all_sources(tmp_path):
    """Returns a source of each kind of record."""
    (tmp_path / "mix.json").write_text(json.dumps(llava_rows(tmp_path)))
    rows = [{"caption": "draw a red circle", "key": "0", "jpg": png()}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "coyo.parquet")
    return [
        (tmp_path / "mix.json", "llava", {}),
        (write_mmc4(tmp_path), "mmc4", {"media_folder": str(tmp_path / "images")}),
        (tmp_path / "coyo.parquet", "parquet", {"target": "media"}),
        (tmp_path / "coyo.parquet", "parquet", {"target": "text"}),
    ]
