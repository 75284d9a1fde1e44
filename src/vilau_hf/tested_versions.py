"""Versions of transformers that this release was tested with."""

import re
import warnings
from importlib import metadata


# The oldest version, which setup.cfg requires, and the newest minor version with all of its patches.
OLDEST_TRANSFORMERS = "5.20.2"
NEWEST_TRANSFORMERS = "5.24"
TRANSFORMERS_WINDOW = f"{OLDEST_TRANSFORMERS} to {NEWEST_TRANSFORMERS}.x"


def is_tested_transformers(version: str) -> bool:
    """
    Returns whether a version of transformers is in the range of tested versions.

    Args:
        version (`str`): `transformers.__version__`, also of a development version such as `"5.24.0.dev0"`.

    Raises:
        ValueError: if `version` does not begin with a number.
    """
    release = _release_numbers(version)
    return _release_numbers(OLDEST_TRANSFORMERS) <= release and release[:2] <= _release_numbers(NEWEST_TRANSFORMERS)


def warn_if_untested() -> None:
    """Warns if transformers is outside the range of tested versions."""
    try:
        version = metadata.version("transformers")
    except metadata.PackageNotFoundError:
        return  # the import of transformers raises the error
    if not is_tested_transformers(version):
        warnings.warn(
            f"vilau_hf was tested with transformers {TRANSFORMERS_WINDOW}, found {version}: "
            f'if something fails, run `pip install "transformers=={NEWEST_TRANSFORMERS}.*"`.',
            UserWarning,
            stacklevel=3,  # the warning names the line that imports this package
        )


def _release_numbers(version: str) -> tuple[int, ...]:
    """Returns the numbers at the beginning of a version, without suffixes such as `.dev0`."""
    match = re.match(r"\d+(\.\d+)*", version)
    if match is None:
        raise ValueError(f"`version` must begin with a number, got {version!r}.")
    return tuple(int(number) for number in match[0].split("."))
