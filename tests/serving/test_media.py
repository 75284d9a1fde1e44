"""Sources of images: `data:` URLs, files in an allowed folder, and the check that each can be decoded."""

import io
import os
import struct
import zlib

import anyio
import pytest
from PIL import Image

from vilau_hf.serving import MediaSources
from vilau_hf.serving.errors import RequestError
from vilau_hf.serving.media import MediaReader

from .client import answer, data_url, drawn_image, media_server


PNG = drawn_image()[0]


def read(address, **sources):
    return anyio.run(MediaReader(MediaSources(**sources)).read_all, [address])[0]


def encoded(file_format, mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, file_format)
    return file.getvalue()


def test_returns_the_bytes_of_a_data_url():
    assert read(data_url(PNG)) == data_url(PNG)
    assert read("DATA:image/png;name=a;base64,\n" + data_url(PNG).partition(",")[2] + "\n") == data_url(PNG)
    for file_format in ("JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encoded(file_format)
        assert read(data_url(data, f"image/{file_format.lower()}")).startswith(
            f"data:image/{file_format.lower()};base64,"
        )


@pytest.mark.parametrize(
    "address",
    [
        *("", "a.png", "/etc/passwd", "../a.png", "file:///etc/passwd", "ftp://a/b.png", "iVBORw0KGgo="),
        *("https://example.com/a.png", "http://127.0.0.1/a.png", "HTTP://127.0.0.1/a.png", "zip://a::http://b/c"),
        *("data:,", "data:image/png,AAAA", "data:text/plain;base64,AAAA", "data:image/png;base64,A", "data:"),
        *(
            "data:image/png;base64,\u00e9",
            "data:image/png;base64,",
            data_url(PNG[:150]),
            data_url(b"%!PS-Adobe-3.0 EPSF-3.0"),
        ),
        *("\0", "s3://bucket/a.png", "javascript:1", " /etc/passwd", "file://host/etc/passwd"),
    ],
)
def test_rejects_every_other_address_by_default(address):
    with pytest.raises(RequestError):
        read(address)


def png_of_size(width, height):
    """Returns a PNG that declares a size, without the pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (200_000_000, 1), (50_000, 50_000)])
def test_rejects_large_images_before_they_are_decoded(width, height):
    with pytest.raises(RequestError, match="at most 89478485 pixels|cannot be decoded"):
        read(data_url(png_of_size(width, height)))


def test_rejects_files_over_the_size_limit():
    with pytest.raises(RequestError, match="at most 100 bytes") as error:
        read(data_url(PNG), max_bytes=100)
    assert error.value.status == 413


def test_reads_files_of_the_allowed_folder_only(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a b.png").write_bytes(PNG)
    (tmp_path / "outside.png").write_bytes(PNG)
    (tmp_path / "images-too").mkdir()
    (tmp_path / "images-too" / "a.png").write_bytes(PNG)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "text.txt").write_text("secret")
    os.mkfifo(folder / "fifo.png")
    for address in ("a b.png", f"{folder}/a b.png", f"file://{folder}/a%20b.png", "text/../a b.png"):
        assert read(address, local_folder=folder) == data_url(PNG)
    for address in (
        *("../outside.png", f"{tmp_path}/outside.png", f"file://{tmp_path}/outside.png", "link.png", "fifo.png"),
        *("../images-too/a.png", ".", "", "missing.png", "/dev/zero", "/etc/passwd", "a\0.png", "file://host/a.png"),
        f"file://{folder}/%2e%2e/outside.png",
    ):
        with pytest.raises(RequestError, match="not a file in the folder"):
            read(address, local_folder=folder)
    with pytest.raises(RequestError, match="cannot be decoded"):
        read("text.txt", local_folder=folder)
    with pytest.raises(RequestError, match="not a file in the folder"):
        read("a b.png", local_folder=folder, max_bytes=100)


def test_reads_images_of_allowed_hosts():
    with media_server({"/a.png": answer(PNG), "/text": answer(b"text")}) as (base, asked):
        sources = {"domains": ["127.0.0.1"], "is_accepted_address": lambda address: True}
        assert read(f"{base}/a.png", **sources) == data_url(PNG)
        with pytest.raises(RequestError, match="cannot be decoded"):
            read(f"{base}/text", **sources)
        del asked[:]
        with pytest.raises(RequestError, match="not public"):
            read(f"{base}/a.png", domains=["127.0.0.1"])
        assert not asked


@pytest.mark.parametrize("domain", ["", "https://a.com", "a.com/b", "*.a.com", "a.com:80", "user@a.com", "a b"])
def test_rejects_domains_that_are_no_host_names(domain):
    with pytest.raises(ValueError, match="`domains` must be names of hosts"):
        MediaSources(domains=[domain])


def test_rejects_other_mistakes_in_the_sources(tmp_path):
    with pytest.raises(ValueError, match="collection of names"):
        MediaSources(domains="a.com")
    with pytest.raises(ValueError, match="`local_folder` must be a folder"):
        MediaSources(local_folder=tmp_path / "missing")
    for name in ("timeout", "max_bytes", "max_pixels"):
        for value in (0, -1, float("inf"), float("nan")):
            with pytest.raises(ValueError, match=f"`{name}` must be positive"):
                MediaSources(**{name: value})
