"""Records of emoji: one for each still image and each animated clip, with its source and its licence."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets import Features, List, Value
from huggingface_hub.constants import HF_HOME
from PIL import Image

from ..data.records import media_content_part, record_features, text_content_part
from .concepts import Concept, concept_key, read_concepts
from .images import read_images
from .packages import CLIPS, KEYWORDS, NAMES, STYLES, Package, PackageFiles, find_packages


# style of the records of clips
ANIMATED = "animated"


def emoji_features() -> Features:
    """
    Returns the schema of the records: that of [`record_features`] with columns that describe the emoji.

    - `concept`, `name`, `group`, `keywords`: see [`Concept`].
    - `style` (`str`): a key of `STYLES`, or "animated".
    - `source`, `version`, `licence`, `author`, `url`: the npm package, see [`Package`].
    """
    texts = ("concept", "name", "group", "style", "source", "version", "licence", "author", "url")
    columns = {name: Value("string") for name in texts}
    return Features({**record_features(), **columns, "keywords": List(Value("string"))})


def emoji_records(
    sources: Sequence[str | Path] = (), size: int = 128, with_clips: bool = True, cache: str | Path | None = None
) -> Iterator[dict]:
    """
    Returns the records of all emoji that have a name and no skin tone, one after another.

    Args:
        sources (`Sequence[str | Path]`, *optional*, defaults to `()`): tarballs or folders of the packages. If empty,
            npm fetches them.
        size (`int`, *optional*, defaults to 128): side of the still images in pixels. Clips keep their files.
        with_clips (`bool`, *optional*, defaults to `True`): whether to read the four packages of clips, 730 MB.
        cache (`str` or `Path`, *optional*): folder for tarballs that npm fetches (default: [`default_cache`]).

    Raises:
        ValueError: for packages that are missing or have another version, see [`find_packages`].
        ImportError: if resvg-py is not installed. It is raised at the first record.
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"`size` must be a positive integer, got {size!r}.")
    if not isinstance(with_clips, bool):
        raise ValueError(f"`with_clips` must be true or false, got {with_clips!r}.")
    clips = CLIPS if with_clips else ()
    folder = default_cache() if cache is None else Path(cache)
    needed = [NAMES, KEYWORDS, *STYLES.values(), *clips]
    # Found before the first record, so that a package that is missing leaves no file behind.
    packages = find_packages(needed, [Path(source) for source in sources], folder)
    return _read_records(packages, size, clips)


def default_cache() -> Path:
    """Returns the folder for tarballs that npm fetches, next to what the Hub library downloads."""
    return Path(HF_HOME) / "vilau_hf" / "emoji"


def _read_records(packages: dict[str, PackageFiles], size: int, clips: Sequence[Package]) -> Iterator[dict]:
    """Yields the records of the still images, style by style, and then those of the clips."""
    concepts = read_concepts(packages)
    for style, package in STYLES.items():
        seen: set[str] = set()
        for key, image in read_images(style, packages[package.name], size):
            # Some packages hold a file twice, with FE0F and without.
            if key in concepts and key not in seen:
                seen.add(key)
                buffer = io.BytesIO()
                image.save(buffer, "PNG")
                yield _record(concepts[key], style, package, "image", buffer.getvalue())
    for package in clips:
        for key, content in _read_clips(packages[package.name]):
            if key in concepts:
                yield _record(concepts[key], ANIMATED, package, "video", content)


def _read_clips(files: PackageFiles) -> Iterator[tuple[str, bytes]]:
    """Yields key and file of the images that move. The packages hold a still image where there is no clip."""
    for path, content in files.read(".webp"):
        with Image.open(io.BytesIO(content)) as image:
            if getattr(image, "n_frames", 1) > 1:
                yield concept_key(path.rpartition("/")[2].removesuffix(".webp")), content


def _record(concept: Concept, style: str, package: Package, kind: str, content: bytes) -> dict:
    """Returns the record of a file, with the columns of [`emoji_features`]."""
    caption = f"{concept.name}, {style}"
    media = {"path": None, "bytes": content}
    return {
        "id": f"{style}/{concept.key}",
        "messages": [
            {"role": "user", "content": [text_content_part(caption)]},
            {"role": "assistant", "content": [media_content_part(kind)]},
        ],
        "images": [media] if kind == "image" else [],
        "videos": [media] if kind == "video" else [],
        "concept": concept.key,
        "name": concept.name,
        "group": concept.group,
        "keywords": list(concept.keywords),
        "style": style,
        "source": package.name,
        "version": package.version,
        "licence": package.licence,
        "author": package.author,
        "url": package.url,
    }


__all__ = ["ANIMATED", "default_cache", "emoji_features", "emoji_records"]
