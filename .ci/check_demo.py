"""
Runs `vilau demo` of this environment in a new folder, and fails if a score is too low.

A silent change in a library shows here first: the images may still be right while half of the answers are wrong.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path


LOWEST = {
    "pictures.png": 11,
    "*.gif": 3,
    "reconstructions.png": 7,
    "answers.md": 18,
}  # the demo reaches 12, 4, 8 and 20
LOWEST_PSNR = 33.4  # dB; the demo reaches 34.4


def too_low(printed: str) -> list[str]:
    """Returns the scores in the output of the demo that are missing or too low."""
    problems = []
    for name, least in LOWEST.items():
        score = re.search(rf"^ *{re.escape(name)} +(\d+) of \d+", printed, flags=re.MULTILINE)
        if score is None or int(score[1]) < least:
            problems.append(f"{name}: expected at least {least}, got {score and score[1]}")
    psnr = re.search(r"PSNR ([\d.]+) dB", printed)
    if psnr is None or float(psnr[1]) < LOWEST_PSNR:
        problems.append(f"PSNR: expected at least {LOWEST_PSNR} dB, got {psnr and psnr[1]}")
    return problems


def main():
    command = [Path(sys.executable).parent / "vilau", "demo", "--out", "out"]
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    print(run.stdout)
    if run.returncode:
        raise SystemExit(f"vilau demo ended with {run.returncode}")
    problems = too_low(run.stdout)
    if problems:
        raise SystemExit("vilau demo scores too low:\n" + "\n".join(problems))


if __name__ == "__main__":
    main()
