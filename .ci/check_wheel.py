"""
Builds sdist and wheel in dist/, and checks the wheel, which users install.

    .venv/bin/python .ci/check_wheel.py .venv-wheel

.venv-wheel contains only torch. The wheel is built from the sdist and must contain exactly the files of the package.
It is then installed with the locked versions, and used in a folder without the source code.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "vilau_hf"
LOCK = ROOT / "requirements" / "lock.txt"
EXPECTED = [
    "py.typed",
    "model_card.md",
    "checkpoints/tiny/model.safetensors",
    "checkpoints/tiny/tower/model.safetensors",
    "evaluate_metrics/drawn_shapes/drawn_shapes.py",
    "configs/vilau-7b-256.yaml",
    "original/release_model_card.md",
]
USE = """
import sys
from importlib.metadata import version
from pathlib import Path

import vilau_hf
from transformers import AutoModel, pipeline

package = Path(vilau_hf.__file__).resolve()
assert package.is_relative_to(Path(sys.prefix).resolve()), f"{package} is not in {sys.prefix}"
assert vilau_hf.__version__ == version("vilau_hf")
model = AutoModel.from_pretrained(vilau_hf.TINY_CHECKPOINT)
assert type(model) is vilau_hf.VilaUForConditionalGeneration
caption = "a small red cross at the bottom on a white background"
image = pipeline("text-to-image")(caption, seed=0)[0]["generated_image"]
assert image.size == (32, 32)
print("The wheel works:", package.parent)
"""


def build() -> Path:
    """Builds sdist and wheel with the locked setuptools, also in the isolated environment of the build."""
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    environment = {**os.environ, "PIP_CONSTRAINT": str(LOCK)}
    subprocess.run([sys.executable, "-m", "build", "--outdir", "dist", "."], cwd=ROOT, env=environment, check=True)
    (wheel,) = (ROOT / "dist").glob("*.whl")
    return wheel


def differences(wheel: Path) -> list[str]:
    """Returns the files that the wheel lacks, has in addition to the package, or has with another content."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    source = {path.relative_to(PACKAGE.parent).as_posix(): path.read_bytes() for path in files}
    wanted = source.keys() | {f"vilau_hf/{name}" for name in EXPECTED}
    problems = [f"missing: {name}" for name in sorted(wanted - packed.keys())]
    problems += [f"unexpected: {name}" for name in sorted(packed.keys() - source.keys())]
    return problems + [f"changed: {name}" for name in sorted(packed.keys() & source) if packed[name] != source[name]]


def use(wheel: Path, environment: Path):
    """Installs the wheel into `environment` and runs it in an empty folder."""
    python = environment.resolve() / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--constraint", LOCK, wheel], check=True)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            [python.with_name("vilau"), "--version"],
            [python, "-c", USE],
            [python, ROOT / ".ci" / "check_demo.py"],
        ):
            subprocess.run(command, cwd=folder, env=variables, check=True)


def main():
    wheel = build()
    problems = differences(wheel)
    if problems:
        raise SystemExit(f"{wheel.name} differs from the package:\n" + "\n".join(problems))
    use(wheel, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
