"""Looks for the names that our doors to library internals import, without importing this package."""

import ast
import importlib
import importlib.util
from pathlib import Path


PACKAGE = Path(__file__).parents[1] / "src" / "vilau_hf"
DOORS = ("modeling/compat_modeling_vilau.py", "processing/compat_processing_vilau.py")


def missing_names(folder: Path = PACKAGE) -> list[str]:
    """Returns what the doors in `folder` import and the installed libraries lack, each as file and name."""
    missing = []
    for door in DOORS:
        for node in ast.parse((folder / door).read_text()).body:  # not within `try`, where a name may be missing
            if isinstance(node, ast.ImportFrom) and not node.level:
                module = importlib.import_module(node.module)
                names = (alias.name for alias in node.names)
                gone = (name for name in names if not hasattr(module, name) and not _is_module(node.module, name))
                missing += [f"{door}: `{node.module}.{name}`" for name in gone]
    return missing


def _is_module(package: str, name: str) -> bool:
    return hasattr(importlib.import_module(package), "__path__") and (
        importlib.util.find_spec(f"{package}.{name}") is not None
    )


def check_doors() -> None:
    """
    Raises an `ImportError` that says what to do, where a library has moved a name.

    It runs before anything of this package is imported, or every test would fail with an error of its own.
    """
    missing = missing_names()
    if missing:
        raise ImportError(
            f"a new version of a library has no longer what these files import: {'; '.join(missing)}. Find the new "
            "place in the library's source, adapt the file, add the version to the comment there, and only then widen "
            "the range of tested versions (tested_versions.py)."
        )
