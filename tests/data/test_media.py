import io
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader

from vilau_hf.data import PackedDataset, RecordPacker, VilaUDataCollator
from vilau_hf.data.media import MediaError, MediaLoader, ReadableRows
from vilau_hf.data.packing import count_tokens
from vilau_hf.data.records import media_content_part, record_features, text_content_part

from ..processing.conftest import build_processor


def build_image(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8))


def write_video(path, num_frames=24):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for index in range(num_frames):
            frame = np.full((16, 32, 3), 10 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def record(record_id="r1", **media):
    content = [media_content_part(name[:-1]) for name, items in media.items() for _ in items]
    messages = [{"role": "user", "content": [text_content_part("draw")]}, {"role": "assistant", "content": content}]
    return {"id": record_id, "messages": messages, "images": [], "videos": [], **media}


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def test_opens_all_types_of_images(processor, tmp_path):
    image, path = build_image(), tmp_path / "a.png"
    image.save(path)
    data = path.read_bytes()
    forms = [image, str(path), path, data, {"path": str(path), "bytes": None}, {"path": None, "bytes": data}]
    loaded = MediaLoader(processor).load(record(images=[*forms, io.BytesIO(data)]))
    assert len(loaded["images"]) == 7
    for opened in loaded["images"]:
        assert np.array_equal(np.asarray(opened), np.asarray(image))


def test_rotates_an_image_by_its_exif_data(processor):
    data, exif = io.BytesIO(), Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = 6  # a quarter turn
    build_image().save(data, "PNG", exif=exif)
    assert MediaLoader(processor).load(record(images=[data.getvalue()]))["images"][0].size == (6, 8)


def test_settings_of_the_image_processor_apply_to_images_of_records(tmp_path):
    processor, data = build_processor(), io.BytesIO()
    exif = Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = 6
    build_image().save(data, "PNG", exif=exif)
    processor.image_processor.do_exif_transpose = False
    assert MediaLoader(processor).load(record(images=[data]))["images"][0].size == (8, 6)
    processor.image_processor.max_image_pixels = 20
    with pytest.raises(MediaError, match=r"at most `max_image_pixels` \(20\) pixels, got 8 x 6"):
        MediaLoader(processor).load(record(images=[data]))


def test_settings_of_an_image_processor_apply_without_a_complete_processor():
    image_processor = build_processor().image_processor
    image_processor.max_image_pixels = 20
    data = io.BytesIO()
    build_image().save(data, "PNG")
    with pytest.raises(MediaError, match=r"at most `max_image_pixels` \(20\) pixels, got 8 x 6"):
        MediaLoader(image_processor=image_processor).load(record(images=[data.getvalue()]))


def test_a_16_bit_image_of_a_record_gives_the_right_pixels(processor):
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    data = io.BytesIO()
    Image.fromarray(levels.astype(np.uint16) * 257).save(data, "PNG")
    loaded = MediaLoader(processor).load(record(images=[data.getvalue()]))
    pixels = VilaUDataCollator(processor)([loaded])["pixel_values"][0, 0]
    np.testing.assert_allclose((pixels.numpy() / 2 + 0.5) * 255, levels, atol=1e-3)


def test_repeats_and_counts_the_frames_of_short_videos(processor, tmp_path):
    for name, num_frames in (("short", 3), ("long", 24)):
        write_video(tmp_path / f"{name}.mp4", num_frames)
    videos = [str(tmp_path / f"{name}.mp4") for name in ("short", "long", "short")]
    loaded = MediaLoader(processor).load(record(videos=videos))
    assert loaded["repeated_videos"] == 2
    assert [len(frames) for frames in loaded["videos"]] == [8, 8, 8]
    short = loaded["videos"][0]
    assert np.array_equal(short, short[[0, 0, 0, 3, 3, 3, 6, 6]])
    assert VilaUDataCollator(processor)([loaded])["pixel_values_videos"].shape == (3, 8, 3, 8, 8)


def test_samples_frames_of_video_files_and_bytes(processor, tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path)
    data = {"path": "elsewhere/a.mp4", "bytes": path.read_bytes()}
    loaded = MediaLoader(processor).load(record(videos=[str(path), {"path": str(path), "bytes": None}, data]))
    expected = processor.video_processor([str(path)], return_tensors="pt")["pixel_values_videos"][0]
    for frames in loaded["videos"]:
        assert frames.shape == (8, 16, 32, 3)
        pixels = processor.video_processor([frames], return_tensors="pt")["pixel_values_videos"][0]
        assert torch.equal(pixels, expected)


def test_keeps_open_frames(processor):
    frames, array = [build_image(0), build_image(1)], np.zeros((2, 6, 8, 3), np.uint8)
    loaded = MediaLoader(processor).load(record(videos=[frames, array]))["videos"]
    assert loaded[0] == frames and loaded[1] is array


def test_adds_no_fields(processor):
    codes = {"id": "a", "messages": [], "codes": [1, 2]}
    assert MediaLoader(processor).load(codes) == codes


def bad_media(tmp_path):
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(data, "JPEG")
    write_video(tmp_path / "short.mp4", num_frames=3)
    return [
        ("images", {"path": str(tmp_path / "none.jpg"), "bytes": None}, "FileNotFoundError"),
        ("images", {"path": str(tmp_path / "text.jpg"), "bytes": None}, "UnidentifiedImageError"),
        ("images", {"path": "x.jpg", "bytes": data.getvalue()[:-800]}, "image file is truncated"),
        ("images", {"path": "https://example.org/a.jpg", "bytes": None}, "it is a URL, download it first"),
        ("videos", {"path": str(tmp_path / "text.jpg"), "bytes": None}, "Cannot read the video"),
        ("videos", {"path": None, "bytes": b"no video"}, "Cannot read the video"),
        ("videos", {"path": str(tmp_path / "short.mp4"), "bytes": None}, "exceeds total_num_frames=3"),
        ("videos", {"path": "https://example.org/a.mp4", "bytes": None}, "it is a URL, download it first"),
    ]


def test_names_the_record_of_bad_media(processor, tmp_path):
    loader = MediaLoader(processor, on_short_video="error")
    for field, item, cause in bad_media(tmp_path):
        with pytest.raises(MediaError, match=rf"Cannot open {field}\[0\] of record 'r1' \(.*{cause}") as caught:
            loader.load(record(**{field: [item]}))
        assert item["path"] is None or item["path"] in str(caught.value)
    with pytest.raises(ValueError, match="`on_bad_media` must be 'error' or 'skip', got 'ignore'"):
        MediaLoader(processor, on_bad_media="ignore")
    with pytest.raises(ValueError, match="`on_short_video` must be 'repeat' or 'error', got 'pad'"):
        MediaLoader(processor, on_short_video="pad")


@pytest.fixture
def requests_of_server():
    """Returns the port of a server on this machine, and the list of requests that it gets."""
    requests = []

    class Recorder(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.requestline)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, requests
        server.shutdown()
        thread.join()


def test_training_asks_no_server(processor, tmp_path, requests_of_server):
    port, requests = requests_of_server
    address = f"http://127.0.0.1:{port}"
    urls = [
        f"{address}/a.png",
        f" {address}/a.png",
        f"HTTP://127.0.0.1:{port}/a.png",
        f"zip://a.png::{address}/x.zip",
        f"simplecache::{address}/a.png",
        f"filecache::zip://a.png::{address}/x.zip",
        f"tar://a.png::{address}/x.tar",
        f"ftp://127.0.0.1:{port}/a.png",
        f"webdav://127.0.0.1:{port}/a.png",
        "s3://bucket/a.png",
        "gs://bucket/a.png",
        "hf://datasets/me/x/a.png",
        "github://me:x@main/a.png",
        "data:image/png;base64,AAAA",
        "file:///dev/zero",
    ]
    # A playlist is a local file that names a URL, which ffmpeg could open.
    playlist = tmp_path / "playlist.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}/a.ts\n#EXT-X-ENDLIST\n")
    items = [*urls, *({"path": url, "bytes": None} for url in urls)]
    loader = MediaLoader(processor, on_bad_media="skip")
    collator = VilaUDataCollator(processor)
    for item in items:
        assert loader.load(record(images=[item])) is None
        assert loader.load(record(videos=[item])) is None
        assert loader.load(record(videos=[[item]])) is None
        # The collator alone, whose processor would download.
        for field in ("images", "videos"):
            with pytest.raises(MediaError, match="it is a URL, download it first"):
                collator([record(**{field: [item]})])
    for video in (str(playlist), playlist.read_bytes(), {"path": "a.m3u8", "bytes": playlist.read_bytes()}):
        assert loader.load(record(videos=[video])) is None
    assert not requests


def test_opens_only_regular_files_below_the_roots(processor, tmp_path):
    for folder in ("inside", "outside"):
        (tmp_path / folder).mkdir()
        build_image().save(tmp_path / folder / "a.png")
    os.mkfifo(tmp_path / "inside/fifo.png")
    (tmp_path / "inside/link.png").symlink_to(tmp_path / "outside/a.png")
    loader = MediaLoader(processor, media_roots=[tmp_path / "inside"])
    assert loader.load(record(images=[str(tmp_path / "inside/a.png")]))["images"][0].size == (8, 6)
    for name in ("outside/a.png", "inside/../outside/a.png", "inside/link.png"):
        with pytest.raises(MediaError, match="outside of the folders of media"):
            loader.load(record(images=[tmp_path / name]))
    for item in (tmp_path / "inside/fifo.png", "/dev/zero", tmp_path):
        for field in ("images", "videos"):
            with pytest.raises(MediaError, match="it is not a regular file"):
                MediaLoader(processor).load(record(**{field: [item]}))


@pytest.mark.parametrize(
    "item", [float("nan"), {"path": float("nan"), "bytes": None}, {"path": 3}, {}, "\0", "a" * 300]
)
def test_names_the_record_of_a_name_that_no_file_can_have(processor, item):
    with pytest.raises(MediaError, match=r"Cannot open images\[0\] of record 'r1'"):
        MediaLoader(processor).load(record(images=[item]))


def test_videos_require_a_processor():
    assert MediaLoader().load(record(images=[build_image()]))["images"][0].size == (8, 6)
    with pytest.raises(ValueError, match="'r1' has videos: give `MediaLoader` a `processor`"):
        MediaLoader(on_bad_media="skip").load(record(videos=["a.mp4"]))


def test_skips_counts_and_logs_bad_media(processor, tmp_path, caplog):
    loader = MediaLoader(processor, on_bad_media="skip", on_short_video="error")
    for field, item, cause in bad_media(tmp_path):
        assert loader.load(record(**{field: [item]})) is None
        assert cause in caplog.text
    assert loader.num_skipped == 8
    assert "Skipped, 8 so far." in caplog.text


def test_leaves_bad_records_out_of_a_batch(processor, tmp_path):
    records = [record(str(index), images=[build_image(index)]) for index in range(3)]
    records[1]["images"] = [str(tmp_path / "none.png")]
    stored = Dataset.from_list(records, features=record_features())
    dataset = stored.with_transform(MediaLoader(processor, on_bad_media="skip"))
    batch = dataset.__getitems__([0, 1, 2])
    assert [each["id"] for each in batch] == ["0", "2"]
    assert VilaUDataCollator(processor)(batch)["pixel_values"].shape == (2, 3, 8, 8)
    with pytest.raises(MediaError, match="record '1'"):
        stored.with_transform(MediaLoader(processor)).__getitems__([0, 1])


def test_replaces_unreadable_rows_by_the_next(processor, tmp_path, caplog):
    records = [record(str(index), images=[build_image(index)]) for index in range(5)]
    for bad in (1, 2, 4):
        records[bad]["images"] = [str(tmp_path / "none.png")]
    stored, loader = Dataset.from_list(records, features=record_features()), MediaLoader(processor, "skip")
    dataset = ReadableRows(stored.with_transform(loader))
    assert len(dataset) == 5
    assert [dataset[index]["id"] for index in range(5)] == ["0", "3", "3", "3", "0"]
    assert loader.num_skipped == 4 and "Skipped, 4 so far." in caplog.text
    assert [row["id"] for row in dataset] == ["0", "3", "3", "3", "0"]
    for batch in DataLoader(dataset, batch_size=1, collate_fn=list):
        assert len(batch) == 1
    with pytest.raises(IndexError, match=r"`index` must be in \[0, 5\), got 5"):
        dataset[5]
    with pytest.raises(MediaError, match="record '1'"):
        ReadableRows(stored.with_transform(MediaLoader(processor)))[1]
    unreadable = ReadableRows(stored.select([1, 2, 4]).with_transform(MediaLoader(processor, "skip")))
    with pytest.raises(MediaError, match="None of the 3 rows has media that can be opened"):
        unreadable[0]


def test_replaces_unreadable_packs_by_the_next(processor, tmp_path):
    records = [record(str(index), images=[build_image(index)]) for index in range(6)]
    for bad in (0, 1, 3):
        records[bad]["images"] = [str(tmp_path / "none.png")]
    stored = Dataset.from_list(records, features=record_features()).with_transform(MediaLoader(processor, "skip"))
    length = count_tokens(records[:1], processor)[0]
    packed = PackedDataset(stored, RecordPacker(processor, max_length=2 * length))
    assert packed.packs == [[0, 1], [2, 3], [4, 5]]
    packs = [[each["id"] for each in pack["records"]] for pack in ReadableRows(packed)]
    assert packs == [["2"], ["2"], ["4", "5"]]


def test_batches_videos_of_files_and_of_frames(processor, tmp_path):
    write_video(tmp_path / "a.mp4")
    frames = [build_image(seed) for seed in range(8)]
    records = [record("file", videos=[str(tmp_path / "a.mp4")]), record("frames", videos=[frames])]
    batch = VilaUDataCollator(processor)([MediaLoader(processor).load(each) for each in records])
    assert batch["pixel_values_videos"].shape == (2, 8, 3, 8, 8)
    expected = processor.image_processor(frames, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(batch["pixel_values_videos"][1], expected)
    assert (batch["labels"] == processor.video_token_id).sum(1).tolist() == [32, 32]


def values_that_are_no_pixels():
    floats = io.BytesIO()
    Image.fromarray(np.full((6, 8), 200, np.float32)).save(floats, "TIFF")
    return [
        ("images", floats.getvalue(), "A PIL image of mode F must .* from 200 to 200"),
        ("images", Image.fromarray(np.full((6, 8), 7, np.int32)), "mode I must have values of 16 bits"),
        ("images", np.full((6, 8, 3), np.nan, np.float32), "got float32 from nan to nan"),
        ("videos", np.full((2, 6, 8, 3), -1, np.int64), "got int64 from -1 to -1"),
        ("videos", np.zeros((0, 6, 8, 3), np.uint8), "at least one frame"),
        ("videos", [build_image(), np.full((6, 8, 3), 2.0)], "got float64 from 2 to 2"),
    ]


@pytest.mark.parametrize("index", range(6))
def test_media_with_values_that_are_no_pixels_are_named_or_skipped(processor, index):
    field, item, cause = values_that_are_no_pixels()[index]
    with pytest.raises(MediaError, match=rf"Cannot open {field}\[0\] of record 'r1' .*{cause}"):
        MediaLoader(processor).load(record(**{field: [item]}))
    loader = MediaLoader(processor, on_bad_media="skip")
    assert loader.load(record(**{field: [item]})) is None and loader.num_skipped == 1


def test_rejects_a_processor_that_samples_no_frame():
    processor = build_processor()
    processor.video_processor.num_frames = 0
    with pytest.raises(ValueError, match="`num_frames` must be an integer of at least 1, got 0"):
        MediaLoader(processor, on_bad_media="skip")
