"""Finds names that the compat files import and the installed libraries lack, without importing this package."""

import ast
import importlib
import importlib.util
from pathlib import Path


PACKAGE = Path(__file__).parents[1] / "src" / "vilau_hf"
COMPAT_FILES = ("modeling/compat_modeling_vilau.py", "processing/compat_processing_vilau.py")


def missing_names(folder: Path = PACKAGE) -> list[str]:
    """Returns file and name of each import that fails in the compat files of `folder`."""
    missing = []
    for file in COMPAT_FILES:
        # top level only: within `try` a name may be missing
        for node in ast.parse((folder / file).read_text()).body:
            if isinstance(node, ast.ImportFrom) and not node.level:
                module = importlib.import_module(node.module)
                names = (alias.name for alias in node.names)
                gone = (name for name in names if not hasattr(module, name) and not _is_module(node.module, name))
                missing += [f"{file}: `{node.module}.{name}`" for name in gone]
    return missing


def _is_module(package: str, name: str) -> bool:
    return hasattr(importlib.import_module(package), "__path__") and (
        importlib.util.find_spec(f"{package}.{name}") is not None
    )


def check_compat_files() -> None:
    """
    Raises an `ImportError` that says what to do if a library has moved a name.

    It runs before this package is imported. Otherwise every test would fail with a different error.
    """
    missing = missing_names()
    if missing:
        raise ImportError(
            f"the installed libraries lack names that these files import: {'; '.join(missing)}. Find the new module "
            "in the library's source, adapt the file, and add the version to the comment there. Only then widen the "
            "range of tested versions (tested_versions.py)."
        )
