import os

import pytest

from vilau_hf.data.media_paths import MediaPathError, find_local_file, is_url


URLS = [
    "http://127.0.0.1/a.png",
    "HTTPS://example.org/a.png",
    " https://example.org/a.png",
    "ftp://example.org/a.png",
    "file:///etc/passwd",
    "s3://bucket/a.png",
    "gs://bucket/a.png",
    "hf://datasets/me/x/a.png",
    "github://me:x@main/a.png",
    "memory://a.png",
    "zip://a.png::http://127.0.0.1/x.zip",
    "simplecache::s3://bucket/a.png",
    "filecache::/etc/passwd",
    "data:image/png;base64,AAAA",
    "Data:,a",
]


@pytest.mark.parametrize("url", URLS)
def test_rejects_every_scheme_before_a_file_is_looked_up(url, monkeypatch):
    monkeypatch.setattr(os, "stat", None)
    monkeypatch.setattr(os.path, "realpath", None)
    assert is_url(url)
    with pytest.raises(MediaPathError, match="it is a URL, download it first"):
        find_local_file(url)


@pytest.mark.parametrize("name", ["a.png", "12:30.png", "with space.png", "Bär 熊.png", "C:a.png", "data/a.png"])
def test_accepts_local_files_below_a_root(tmp_path, name):
    file = tmp_path / "media" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert find_local_file(file) == str(file)
    assert find_local_file(str(file), [tmp_path / "none", tmp_path / "media"]) == str(file)


def test_rejects_files_outside_of_the_roots(tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media2").mkdir()
    for name in ("secret.png", "media2/a.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "media/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "media/folder").symlink_to(tmp_path / "media2")
    for name in ("../secret.png", "../media2/a.png", str(tmp_path / "secret.png"), "link.png", "folder/a.png"):
        with pytest.raises(MediaPathError, match=r"outside of the folders of media \('.*media'\)"):
            find_local_file(tmp_path / "media" / name, [tmp_path / "media"])
        assert find_local_file(tmp_path / "media" / name)
    assert find_local_file(tmp_path / "media/folder/a.png", [tmp_path / "media", tmp_path / "media2"])


def test_accepts_links_of_the_cache_of_the_hub(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/0a1b").write_bytes(b"x")
    snapshot = tmp_path / "snapshots/c0ffee"
    (snapshot / "images").mkdir(parents=True)
    (snapshot / "images/a.png").symlink_to("../../../blobs/0a1b")
    assert find_local_file(snapshot / "images/a.png", [snapshot]).endswith("images/a.png")
    assert find_local_file(snapshot / "images/a.png", [snapshot / "images"])


def test_rejects_fifos_devices_and_folders(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "link.png").symlink_to("/dev/zero")
    for name in (tmp_path / "fifo.png", tmp_path / "link.png", tmp_path, "/dev/zero", "/dev/stdin"):
        with pytest.raises((MediaPathError, FileNotFoundError)):
            find_local_file(name)
    with pytest.raises(MediaPathError, match="it is not a regular file"):
        find_local_file(tmp_path / "fifo.png", [tmp_path])


def test_rejects_names_that_no_file_can_have(tmp_path):
    with pytest.raises(OSError, match="File name too long"):
        find_local_file(tmp_path / ("a" * 256))
    with pytest.raises(MediaPathError, match="null character"):
        find_local_file(str(tmp_path / "a\0.png"))
    with pytest.raises(MediaPathError, match="must be a string, got bytes"):
        find_local_file(b"a.png")
    with pytest.raises(MediaPathError, match="it is not a regular file"):
        find_local_file("")
