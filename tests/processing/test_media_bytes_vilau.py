"""Bytes of media in memory and in URLs."""

import base64
import copy
import io
import pickle

import pytest

from vilau_hf.processing.media_bytes_vilau import MediaBytes, bytes_of_data_url, to_media_bytes


def test_bytes_are_described_and_survive_copies():
    for source in (b"abc", bytearray(b"abc"), io.BytesIO(b"abc")):
        media = to_media_bytes(source)
        assert media == "<3 bytes>" and media.data == b"abc"
    for other in (copy.deepcopy(media), pickle.loads(pickle.dumps(media))):
        assert isinstance(other, MediaBytes) and other.data == b"abc"
    assert to_media_bytes("a.mp4") == "a.mp4" and not isinstance(to_media_bytes("a.mp4"), MediaBytes)


def test_decodes_data_urls_and_base64():
    text = base64.b64encode(b"some bytes").decode()
    for source in (text, text[:4] + "\n" + text[4:], f"data:video/mp4;base64,{text}"):
        assert bytes_of_data_url(source) == b"some bytes"


@pytest.mark.parametrize(
    ("source", "message"), [("data:video/mp4,abc", "must have the form"), ("missing.png", "No such file is found")]
)
def test_rejects_text_that_is_no_base64(source, message):
    with pytest.raises(ValueError, match=message):
        bytes_of_data_url(source)
