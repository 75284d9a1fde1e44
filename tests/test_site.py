"""The extensions of the site: docstrings become Markdown, and links to files of the repository lead to pages."""

from pathlib import Path

import pytest


griffe = pytest.importorskip("griffe", reason="needs the extra `docs`")
docstrings = pytest.importorskip("docstrings")
repository_files = pytest.importorskip("repository_files")
ROOT = Path(__file__).parents[1]

DOCSTRING = """
Encodes images, see [`VilaUModel`] and [`VilaUModel.embed`], also an [`UnknownName`].

Args:
    pixels (`torch.Tensor` of shape `(N, 3, S, S)`): pixels
        in [-1, 1].
    first, second (`int`, *optional*, defaults to 2): two numbers.
    count (`int`, *optional*).
    kwargs: for the model.

Returns:
    Codes `(N, L, D)`.

Raises:
    ValueError: if `pixels` are not square.
"""

MARKDOWN = """
Encodes images, see [`VilaUModel`][vilau_hf.VilaUModel] and [`VilaUModel.embed`][vilau_hf.VilaUModel.embed], also an \
`UnknownName`.

**Arguments**

- **`pixels`** (`torch.Tensor` of shape `(N, 3, S, S)`): pixels in [-1, 1].
- **`first`, `second`** (`int`, *optional*, defaults to 2): two numbers.
- **`count`** (`int`, *optional*)
- **`kwargs`**: for the model.

**Returns**

Codes `(N, L, D)`.

**Raises**

- **`ValueError`**: if `pixels` are not square.
"""

FIELDS = """
An output.

codes (`torch.Tensor` of shape `(N, L, D)`): codes of
    the images.
hidden_states, attentions (`tuple`, *optional*): if they are asked for.
"""


def test_sections_of_a_docstring_become_lists():
    assert docstrings.to_markdown(DOCSTRING, {"VilaUModel": "vilau_hf.VilaUModel"}) == MARKDOWN.strip()


def test_fields_of_an_output_class_become_a_list():
    markdown = docstrings.to_markdown(FIELDS, {})
    assert markdown.splitlines()[2:] == [
        "- **`codes`** (`torch.Tensor` of shape `(N, L, D)`): codes of the images.",
        "- **`hidden_states`, `attentions`** (`tuple`, *optional*): if they are asked for.",
    ]


def test_cross_references_lead_to_the_reference():
    targets = docstrings.find_targets()
    assert targets["VilaUModel"] == "vilau_hf.VilaUModel"
    assert targets["encode_dataset"] == "vilau_hf.data.encode_dataset"


def test_a_linked_file_becomes_a_page():
    pages = {}
    repository_files.show(ROOT / "examples" / "generate_image.py", pages)
    (page,) = pages
    assert page == "repository/examples/generate_image.py.md"
    assert (ROOT / "examples" / "generate_image.py").read_text().rstrip() in pages[page]


def test_a_linked_folder_becomes_a_list_of_pages():
    pages = {}
    repository_files.show(ROOT / "examples" / "recipes", pages)
    assert "[tiny_sft.yaml](tiny_sft.yaml.md)" in pages["repository/examples/recipes/index.md"]
    assert "repository/examples/recipes/tiny_sft.yaml.md" in pages


def test_links_to_files_of_the_repository_lead_to_their_pages():
    guide = ROOT / "docs" / "guides" / "draw.md"
    text = "[a](../../examples/generate_image.py) [b](edit.md#guidance) [c](https://example.org)"
    expected = "[a](../repository/examples/generate_image.py.md) [b](edit.md#guidance) [c](https://example.org)"
    assert repository_files.rewrite_links(text, guide, "guides/draw.md") == expected


def test_links_of_a_file_above_docs_lead_to_the_pages_of_docs():
    readme = ROOT / "README.md"
    expected = "[a](../guides/draw.md) [b](examples/tell_story.py.md)"
    rewritten = repository_files.rewrite_links(
        "[a](docs/guides/draw.md) [b](examples/tell_story.py)", readme, "repository/README.md"
    )
    assert rewritten == expected
