"""Rules that keep each island loadable as custom code from the Hub, and internals of libraries in one place."""

import ast
import importlib.util
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


# rooms from the ground up; a file imports its own floor and those below
FLOORS = (
    ("version", "choices"),
    ("compat", "files", "tested_versions", *(island.name for island in ISLANDS)),
    ("environment", "loading", "memory", "registration", "data"),
    ("evaluation", "original", "hub", "serving"),
    ("training",),
    ("drawn",),
    ("commands",),
    ("cli",),
)
# `drawn_shapes` is the name of a dataset for `vilau train`, too, and an example needs no download
TAKES_DRAWN_SHAPES = ("data/build.py", "training/build_vision_tower.py")


def rooms_imported(path: Path):
    """Line and room of what a file of the package takes from other rooms."""
    folder = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*folder[: len(folder) - node.level + 1], *(node.module.split(".") if node.module else [])]
            yield from ((node.lineno, name) for name in base[:1] or [alias.name for alias in node.names])


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    floors = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    name = str(path.relative_to(PACKAGE))
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if room in ("__init__", "evaluate_metrics"):
        return  # the public names of the package, and scripts that `evaluate` loads
    assert room in floors, f"{name}: give `{room}` a floor in `FLOORS`"
    for line, other in rooms_imported(path):
        if other in floors and other != room and not (other == "drawn" and name in TAKES_DRAWN_SHAPES):
            assert floors[other] <= floors[room], f"{name}, line {line}: `{room}` stands below `{other}`"


LIBRARIES = ("transformers", "diffusers", "accelerate")
# documented names that are not in the top-level namespace; `None` for all of a module
PUBLIC = {
    "transformers.utils": {"logging", "ModelOutput"},
    "transformers.modeling_outputs": None,
    "diffusers.utils": {"BaseOutput"},
}
# the one file of each island, and of the package around them, that may take other names
DOORS = {
    "modeling": "modeling/compat_modeling_vilau.py",
    "processing": "processing/compat_processing_vilau.py",
    "pipelines": None,
    "": "compat.py",
}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if str(path.relative_to(PACKAGE)) not in DOORS.values()]


def is_public(module: str, name: str) -> bool:
    """Whether `from module import name` is of a library's documented names."""
    if name.startswith("_"):
        return False
    if module in PUBLIC:
        return PUBLIC[module] is None or name in PUBLIC[module]
    return module in LIBRARIES and importlib.util.find_spec(f"{module}.{name}") is None  # which is a module


def library_names(tree: ast.Module):
    """Line, module and name of what is taken from the libraries, also as `transformers.trainer.Name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in LIBRARIES:
            yield from ((node.lineno, node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                module, _, name = alias.name.rpartition(".")
                if module.split(".")[0] in LIBRARIES:
                    yield node.lineno, module, name
        elif isinstance(node, ast.Attribute) and ast.unparse(node).split(".")[0] in LIBRARIES:
            module, _, name = ast.unparse(node).rpartition(".")
            holder, _, holder_name = module.rpartition(".")
            is_of_a_name = "." in module and (module not in PUBLIC and is_public(holder, holder_name))
            if not is_of_a_name and f"{module}.{name}" not in PUBLIC:
                yield node.lineno, module, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_internals_of_libraries_come_through_one_door(path):
    island = path.relative_to(PACKAGE).parts[0]
    door = DOORS.get(island, DOORS[""]) or "a file `compat_*_vilau.py` of this island, to be named in `DOORS`"
    for line, module, name in library_names(ast.parse(path.read_text())):
        assert is_public(module, name), (
            f"{path.relative_to(PACKAGE)}, line {line}: `{module}.{name}` is not documented as public. Take it from "
            f"the top-level namespace if it is there (`from {module.split('.')[0]} import Name`), or find a public "
            f"way; otherwise put it into {door}, with the reason, the versions it was read in, and when it can go."
        )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from transformers import Trainer, set_seed", True),
        ("from transformers.utils import logging", True),
        ("import transformers", True),
        ("transformers.set_seed(0)", True),
        ("transformers.utils.logging.set_verbosity_error()", True),
        ("from diffusers.utils import BaseOutput", True),
        ("from transformers.trainer import Trainer", False),
        ("from transformers import trainer_utils", False),
        ("from transformers import _import_structure", False),
        ("import transformers.trainer", False),
        ("transformers.trainer.Trainer()", False),
        ("from transformers.utils import SAFE_WEIGHTS_NAME", False),
        ("def f():\n    from accelerate.utils import DistributedType", False),
    ],
)
def test_the_rule_of_the_door(line, expected):
    assert all(is_public(module, name) for _, module, name in library_names(ast.parse(line))) == expected
