"""The reference lists every public name, and examples, README and docs import no other name of the package."""

import ast
import re
from pathlib import Path

import pytest

from .run_pages import python_blocks


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "vilau_hf"
DOCS = ROOT / "docs"
# Their `__all__` lists names of libraries, which the libraries document.
NAMES_OF_LIBRARIES = {"vilau_hf.modeling.compat_modeling_vilau", "vilau_hf.processing.compat_processing_vilau"}
ISLANDS = ("modeling", "processing", "pipelines")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if "evaluate_metrics" not in path.parts}
TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}


def read_exports(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


EXPORTS = {module: read_exports(tree) for module, tree in TREES.items()}


def read_imports(module: str) -> dict[str, tuple[str, str]]:
    """Names that a module imports from the package, also those for type checkers alone, with module and name there."""
    imports = {}
    package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            source = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                imports[alias.asname or alias.name] = (source, alias.name)
    return imports


IMPORTS = {module: read_imports(module) for module in MODULES}


def find_definition(module: str, name: str) -> str | None:
    """Full name of where `name` of `module` is defined, or `None` if it is not."""
    defined = {child.id for node in TREES[module].body for child in targets_of(node)}
    defined |= {
        node.name
        for node in TREES[module].body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    }
    if name in defined:
        return f"{module}.{name}"
    if name in IMPORTS[module]:
        source, name = IMPORTS[module][name]
        return find_definition(source, name) if source in MODULES else None
    return None


def targets_of(node: ast.stmt) -> list[ast.Name]:
    targets = (
        node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    )
    return [child for target in targets for child in ast.walk(target) if isinstance(child, ast.Name)]


def public_names() -> dict[str, str]:
    """The names of every `__all__` by where they are defined."""
    names = {}
    for module, exports in EXPORTS.items():
        if module not in NAMES_OF_LIBRARIES:
            names.update({find_definition(module, name): f"{module}.{name}" for name in exports})
    return names


def reference_entries() -> list[str]:
    pages = sorted((DOCS / "reference").glob("*.md"))
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)]


def names_of_entry(entry: str) -> list[str]:
    """Where the names of an entry are defined: all public names of a module, or one name."""
    if entry in MODULES:
        return [find_definition(entry, name) for name in EXPORTS[entry]]
    module, _, name = entry.rpartition(".")
    return [find_definition(module, name)] if module in MODULES else [None]


@pytest.mark.parametrize("module", [name for name in MODULES if EXPORTS[name] and name not in NAMES_OF_LIBRARIES])
def test_names_of_all_are_defined(module):
    missing = [name for name in EXPORTS[module] if find_definition(module, name) is None]
    assert not missing, f"`__all__` of {module} lists names that are not there"


def test_reference_lists_every_public_name():
    listed = {name for entry in reference_entries() for name in names_of_entry(entry)}
    missing = sorted(name for definition, name in public_names().items() if definition not in listed)
    assert not missing, f"add to a page of docs/reference: {missing}"


def test_reference_lists_public_names_only():
    public = public_names()
    wrong = [entry for entry in reference_entries() if not set(names_of_entry(entry)) <= set(public)]
    assert not wrong, f"no `__all__` has these names of docs/reference: {wrong}"


def test_reference_lists_no_name_twice():
    listed = [name for entry in reference_entries() for name in names_of_entry(entry)]
    assert not sorted(name for name in set(listed) if listed.count(name) > 1)


def test_pages_of_the_reference_are_linked_and_in_the_navigation():
    navigation, index = (ROOT / "mkdocs.yml").read_text(), (DOCS / "reference" / "index.md").read_text()
    for page in (DOCS / "reference").glob("*.md"):
        assert f"reference/{page.name}" in navigation, page.name
        assert page.name == "index.md" or f"({page.name})" in index, page.name


def is_public_module(module: str) -> bool:
    """Whether readers may import from a module. Files of the islands are helpers: their packages export the names."""
    path = module.split(".")
    return bool(EXPORTS.get(module)) and not (len(path) > 2 and path[1] in ISLANDS)


def private_imports(code: str) -> list[str]:
    """Names of the package that `code` imports or reaches and that are not public."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vilau_hf":
            for alias in node.names:
                is_package = f"{node.module}.{alias.name}" in MODULES
                is_name = is_public_module(node.module) and alias.name in EXPORTS[node.module]
                if not is_name and not (is_package and is_public_module(f"{node.module}.{alias.name}")):
                    found.append(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names if alias.name.split(".")[0] == "vilau_hf"]
            found += [module for module in modules if not is_public_module(module)]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "vilau_hf":
            if node.attr not in EXPORTS["vilau_hf"] and not is_public_module(f"vilau_hf.{node.attr}"):
                found.append(f"vilau_hf.{node.attr}")
    return found


SCRIPTS = [*(ROOT / "examples").rglob("*.py"), *(DOCS / "notebooks").glob("*.py")]
PAGES = [ROOT / "README.md", ROOT / "model_card.md", *DOCS.rglob("*.md")]


@pytest.mark.parametrize("path", sorted([*SCRIPTS, *PAGES]), ids=lambda path: str(path.relative_to(ROOT)))
def test_readers_are_shown_public_names_only(path):
    text = path.read_text()
    for code in [text] if path.suffix == ".py" else python_blocks(text):
        assert not private_imports(code)


def test_private_names_are_found():
    code = "from vilau_hf.modeling.losses_vilau import code_loss\nimport vilau_hf\nvilau_hf.registration\n"
    assert private_imports(code) == ["vilau_hf.modeling.losses_vilau.code_loss", "vilau_hf.registration"]
    assert not private_imports("import vilau_hf.loading\nfrom vilau_hf import VilaUModel, training\n")
