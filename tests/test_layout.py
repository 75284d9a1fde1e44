"""Rules that keep each island loadable as custom code from a Hub repository."""

import ast
import sys
from pathlib import Path

import pytest


PACKAGE = Path(__file__).parents[1] / "src" / "vilau_hf"
ISLANDS = [PACKAGE / name for name in ("modeling", "processing", "pipelines") if (PACKAGE / name).is_dir()]
ISLAND_FILES = [path for island in ISLANDS for path in sorted(island.glob("*.py")) if path.name != "__init__.py"]
ALLOWED = {"torch", "torchvision", "numpy", "PIL", "transformers", "diffusers", "huggingface_hub"}


@pytest.mark.parametrize("path", ISLAND_FILES, ids=lambda path: path.stem)
def test_islands_import_siblings_by_name_and_nothing_else_of_ours(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module and "." not in node.module, ast.unparse(node)
            assert (path.parent / f"{node.module}.py").is_file(), ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] in ALLOWED | sys.stdlib_module_names, ast.unparse(node)
            assert node.module != "__future__", ast.unparse(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.split(".")[0] in ALLOWED | sys.stdlib_module_names, ast.unparse(node)


def test_islands_are_flat_and_file_names_are_unique():
    for island in ISLANDS:
        assert not [path for path in island.iterdir() if path.is_dir() and path.name != "__pycache__"]
    names = [path.name for path in ISLAND_FILES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_only_the_command_prints_and_nothing_asserts(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert path.parent == PACKAGE / "commands", f"line {node.lineno}"
