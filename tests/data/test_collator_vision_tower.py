import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.data.collator_vision_tower import VisionTowerDataCollator, tokenize_captions

from ..processing.conftest import build_processor


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def records(*captions):
    images = [Image.fromarray(np.full((8, 8, 3), 40 * index, np.uint8)) for index in range(len(captions))]
    return [{"images": [image], "caption": caption} for image, caption in zip(images, captions, strict=True)]


def test_batch_has_pixels_and_padded_captions(processor):
    samples = records("a red circle", "a green square what is this")
    batch = VisionTowerDataCollator(processor.image_processor, processor.tokenizer, max_length=5)(samples)
    expected = processor.image_processor([sample["images"][0] for sample in samples], return_tensors="pt")
    torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"])
    assert batch["return_loss"] is True
    assert torch.equal(batch["input_ids"], tokenize_captions(processor.tokenizer, [s["caption"] for s in samples], 5))


def test_captions_are_cut_and_padded_on_the_right(processor):
    tokenizer = processor.tokenizer
    ids = tokenize_captions(tokenizer, ["a red", "a red circle what is"], 4)
    words = {word: tokenizer.convert_tokens_to_ids(word) for word in ("a", "red", "circle", "what")}
    assert ids.tolist() == [[words["a"], words["red"], *[tokenizer.pad_token_id] * 2], list(words.values())]


def test_captions_are_left_out_without_a_tokenizer(processor):
    assert set(VisionTowerDataCollator(processor.image_processor)(records("a"))) == {"pixel_values", "return_loss"}


def test_rejects_wrong_arguments_and_records(processor):
    with pytest.raises(ValueError, match="`max_length` must be given with a `tokenizer`, got None"):
        VisionTowerDataCollator(processor.image_processor, processor.tokenizer)
    two = [{"images": records("a", "b")[0]["images"] * 2}]
    with pytest.raises(ValueError, match="a record needs exactly one image in `images`, a list, got 2"):
        VisionTowerDataCollator(processor.image_processor)(two)


def test_settings_of_the_image_processor_apply_to_images_that_are_not_open_yet():
    image_processor = build_processor().image_processor
    data = io.BytesIO()
    exif = Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = 6
    image = Image.new("RGB", (8, 8))
    image.paste((255, 255, 255), (0, 0, 4, 4))
    image.save(data, "PNG", exif=exif)
    upright = VisionTowerDataCollator(image_processor)([{"images": [data.getvalue()]}])["pixel_values"]
    image_processor.do_exif_transpose = False
    stored = VisionTowerDataCollator(image_processor)([{"images": [data.getvalue()]}])["pixel_values"]
    torch.testing.assert_close(stored, image_processor(image, return_tensors="pt")["pixel_values"])
    torch.testing.assert_close(upright, stored.rot90(-1, (2, 3)))
    image_processor.max_image_pixels = 20
    with pytest.raises(ValueError, match=r"at most `max_image_pixels` \(20\) pixels, got 8 x 8"):
        VisionTowerDataCollator(image_processor)([{"images": [data.getvalue()]}])


def test_downloads_nothing(processor):
    sample = {"images": ["http://127.0.0.1:9/a.png"], "caption": "a"}
    with pytest.raises(ValueError, match="it is a URL, download it first"):
        VisionTowerDataCollator(processor.image_processor)([sample])


def test_special_tokens_in_captions_are_text():
    tokenizer = AutoTokenizer.from_pretrained(f"{TINY_CHECKPOINT}/tower")
    for token in tokenizer.all_special_tokens:
        (ids,) = tokenize_captions(tokenizer, [f"a{token}b"], 64).tolist()
        plain = tokenizer(f"a{token}b", split_special_tokens=True)["input_ids"]
        assert ids[: len(plain)] == plain and plain.count(tokenizer.convert_tokens_to_ids(token)) <= 1
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == f"a{token}b"
