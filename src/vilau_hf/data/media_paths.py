"""The rule for names of media: a medium is a regular local file below the declared roots, and never a URL."""

import functools
import os
import stat
from collections.abc import Sequence
from pathlib import Path


# Schemes of `data:` URLs have no slashes. fsspec writes `a://x` and chains of file systems as `a::b://x`.
_SIGNS_OF_URLS = ("://", "::")


class MediaPathError(ValueError):
    """The name of an image or a video is not that of a regular local file below the declared roots."""


def is_url(name: str) -> bool:
    """Returns whether a name is a URL of any scheme, also a chain of them such as `"zip://a.png::http://b"`."""
    return any(sign in name for sign in _SIGNS_OF_URLS) or name.lstrip().lower().startswith("data:")


def find_local_file(path: str | os.PathLike, roots: Sequence[str | os.PathLike] | None = None) -> str:
    """
    Returns the absolute path of a medium, after checks that open nothing.

    Links are followed, so a link cannot lead out of the roots.

    Args:
        path (`str` or `PathLike`): name of the file.
        roots (`Sequence`, *optional*): folders that may hold the file. Without it, any folder.

    Raises:
        MediaPathError: if the name is a URL, or the file is outside of `roots`. Also if it is no regular file, such as
            a folder, a FIFO or a device.
        OSError: if the file is missing, or its name is too long.
    """
    name = os.fspath(path)
    if not isinstance(name, str):
        raise MediaPathError(f"a file name must be a string, got {type(name).__name__}.")
    if is_url(name):
        raise MediaPathError("it is a URL, download it first (for lists of URLs there is img2dataset).")
    if "\0" in name:
        raise MediaPathError("a file name must not contain a null character.")
    resolved = os.path.realpath(name, strict=True)
    if roots is not None and not _is_below(resolved, roots):
        listed = ", ".join(repr(os.fspath(root)) for root in roots)
        raise MediaPathError(f"it is outside of the folders of media ({listed}).")
    # Opening a FIFO waits for a writer, and a device such as /dev/zero never ends.
    if not stat.S_ISREG(os.stat(resolved).st_mode):
        raise MediaPathError("it is not a regular file.")
    # The name itself and not `resolved`: its suffix tells decoders the format.
    return os.path.abspath(name)


def _is_below(resolved: str, roots: Sequence[str | os.PathLike]) -> bool:
    folders = [folder for root in roots for folder in _resolve_root(os.fspath(root))]
    return any(resolved.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


@functools.lru_cache(maxsize=1024)
def _resolve_root(root: str) -> tuple[str, ...]:
    """Returns the folders that a root stands for, with links resolved."""
    path = Path(root).absolute()
    folders = [os.path.realpath(root)]
    # `snapshot_download` makes links: snapshots/<revision>/... to files in blobs/ of the same repository.
    for folder in (path, *path.parents):
        blobs = folder.parent.parent / "blobs"
        if folder.parent.name == "snapshots" and blobs.is_dir():
            folders.append(os.path.realpath(blobs))
    return tuple(folders)


__all__ = ["MediaPathError", "find_local_file", "is_url"]
