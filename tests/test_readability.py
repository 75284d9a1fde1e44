"""Rules of writing that a program can check. What it cannot judge stands in CONTRIBUTING.md."""

import ast

import pytest

from .readability import PACKAGE, comments, docstrings_without_verb, long_sentences, packed_assignments, sentences


FILES = sorted(PACKAGE.rglob("*.py"))


def names(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=names)
def test_a_statement_assigns_one_thing(path):
    assert not packed_assignments(ast.parse(path.read_text())), "give each name a line of its own"


@pytest.mark.parametrize("path", FILES, ids=names)
def test_docstrings_of_functions_begin_with_a_verb(path):
    assert not docstrings_without_verb(ast.parse(path.read_text())), 'begin like "Returns", "Encodes", "Validates"'


@pytest.mark.parametrize("path", FILES, ids=names)
def test_sentences_are_short(path):
    assert not long_sentences(path.read_text())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a, b = 1, 2", [1]),
        ("self.a, self.b = x, y", [1]),
        ("a, b = b, a", []),
        ("a, b = x[:2], x[2:]", []),
        ("a, b = f()", []),
        ("a = 1, 2", []),
    ],
)
def test_packed_assignments(line, expected):
    assert packed_assignments(ast.parse(line)) == expected


@pytest.mark.parametrize(
    ("docstring", "found"),
    [("Returns a.", 0), ("What a call gives.", 1), ("As of every module.", 1), ("Pre-computes a.", 0)],
)
def test_docstrings_without_verb(docstring, found):
    assert len(docstrings_without_verb(ast.parse(f'def f():\n    """{docstring}"""'))) == found


def test_sentences_end_at_stops_lists_and_sections():
    text = "One two. Three:\n- four\n- five six\n\nArgs:\n    name (`int`): seven eight\n        nine.\n    b: ten"
    assert [one for one in sentences(text) if one] == [
        "One two.", "Three:", "- four", "- five six", "Args:", "seven eight nine.", "ten",
    ]  # fmt: skip


def test_long_sentences_are_found_in_docstrings_comments_and_errors():
    words = " ".join(["word"] * 26)
    source = f'"""{words}."""\n# {words[:60]}\n# {words[60:]}\nraise ValueError(f"{words} {{x}}.")\n'
    assert [line for line, _ in long_sentences(source)] == [1, 2, 4]
    assert not long_sentences(source.replace("word word word", "word. word word"))


def test_comment_lines_that_follow_one_another_are_one_text():
    assert comments("# a\n# b\nx = 1  # c\n\n# d\n") == [(1, "a b"), (3, "c"), (5, "d")]
