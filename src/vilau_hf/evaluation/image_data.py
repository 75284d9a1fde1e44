"""Images of an evaluation: a folder in ImageNet's layout or any folder of images, or a dataset of the Hub."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from datasets import ClassLabel, load_dataset
from PIL import Image

from ..processing.image_functions_vilau import open_images
from ..processing.pixel_rules_vilau import to_rgb


SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
HUB_SPLIT = "validation"


class LabelledImages:
    """
    Images by index, in a fixed order, with labels if there are classes.

    Args:
        source (`str`): a folder with one subfolder of images for each class, as ImageNet has them, or a folder of
            images. Otherwise the Hub id of a dataset with the column `image`, and `label` for classes.
        split (`str`, *optional*): subfolder of the folder (default: none), or split of the dataset (default:
            `"validation"`).

    Raises:
        ValueError: if there are no images. The message names the folder, or the columns of the dataset.
    """

    def __init__(self, source: str, split: str | None = None) -> None:
        self.source = source
        folder = Path(source) if split is None else Path(source, split)
        self.files: list[Path] = []
        self.labels: list[int] | None = None
        self.classes: list[str] = []
        if Path(source).is_dir():
            self._read_folder(folder)
        else:
            self._read_dataset(source, split or HUB_SPLIT)

    def _read_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"`split` must be a subfolder of {folder.parent}, got {folder.name!r}.")
        self.files = image_files(folder)
        if not self.files:
            raise ValueError(f"{folder} has no images. The known suffixes are {', '.join(SUFFIXES)}.")
        names = [file.relative_to(folder).parts[:-1] for file in self.files]
        if all(len(parts) == 1 for parts in names):
            self.classes = sorted({parts[0] for parts in names})
            position = {name: index for index, name in enumerate(self.classes)}
            self.labels = [position[parts[0]] for parts in names]
        texts = [file.relative_to(folder).as_posix() for file in self.files]
        self.identity = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]

    def _read_dataset(self, source: str, split: str) -> None:
        self.dataset = load_dataset(source, split=split)
        columns = self.dataset.column_names
        if "image" not in columns:
            raise ValueError(f"the dataset {source!r} must have the column `image`, got {', '.join(columns)}.")
        feature = self.dataset.features.get("label")
        if isinstance(feature, ClassLabel):
            self.classes = list(feature.names)
            self.labels = list(self.dataset["label"])
            # Published test splits hide their labels behind -1, which would be the last class.
            if any(label not in range(len(self.classes)) for label in self.labels):
                raise ValueError(
                    f"the split {split!r} of {source!r} has images without a label. Give another `split`."
                )
        self.identity = f"{split} of {len(self.dataset)} rows"

    def __len__(self) -> int:
        return len(self.files) or len(self.dataset)

    def __getitem__(self, index: int) -> Image.Image:
        """Returns an image in RGB. A file that cannot be read is an error with its name."""
        return to_rgb(open_images(self.files[index] if self.files else self.dataset[index]["image"]))


def image_files(folder: Path) -> list[Path]:
    """Returns all image files in a folder and its subfolders, sorted by their path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def square(image: Image.Image, side: int) -> Image.Image:
    """Returns the central square of an image, resized to `side` pixels (bicubic), in RGB."""
    shorter = min(image.size)
    left = (image.width - shorter) // 2
    top = (image.height - shorter) // 2
    middle = to_rgb(image).crop((left, top, left + shorter, top + shorter))
    return middle.resize((side, side), Image.Resampling.BICUBIC)


def read_lines(path: str | Path) -> list[str]:
    """
    Reads the lines of a text file, without spaces at their ends.

    Args:
        path (`str` or `Path`): the file.

    Raises:
        ValueError: if the file has an empty line or no line, or cannot be read. The message names file and line.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if not lines:
        raise ValueError(f"{path} has no lines.")
    for number, line in enumerate(lines, start=1):
        if not line:
            raise ValueError(f"{path}, line {number} is empty.")
    return lines


def choose_evenly(available: int, wanted: int | None, source: str) -> list[int]:
    """
    Chooses indices that are spread evenly.

    Args:
        available (`int`): number of samples that there are.
        wanted (`int`, *optional*): number of indices to choose (default: all).
        source (`str`): where the samples come from, for the error message.

    Raises:
        ValueError: if more are wanted than there are. The message has both counts.
    """
    count = available if wanted is None else wanted
    if count > available:
        raise ValueError(f"{count} samples are needed, but {source} has {available}.")
    return [index * available // count for index in range(count)]


def check_count(files: Sequence[Path], needed: int, folder: Path) -> None:
    """
    Checks that a reference folder has at least as many images as are generated.

    Args:
        files (`Sequence[Path]`): the images of the folder.
        needed (`int`): number of images that are generated.
        folder (`Path`): the folder, for the error message.

    Raises:
        ValueError: if it has fewer. The message has both counts.
    """
    if len(files) < needed:
        raise ValueError(
            f"the reference folder {folder} has {len(files)} images, but {needed} are needed, one for each generated "
            "image. Give a folder with more, or fewer samples by `--samples`."
        )


__all__ = [
    "HUB_SPLIT",
    "SUFFIXES",
    "LabelledImages",
    "check_count",
    "choose_evenly",
    "image_files",
    "read_lines",
    "square",
]
