"""
Makes pages of the repository's files that the guides link to, as a hook of mkdocs.

A guide links to an example as a reader of the repository needs it: "../../examples/train_tiny.py". mkdocs knows only
the files below `docs/`. So each linked file becomes a page that shows it, and a linked folder a page with its list.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File


ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FOLDER = "repository"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".cfg": "ini", ".toml": "toml"}


def find_file(page: Path, link: str) -> Path | None:
    """Returns the file or folder outside of `docs/` that a link in `page` leads to, or `None`."""
    path = Path(os.path.normpath(page.parent / link))
    return path if path.exists() and not path.is_relative_to(DOCS) and path.is_relative_to(ROOT) else None


def page_of(path: Path) -> str:
    """Returns the name of the page that shows `path`, from the root of the site."""
    name = path.relative_to(ROOT).as_posix()
    return f"{FOLDER}/{name}/index.md" if path.is_dir() else f"{FOLDER}/{name.removesuffix('.md')}.md"


def link_from(page: str, path: Path) -> str:
    """Returns the link that leads from `page` to the page of `path`."""
    return posixpath.relpath(page_of(path), posixpath.dirname(page))


def show(path: Path, pages: dict[str, str]) -> None:
    """Adds to `pages` the page of `path` and the pages that it links to."""
    page = page_of(path)
    if page in pages:
        return
    title = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        inside = sorted(child for child in path.iterdir() if child.is_dir() or child.suffix in LANGUAGES)
        pages[page] = f"# {title}/\n\n" + "\n".join(f"- [{child.name}]({link_from(page, child)})" for child in inside)
        for child in inside:
            show(child, pages)
    elif path.suffix == ".md":
        pages[page] = path.read_text()
        add_linked_files(path, pages)
        pages[page] = rewrite_links(pages[page], path, page)
    else:
        language = LANGUAGES.get(path.suffix, "text")
        pages[page] = f"# {title}\n\n````{language}\n{path.read_text().rstrip()}\n````\n"


def add_linked_files(source: Path, pages: dict[str, str]) -> None:
    """Adds to `pages` the files outside of `docs/` that the Markdown file `source` links to."""
    for link in re.findall(r"\]\(([^)#\s:]+)", source.read_text()):
        path = find_file(source, link)
        if path is not None:
            show(path, pages)


def rewrite_links(text: str, source: Path, page: str) -> str:
    """Returns the text of `source` with links that hold for `page`, which can be elsewhere."""

    def rewrite(match: re.Match) -> str:
        path = Path(os.path.normpath(source.parent / match[2]))
        if find_file(source, match[2]) is not None:
            target = link_from(page, path)
        elif path.exists() and path.is_relative_to(DOCS):
            target = posixpath.relpath(path.relative_to(DOCS).as_posix(), posixpath.dirname(page))
        else:
            return match[0]
        return f"{match[1]}{target}{match[3]}"

    return re.sub(r"(\]\()([^)#\s:]+)((?:#[^)]*)?\))", rewrite, text)


def on_files(files, config):
    """Adds the pages of the linked files to the site."""
    pages = {}
    for source in sorted(DOCS.rglob("*.md")):
        add_linked_files(source, pages)
    for page, content in pages.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Points links that leave `docs/` to the added pages."""
    if page.file.src_uri.startswith(f"{FOLDER}/"):
        return markdown  # rewritten when it was made
    return rewrite_links(markdown, DOCS / page.file.src_uri, page.file.src_uri)
