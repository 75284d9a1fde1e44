"""Rules of the layout: islands can be loaded as custom code from the Hub, and few files import library internals."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

from .source_map import TESTED_IN


PACKAGE = Path(__file__).parents[1] / "src" / "vilau_hf"
ISLANDS = [PACKAGE / name for name in ("modeling", "processing", "pipelines") if (PACKAGE / name).is_dir()]
ISLAND_FILES = [path for island in ISLANDS for path in sorted(island.glob("*.py")) if path.name != "__init__.py"]
ALLOWED = {"torch", "torchvision", "numpy", "PIL", "transformers", "diffusers", "huggingface_hub"}
# Allowed in `try` blocks of functions: transformers requires all other imports of uploaded code.
OPTIONAL = {"peft", "safetensors"}


@pytest.mark.parametrize("path", ISLAND_FILES, ids=lambda path: path.stem)
def test_islands_import_only_siblings_and_allowed_libraries(path):
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    tries = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.Try)]
    in_tries = {id(node) for each in tries for node in ast.walk(each)}
    for node in ast.walk(tree):
        allowed = ALLOWED | sys.stdlib_module_names | (OPTIONAL if id(node) in in_tries else set())
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module and "." not in node.module, ast.unparse(node)
            assert (path.parent / f"{node.module}.py").is_file(), ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] in allowed, ast.unparse(node)
            assert node.module != "__future__", ast.unparse(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.split(".")[0] in allowed, ast.unparse(node)


def test_islands_are_flat_and_file_names_are_unique():
    for island in ISLANDS:
        assert not [path for path in island.iterdir() if path.is_dir() and path.name != "__pycache__"]
    names = [path.name for path in ISLAND_FILES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_only_commands_print_and_no_file_asserts(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert path.parent == PACKAGE / "commands", f"line {node.lineno}"


# Packages and root modules, lowest first. A file imports only from its level and from the levels before it.
FLOORS = (
    ("version", "choices"),
    ("compat", "files", "tested_versions", *(island.name for island in ISLANDS)),
    ("environment", "loading", "memory", "notebook", "registration", "data"),
    ("evaluation", "original", "hub", "serving"),
    ("terminal",),
    ("training",),
    ("drawn", "emoji"),
    ("evaluation_tasks",),
    ("integrations",),
    ("commands",),
    ("cli",),
)
# The exceptions: `vilau train` accepts `drawn_shapes` as a dataset, so that an example needs no download.
TAKES_DRAWN_SHAPES = ("data/build.py", "training/build_vision_tower.py")


def packages_imported(path: Path):
    """Yields the line and the package or root module of each relative import of a file."""
    folder = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*folder[: len(folder) - node.level + 1], *(node.module.split(".") if node.module else [])]
            yield from ((node.lineno, name) for name in base[:1] or [alias.name for alias in node.names])


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_to_lower_levels(path):
    floors = {room: floor for floor, names in enumerate(FLOORS) for room in names}
    name = str(path.relative_to(PACKAGE))
    package = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if package in ("__init__", "evaluate_metrics"):
        return  # the public names of the package, and scripts that `evaluate` loads
    assert package in floors, f"{name}: add `{package}` to `FLOORS`"
    for line, other in packages_imported(path):
        if other in floors and other != package and not (other == "drawn" and name in TAKES_DRAWN_SHAPES):
            assert floors[other] <= floors[package], (
                f"{name}, line {line}: `{package}` may not import `{other}`, which has a higher level"
            )


LIBRARIES = ("transformers", "diffusers", "accelerate")
# documented names outside of the top-level namespace; `None` allows all names of a module
PUBLIC = {
    "transformers.utils": {"logging", "ModelOutput"},
    "transformers.modeling_outputs": None,
    "diffusers.utils": {"BaseOutput"},
}
# the one file of each island, and of the rest of the package, that may import other names
COMPAT_FILES = {
    "modeling": "modeling/compat_modeling_vilau.py",
    "processing": "processing/compat_processing_vilau.py",
    "pipelines": None,
    "": "compat.py",
}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if str(path.relative_to(PACKAGE)) not in COMPAT_FILES.values()]


def is_public(module: str, name: str) -> bool:
    """Returns whether `name` of `module` is documented as public by its library."""
    if name.startswith("_"):
        return False
    if module in PUBLIC:
        return PUBLIC[module] is None or name in PUBLIC[module]
    return module in LIBRARIES and importlib.util.find_spec(f"{module}.{name}") is None  # a module is not public


def library_names(tree: ast.Module):
    """Yields line, module and name of each use of a library, also in the form `transformers.trainer.Name`."""
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
def test_library_internals_are_imported_in_one_file(path):
    island = path.relative_to(PACKAGE).parts[0]
    allowed = (
        COMPAT_FILES.get(island, COMPAT_FILES[""])
        or "a file `compat_*_vilau.py` of this island, added to `COMPAT_FILES`"
    )
    for line, module, name in library_names(ast.parse(path.read_text())):
        assert is_public(module, name), (
            f"{path.relative_to(PACKAGE)}, line {line}: `{module}.{name}` is not documented as public. Take it from "
            f"the top-level namespace if it is there (`from {module.split('.')[0]} import Name`), or find a public "
            f"way. Otherwise import it in {allowed}, with the reason, the versions it was read in, and when it can go."
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
def test_is_public_knows_the_documented_names(line, expected):
    assert all(is_public(module, name) for _, module, name in library_names(ast.parse(line))) == expected


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_source_file_has_a_test_file(path):
    name = path.relative_to(PACKAGE)
    if name.name == "__init__.py" or name.parts[0] == "evaluate_metrics":
        return  # public names, and scripts that `evaluate` loads, see test_evaluate_metrics.py
    tests = Path(__file__).parent
    mapped = TESTED_IN.get(str(name), ())
    assert all((tests / file).is_file() for file in mapped), f"tests/source_map.py: {mapped}"
    has_test_file = (tests / name.parent / f"test_{name.name}").is_file()
    assert has_test_file != bool(mapped), f"{name} needs a test file of its name or a line in tests/source_map.py"


def test_source_map_names_files_that_exist():
    assert not [name for name in TESTED_IN if not (PACKAGE / name).is_file()]
