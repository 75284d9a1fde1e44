import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from vilau_hf.evaluation import image_data
from vilau_hf.evaluation.image_data import LabelledImages, choose_evenly, read_lines, square


def save(path, color="red", size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def test_labels_are_the_positions_of_the_sorted_class_folders(tmp_path):
    for name in ("n02/b.png", "n02/a.JPEG", "n01/c.png"):
        save(tmp_path / "val" / name)
    (tmp_path / "val" / "n01" / "notes.txt").write_text("no image")
    images = LabelledImages(str(tmp_path), "val")
    assert images.classes == ["n01", "n02"] and images.labels == [0, 1, 1]
    assert [path.name for path in images.files] == ["c.png", "a.JPEG", "b.png"]
    assert images[0].mode == "RGB" and len(images) == 3


def test_images_beside_each_other_have_no_labels(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "more" / "b.png")
    images = LabelledImages(str(tmp_path))
    assert images.labels is None and len(images) == 2


def test_reads_a_dataset_with_its_class_names(monkeypatch):
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["cat", "dog"])})
    rows = {"image": [Image.new("RGB", (4, 4))] * 2, "label": [1, 0]}
    given = []

    def load(source, split):
        given.append((source, split))
        return Dataset.from_dict(rows, features=features)

    monkeypatch.setattr(image_data, "load_dataset", load)
    images = LabelledImages("someone/images")
    assert images.classes == ["cat", "dog"] and images.labels == [1, 0] and images[1].size == (4, 4)
    LabelledImages("someone/images", "test")
    assert given == [("someone/images", "validation"), ("someone/images", "test")]
    monkeypatch.setattr(image_data, "load_dataset", lambda source, split: Dataset.from_dict({"text": ["a"]}))
    with pytest.raises(ValueError, match="must have the column `image`, got text"):
        LabelledImages("someone/texts")


def test_rejects_hidden_labels_and_damaged_files(tmp_path, monkeypatch):
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["cat", "dog"])})
    rows = {"image": [Image.new("RGB", (4, 4))] * 2, "label": [1, -1]}
    monkeypatch.setattr(image_data, "load_dataset", lambda source, split: Dataset.from_dict(rows, features=features))
    with pytest.raises(ValueError, match="the split 'test' of 'someone/images' has images without a label"):
        LabelledImages("someone/images", "test")
    save(tmp_path / "a.png", size=(64, 64))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"Cannot read the image .*a\.png"):
        LabelledImages(str(tmp_path))[0]


def test_rejects_a_folder_without_images_and_an_unknown_split(tmp_path):
    with pytest.raises(ValueError, match=r"has no images\. The known suffixes are \.bmp"):
        LabelledImages(str(tmp_path))
    with pytest.raises(ValueError, match="`split` must be a subfolder of .*, got 'val'"):
        LabelledImages(str(tmp_path), "val")


def test_square_is_the_middle_of_an_image():
    image = Image.new("RGB", (30, 10), "white")
    image.paste((255, 0, 0), (10, 0, 20, 10))
    assert square(image, 5).getcolors() == [(25, (255, 0, 0))]


def test_choices_are_spread_and_more_than_there_are_is_an_error_with_both_counts():
    assert choose_evenly(10, 4, "folder") == [0, 2, 5, 7]
    assert choose_evenly(3, None, "folder") == [0, 1, 2]
    with pytest.raises(ValueError, match="5 samples are needed, but folder has 3"):
        choose_evenly(3, 5, "folder")


def test_rejects_empty_lines_with_their_number(tmp_path):
    (tmp_path / "names.txt").write_text("cat\n \ndog\n")
    with pytest.raises(ValueError, match=r"names\.txt, line 2 is empty"):
        read_lines(tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("cat \ndog\n")
    assert read_lines(tmp_path / "names.txt") == ["cat", "dog"]
    (tmp_path / "names.txt").write_text("")
    with pytest.raises(ValueError, match="has no lines"):
        read_lines(tmp_path / "names.txt")
    with pytest.raises(ValueError, match=r"cannot read .*missing\.txt"):
        read_lines(tmp_path / "missing.txt")


def test_images_of_a_dataset_have_the_levels_of_their_files(tmp_path, monkeypatch):
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "a.png")
    rows = Dataset.from_dict({"image": [str(tmp_path / "a.png")]}, features=Features({"image": ImageFeature()}))
    monkeypatch.setattr(image_data, "load_dataset", lambda source, split: rows)
    expected = np.repeat(levels[..., None], 3, -1)
    for source in ("someone/images", str(tmp_path)):
        assert np.array_equal(np.asarray(LabelledImages(source)[0]), expected)
    assert np.array_equal(np.asarray(square(Image.open(tmp_path / "a.png"), 8)), expected)
