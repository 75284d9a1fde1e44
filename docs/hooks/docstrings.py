"""
Turns the docstrings of the package into Markdown for the reference pages, as an extension of griffe.

The docstrings have Google sections whose entries carry types in backticks: "name (`int`, *optional*): text". griffe's
parser reads such a type as code, so it would print backticks and asterisks. Plain lists keep what the author wrote.
"""

import re
import textwrap
from pathlib import Path

from griffe import Extension


SECTIONS = {"Args": "Arguments", "Attributes": "Attributes", "Returns": "Returns", "Raises": "Raises"}
SECTIONS |= {"Yields": "Yields", "Example": "Example", "Examples": "Examples"}
LISTS = ("Args", "Attributes", "Raises")
FIELD = re.compile(r"(\*{0,2}\w+(?:, (?:or )?\*{0,2}\w+)*(?: before [\w. ]+)?) (\([`\[].*)")
REFERENCE = Path(__file__).parents[1] / "reference"


def find_targets() -> dict[str, str]:
    """Returns the full name in the reference of each short name, for cross references such as "[`VilaUModel`]"."""
    targets = {}
    for page in sorted(REFERENCE.glob("*.md")):
        for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE):
            targets.setdefault(name.rpartition(".")[2], name)
    return targets


def split_entry(text: str) -> tuple[str, str, str]:
    """Splits "name (type): text" into three; a type may hold parentheses."""
    match = FIELD.match(text)
    if match is None:
        name, colon, rest = text.partition(": ")
        return (name, "", rest) if colon and " " not in name else ("", "", text)
    depth = 0
    for index, character in enumerate(match[2]):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return match[1], match[2][: index + 1], match[2][index + 1 :].lstrip(".: ")
    return "", "", text


def format_entry(lines: list[str]) -> str:
    """Formats the lines of one entry as a list item."""
    name, kind, text = split_entry(" ".join(line.strip() for line in lines))
    if not name:
        return f"- {text}"
    names = ", ".join(f"`{each}`" for each in name.split(", "))
    return f"- **{names}**" + (f" {kind}" if kind else "") + (f": {text}" if text else "")


def group_entries(lines: list[str]) -> list[list[str]]:
    """Groups the lines of a section by entry: the lines that are indented deeper continue one."""
    entries = []
    for line in lines:
        if not line.strip():
            continue
        if entries and line.startswith(" "):
            entries[-1].append(line)
        else:
            entries.append([line])
    return entries


def section_to_markdown(name: str, lines: list[str]) -> list[str]:
    """Formats a section: a heading in bold type, and a list where the section has entries."""
    body = textwrap.dedent("\n".join(lines)).strip("\n").split("\n")
    if name in LISTS:
        body = [format_entry(entry) for entry in group_entries(body)]
    return ["", f"**{SECTIONS[name]}**", "", *body, ""]


def fields_to_markdown(lines: list[str]) -> list[str]:
    """Formats the fields of an output class, which stand in its docstring without a section."""
    result, field = [], []
    for line in [*lines, ""]:
        if field and line.startswith(" "):
            field.append(line)
            continue
        if field:
            result.append(format_entry(field))
            field = []
        if FIELD.match(line):
            if result and result[-1] and not result[-1].startswith("- "):
                result.append("")
            field = [line]
        else:
            result.append(line)
    return result


def to_markdown(docstring: str, targets: dict[str, str]) -> str:
    """Returns a docstring as Markdown: its sections are lists, and its cross references are links."""
    result, text, lines = [], [], docstring.split("\n")
    while lines:
        line = lines.pop(0)
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            section = []
            while lines and (not lines[0] or lines[0].startswith(" ")):
                section.append(lines.pop(0))
            result += fields_to_markdown(text) + section_to_markdown(line[:-1], section)
            text = []
        else:
            text.append(line)
    result += fields_to_markdown(text)

    def link(match: re.Match) -> str:
        name = match[1]
        first, _, rest = name.partition(".")
        if first not in targets:
            return f"`{name}`"
        return f"[`{name}`][{targets[first]}{'.' + rest if rest else ''}]"

    markdown = re.sub(r"\n{3,}", "\n\n", "\n".join(result))
    return re.sub(r"\[`([\w.]+)`\](?![\[(])", link, markdown).strip()


class MarkdownDocstrings(Extension):
    """Rewrites each docstring once, right after griffe has read it."""

    def __init__(self):
        self.targets = find_targets()

    def on_object(self, *, obj, **kwargs):
        """Rewrites the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value, self.targets)
