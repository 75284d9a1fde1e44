"""
Links the torch of another environment into this one, which needs neither time nor disk space for a copy.

    .venv-lowest/bin/python .ci/link_torch.py .venv

Only torch, torchvision and their compiled libraries (triton, CUDA) are shared. Each is a complete distribution in this
environment, which pip can see, check and replace. pip installs all other packages in the versions of this environment.
"""

import argparse
import os
import re
import shutil
import sysconfig
from importlib.metadata import distributions
from pathlib import Path


SHARED = re.compile(r"torch|torchvision|triton|(nvidia|cuda)[-_].*")


def link(source: Path, target: Path) -> list[str]:
    """Links the files of torch in the site-packages `source` into `target`, and returns their names."""
    shared = [found for found in distributions(path=[str(source)]) if SHARED.fullmatch(found.metadata["Name"].lower())]
    for distribution in shared:
        for file in distribution.files:
            if file.parts[0] == "..":  # a script, whose first line names the other environment
                continue
            path = target / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            try:
                os.link(source / file, path)
            except OSError:  # another file system
                shutil.copy2(source / file, path)
    return sorted(f"{found.metadata['Name']} {found.version}" for found in shared)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path, help="folder of the environment that has torch")
    base = str(parser.parse_args().environment.resolve())
    source = Path(sysconfig.get_path("purelib", "venv", {"base": base, "platbase": base}))
    names = link(source, Path(sysconfig.get_path("purelib")))
    if not any(name.startswith("torch ") for name in names):
        raise SystemExit(f"There is no torch in {source}.")
    print("Linked", ", ".join(names))


if __name__ == "__main__":
    main()
