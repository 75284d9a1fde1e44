"""Records of emoji: one for each still image and each animated clip, with its source and its licence."""

import io
from collections.abc import Iterator
from pathlib import Path

from datasets import Features, List, Value
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


def emoji_records(sources: list[Path], cache: Path, size: int = 128, with_clips: bool = True) -> Iterator[dict]:
    """
    Yields the records of all emoji that have a name and no skin tone.

    Args:
        sources (`list[Path]`): tarballs or folders of the packages; empty to fetch them with npm.
        cache (`Path`): folder for tarballs that npm fetches.
        size (`int`, *optional*, defaults to 128): side of the still images in pixels. Clips keep their files.
        with_clips (`bool`, *optional*, defaults to `True`): whether the four large packages of clips are read.

    Raises:
        ValueError: for packages that are missing or have another version, see [`find_packages`].
        ImportError: if resvg-py is not installed.
    """
    needed = [NAMES, KEYWORDS, *STYLES.values(), *(CLIPS if with_clips else ())]
    packages = find_packages(needed, sources, cache)
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
    for package in CLIPS if with_clips else ():
        for key, content in _clips(packages[package.name]):
            if key in concepts:
                yield _record(concepts[key], ANIMATED, package, "video", content)


def _clips(files: PackageFiles) -> Iterator[tuple[str, bytes]]:
    """Yields key and file of the images that really move; the packages hold still ones too."""
    for path, content in files.read(".webp"):
        with Image.open(io.BytesIO(content)) as image:
            if getattr(image, "n_frames", 1) > 1:
                yield concept_key(path.rpartition("/")[2].removesuffix(".webp")), content


def _record(concept: Concept, style: str, package: Package, kind: str, content: bytes) -> dict:
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


__all__ = ["ANIMATED", "emoji_features", "emoji_records"]
