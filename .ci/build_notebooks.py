"""Executes the notebooks of docs/notebooks and converts them to Markdown pages with images, for the site.

python .ci/build_notebooks.py [NAME ...]

The pages are in docs/notebooks/built/, which git ignores. A notebook that is unchanged since its page was built is not
executed again, unless `--force` is given. Needs jupytext, nbclient, nbconvert and ipykernel (the extra `docs`).
"""

import argparse
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path


ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"
BUILT = NOTEBOOKS / "built"


def names() -> list[str]:
    """Returns the names of the notebooks, without the ending `.py`, in order."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.py"))


def fingerprint(name: str) -> str:
    """Returns a hash of the notebook and of the package that it runs."""
    digest = hashlib.sha256((NOTEBOOKS / f"{name}.py").read_bytes() + Path(__file__).read_bytes())
    for path in sorted((ROOT / "src" / "vilau_hf").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def execute(name: str):
    """Returns the notebook with the outputs of its cells. A cell that fails raises `nbclient`'s error."""
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
    source = str(ROOT / "src")
    # One thread, so that numbers do not depend on the machine's cores. The kernel inherits the environment.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
    }
    # The kernel runs in an empty folder, so that files which a notebook saves do not end up in the repository.
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}})
        client.execute(env=environment)
    return notebook


def tidy(notebook):
    """
    Drops what libraries print to standard error, and joins what a cell prints to standard output.

    The first differs between machines and says nothing to a reader. The second comes in several outputs.
    """
    for cell in notebook.cells:
        outputs = []
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                continue
            if output.get("name") == "stdout" and outputs and outputs[-1].get("name") == "stdout":
                outputs[-1].text += output.text
            else:
                outputs.append(output)
        if cell.cell_type == "code":
            cell.outputs = outputs
    return notebook


def convert(name: str, notebook) -> Path:
    """Writes the Markdown page and its images. Returns the page."""
    from nbconvert import MarkdownExporter

    text, resources = MarkdownExporter().from_notebook_node(tidy(notebook))
    images = BUILT / f"{name}_files"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir(parents=True)
    for output, content in resources["outputs"].items():
        if f"({output})" in text:  # an image is there twice, as PNG and as JPEG
            (images / output).write_bytes(content)
    # nbconvert writes "![png](output_3_0.png)"
    text = re.sub(r"!\[png\]\(([\w.-]+)\)", rf"![output of the code above]({name}_files/\1)", text)
    note = f"This page was made from `docs/notebooks/{name}.py`, which is a notebook for jupytext.\n"
    page = BUILT / f"{name}.md"
    page.write_text(f"{text.rstrip()}\n\n---\n\n{note}")
    return page


def build(name: str, force: bool = False) -> Path:
    """Returns the page of a notebook, and executes the notebook first if it or the package changed."""
    page = BUILT / f"{name}.md"
    mark = BUILT / f".{name}.sha256"
    current = fingerprint(name)
    if force or not page.is_file() or not mark.is_file() or mark.read_text() != current:
        convert(name, execute(name))
        mark.write_text(current)
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"notebooks to build: {', '.join(names())}")
    parser.add_argument("--force", action="store_true", help="execute notebooks that are unchanged, too")
    args = parser.parse_args()
    unknown = set(args.names) - set(names())
    if unknown:
        parser.error(f"unknown notebooks {', '.join(sorted(unknown))}: choose from {', '.join(names())}")
    for name in args.names or names():
        print(build(name, args.force).relative_to(ROOT))


if __name__ == "__main__":
    main()
