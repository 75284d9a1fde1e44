"""Versions of transformers that this release was tested with."""

import re
import warnings
from importlib import metadata


# The oldest version, which setup.cfg requires, and the newest minor version, in all its patches.
OLDEST_TRANSFORMERS = "5.20.2"
NEWEST_TRANSFORMERS = "5.24"
TRANSFORMERS_WINDOW = f"{OLDEST_TRANSFORMERS} to {NEWEST_TRANSFORMERS}.x"


def is_tested_transformers(version: str) -> bool:
    """
    Tells whether a version of transformers lies in the tested window.

    Args:
        version (`str`): as in `transformers.__version__`, also of a development version such as `"5.24.0.dev0"`.
    """
    release = _release_numbers(version)
    return _release_numbers(OLDEST_TRANSFORMERS) <= release and release[:2] <= _release_numbers(NEWEST_TRANSFORMERS)


def warn_if_untested() -> None:
    """Warns, in the name of the line that imports the package, if transformers is outside the tested window."""
    try:
        version = metadata.version("transformers")
    except metadata.PackageNotFoundError:
        return  # the import of transformers will say so
    if not is_tested_transformers(version):
        warnings.warn(
            f"vilau_hf was tested with transformers {TRANSFORMERS_WINDOW}, found {version}: "
            f'if something fails, run `pip install "transformers=={NEWEST_TRANSFORMERS}.*"`.',
            UserWarning,
            stacklevel=3,
        )


def _release_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.match(r"\d+(\.\d+)*", version)[0].split("."))
