"""Measures how the source reads. `python -m tests.readability` prints the figures of every room and of the package.

Counts comments, docstrings, annotated arguments and packed assignments, and finds sentences that are too long.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


PACKAGE = Path(__file__).parents[1] / "src" / "vilau_hf"
LONGEST_SENTENCE = 25  # words
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Docstrings begin with a verb in the third person. These first words end in "s" and are not verbs.
NOT_VERBS = {"Whereas", "This", "Its", "Is", "Has", "Was", "Does", "As", "Unless", "Besides", "Always"}


def packed_assignments(tree: ast.Module) -> list[int]:
    """Returns the lines of assignments such as `a, b = 1, 2`, except those that swap names or split one value."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
            continue
        if not any(isinstance(target, ast.Tuple) for target in node.targets):
            continue
        targets = {ast.unparse(element) for element in node.targets[0].elts}
        values = node.value.elts
        swaps = all(ast.unparse(value) in targets for value in values)
        bases = {ast.unparse(value.value) if isinstance(value, ast.Subscript) else None for value in values}
        splits = len(bases) == 1 and None not in bases
        if not swaps and not splits:
            lines.append(node.lineno)
    return lines


def docstrings(tree: ast.Module) -> Iterator[tuple[ast.AST, int, str]]:
    """Yields each node with a docstring, the line of the docstring, and its text."""
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module)) and ast.get_docstring(node):
            yield node, node.body[0].lineno, ast.get_docstring(node)


def docstrings_without_verb(tree: ast.Module) -> list[tuple[int, str]]:
    """Returns line and first word of function docstrings that do not begin like "Returns" or "Encodes"."""
    found = []
    for node, line, text in docstrings(tree):
        first = text.split()[0].strip(".,:;")
        if isinstance(node, FUNCTIONS) and (not re.fullmatch(r"[A-Z][a-z-]*s", first) or first in NOT_VERBS):
            found.append((line, first))
    return found


def comments(source: str) -> list[tuple[int, str]]:
    """Returns line and text of each block of comment lines that follow one another."""
    blocks: list[tuple[int, str]] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        text = token.string.lstrip("#").strip()
        stands_alone = token.line.lstrip().startswith("#")
        if stands_alone and token.start[0] == last + 1 and blocks:
            blocks[-1] = (blocks[-1][0], f"{blocks[-1][1]} {text}")
        else:
            blocks.append((token.start[0], text))
        last = token.start[0] if stands_alone else -1
    return blocks


def error_messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields line and text of each raised message; a formatted value counts as one word."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
            continue
        for argument in node.exc.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield node.lineno, argument.value
            elif isinstance(argument, ast.JoinedStr):
                parts = (value.value if isinstance(value, ast.Constant) else "X" for value in argument.values)
                yield node.lineno, "".join(parts)


def sentences(text: str) -> Iterator[str]:
    """Yields the sentences of a text: no code, and each entry of a list or of an `Args:` section by itself."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"^.*>>>.*$", "", text, flags=re.MULTILINE)
    # a new paragraph, the item of a list, a table row, and `name (type):` of a section
    chunks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*|]|\d+\.) )|\n(?=\s+[\w`*.,/ ]+(?:\([^)]*\))?:(?:\s|$))", text)
    for chunk in chunks:
        chunk = re.sub(r"^\s*[\w`*.,/ ]+(?:\([^)]*\))?:\s", "", chunk)
        yield from re.split(r"(?<=[.!?:;])\s+", " ".join(chunk.split()))


def long_sentences(source: str) -> list[tuple[int, str]]:
    """Returns line and text of sentences above `LONGEST_SENTENCE` words in docstrings, comments and errors."""
    tree = ast.parse(source)
    texts = [(line, text) for _, line, text in docstrings(tree)]
    texts += comments(source)
    texts += error_messages(tree)
    return [(line, one) for line, text in texts for one in sentences(text) if len(one.split()) > LONGEST_SENTENCE]


@dataclass
class Figures:
    """Counts of one file or of several."""

    files: int = 0
    lines: int = 0
    comment_lines: int = 0
    docstring_lines: int = 0
    arguments: int = 0
    annotated: int = 0
    packed: int = 0
    long: int = 0
    verbless: int = 0

    def add(self, path: Path) -> None:
        """Adds the counts of one file."""
        source = path.read_text()
        tree = ast.parse(source)
        self.files += 1
        self.lines += sum(bool(line.strip()) for line in source.splitlines())
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        self.comment_lines += sum(token.type == tokenize.COMMENT for token in tokens)
        self.docstring_lines += sum(len(text.splitlines()) for _, _, text in docstrings(tree))
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                arguments = [argument for argument in arguments if argument.arg not in ("self", "cls")]
                self.arguments += len(arguments)
                self.annotated += sum(argument.annotation is not None for argument in arguments)
        self.packed += len(packed_assignments(tree))
        self.long += len(long_sentences(source))
        self.verbless += len(docstrings_without_verb(tree))

    def row(self, name: str) -> str:
        """Formats the figures as a row of the printed table."""
        of_lines = 100 / max(self.lines, 1)
        return (
            f"{name:<18} {self.files:>5} {self.lines:>6} {self.comment_lines * of_lines:>8.1f} "
            f"{self.docstring_lines * of_lines:>10.1f} {100 * self.annotated / max(self.arguments, 1):>9.1f} "
            f"{self.packed:>6} {self.long:>14} {self.verbless:>12}"
        )


def main() -> None:
    """Prints the figures of each room and of the package."""
    rooms: dict[str, Figures] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        for room in (parts[0] if len(parts) > 1 else "(root)", "all"):
            rooms.setdefault(room, Figures()).add(path)
    columns = ("files", "lines", "comments", "docstrings", "annotated", "packed", "long sentences", "without verb")
    print(f"{'room':<18} {columns[0]:>5} {columns[1]:>6} {columns[2]:>7}% {columns[3]:>9}% {columns[4]:>8}% ", end="")
    print(f"{columns[5]:>6} {columns[6]} {columns[7]}")
    for room in sorted(rooms, key=lambda room: (room == "all", room)):
        print(rooms[room].row(room))


if __name__ == "__main__":
    main()
