"""
Runs the Python blocks of Markdown pages as a reader would: each page from top to bottom, in a folder that is empty.

python tests/run_pages.py README.md docs/guides/draw.md

One process runs all pages, because the imports take longer than most pages.
"""

import os
import re
import sys
import tempfile
import time
from pathlib import Path


def python_blocks(text: str) -> list[str]:
    """Returns the code of the Python blocks in a Markdown text."""
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def run_page(page: Path) -> None:
    """Runs the blocks of `page` in a namespace and a folder that no other page uses."""
    code = "\n".join(python_blocks(page.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
        finally:
            os.chdir("/")


if __name__ == "__main__":
    for page in [Path(name).resolve() for name in sys.argv[1:]]:
        started = time.perf_counter()
        run_page(page)
        print(f"{page.name} ran in {time.perf_counter() - started:.1f} s", flush=True)
