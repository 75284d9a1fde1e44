"""Repositories for the Hub, and their use with and without the package."""

import json
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import RepoUrl
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoModel, AutoProcessor

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUPipeline, VilaUProcessor, hub
from vilau_hf.cli import main


CAPTION = "a small red cross at the bottom on a white background"


@pytest.fixture(scope="module")
def with_code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "repository"
    hub.write_repository(TINY_CHECKPOINT, folder, with_code=True)
    return folder


@pytest.fixture(scope="module")
def other_python(tmp_path_factory):
    """Returns the command of an interpreter that has the libraries but not this package."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    site = next((folder / "lib").glob("python*/site-packages"))
    site.joinpath("libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = [folder / "bin" / "python", "-I"]  # without the paths of the environment
    assert subprocess.run([*python, "-c", "import vilau_hf"], capture_output=True).returncode
    return python


def run(python, script, *arguments, cwd):
    return subprocess.run(
        [*python, "-c", script, *arguments], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def test_dry_run_saves_the_repository(tmp_path, capsys):
    main(["push", "me/tiny", "--dry-run", str(tmp_path / "plain")])
    assert str(tmp_path / "plain") in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "model_index.json", "processor_config.json"} <= names
    assert not [name for name in names if name.endswith(".py")]
    assert "auto_map" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    assert isinstance(AutoModel.from_pretrained(tmp_path / "plain"), VilaUForConditionalGeneration)
    assert isinstance(VilaUPipeline.from_pretrained(tmp_path / "plain"), VilaUPipeline)
    with pytest.raises(ValueError, match="`folder` must be a new or an empty folder"):
        hub.write_repository(TINY_CHECKPOINT, tmp_path / "plain")


def test_later_saves_contain_no_code(with_code, tmp_path):
    VilaUProcessor.from_pretrained(with_code).save_pretrained(tmp_path)
    VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))


@pytest.fixture
def uploads(monkeypatch, tmp_path):
    """Replaces the Hub by a folder, in which each repository is a sub-folder."""

    def create_repo(*args, **kwargs):
        return RepoUrl(f"https://huggingface.co/{args[-1] if args else kwargs['repo_id']}")

    def create_commit(self, repo_id, operations, **kwargs):
        for operation in operations:
            path = tmp_path / repo_id / operation.path_in_repo
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(Path(operation.path_or_fileobj).read_bytes())

    def upload_folder(repo_id, folder_path, **kwargs):
        shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)

    def no_card(*args, **kwargs):
        raise EntryNotFoundError("a new repository")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create_repo)
    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", create_commit)
    monkeypatch.setattr("diffusers.utils.hub_utils.create_repo", create_repo)
    monkeypatch.setattr("diffusers.utils.hub_utils.upload_folder", upload_folder)
    monkeypatch.setattr("huggingface_hub.ModelCard.load", no_card)
    return tmp_path


def test_push_to_hub_of_models_processors_and_pipelines(uploads):
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    model.push_to_hub("me/tiny")
    processor.push_to_hub("me/tiny")
    VilaUPipeline(model, processor).push_to_hub("me/pipeline")
    assert torch.equal(AutoModel.from_pretrained(uploads / "me/tiny").lm_head.weight, model.lm_head.weight)
    assert AutoProcessor.from_pretrained(uploads / "me/tiny").to_dict() == processor.to_dict()
    pipe = VilaUPipeline.from_pretrained(uploads / "me/pipeline")
    assert torch.equal(pipe.model.lm_head.weight, model.lm_head.weight)


def test_uploads_the_files_of_the_dry_run(with_code, monkeypatch):
    calls = []

    class Api:
        def create_repo(self, repo_id, private, exist_ok):
            calls.append((repo_id, private))

        def upload_folder(self, repo_id, folder_path):
            calls.append({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
            return "https://the.hub/me/tiny"

    monkeypatch.setattr(hub, "HfApi", Api)
    assert hub.push_repository(TINY_CHECKPOINT, "me/tiny", with_code=True, private=True) == "https://the.hub/me/tiny"
    assert calls[0] == ("me/tiny", True)
    assert calls[1] == {path.name: path.read_bytes() for path in with_code.iterdir()}


def test_rejects_a_card_without_a_license(tmp_path):
    (tmp_path / "card.md").write_text("# nothing")
    with pytest.raises(ValueError, match="names no `license`"):
        hub.write_repository(TINY_CHECKPOINT, tmp_path / "out", card=tmp_path / "card.md")
    assert not (tmp_path / "out").exists()


WITHOUT_THE_PACKAGE = """
import sys
import torch
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

folder, caption = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor.apply_chat_template(
    [{"role": "user", "content": caption}],
    add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
)
codes = model.generate(**inputs, generation_mode="image", generator=torch.Generator().manual_seed(0))
torch.save(codes, "codes.pt")
draw = pipeline("text-to-image", model=folder, trust_remote_code=True)
draw(caption, seed=0)[0]["generated_image"].save("picture.png")
assert isinstance(AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True), type(model))
assert "vilau_hf" not in sys.modules
"""


def test_code_of_a_repository_generates_the_same_image_without_the_package(with_code, other_python, tmp_path):
    result = run(other_python, WITHOUT_THE_PACKAGE, with_code, CAPTION, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    pipe = VilaUPipeline.from_pretrained(TINY_CHECKPOINT)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    codes = pipe(CAPTION, generator=generators[0], output_type="codes").images
    assert torch.equal(torch.load(tmp_path / "codes.pt"), codes)
    picture = pipe(CAPTION, generator=generators[1]).images[0]
    assert np.array_equal(np.array(Image.open(tmp_path / "picture.png")), np.array(picture))


def test_library_rejects_the_code_without_trust(with_code, other_python, tmp_path):
    script = "import sys; from transformers import AutoModel; AutoModel.from_pretrained(sys.argv[1])"
    result = run(other_python, script, with_code, cwd=tmp_path)
    assert result.returncode != 0 and "trust_remote_code=True" in result.stderr


def test_package_loads_the_repository_without_trust(with_code, tmp_path):
    script = """
import sys
import vilau_hf
from transformers import AutoModel, AutoProcessor, pipeline
assert type(AutoModel.from_pretrained(sys.argv[1])) is vilau_hf.VilaUForConditionalGeneration
assert type(AutoProcessor.from_pretrained(sys.argv[1])) is vilau_hf.VilaUProcessor
"""
    result = run([sys.executable], script, with_code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]


def test_a_killed_or_failed_dry_run_leaves_no_repository(tmp_path, monkeypatch, capsys):
    script = (
        "import os, sys, signal; from vilau_hf import hub\n"
        "hub.ModelCard.save = lambda *args: os.kill(os.getpid(), signal.SIGKILL)\n"
        "hub.write_repository(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, TINY_CHECKPOINT, str(tmp_path / "out")]
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists() and list(tmp_path.iterdir())

    def fail(self, folder, **kwargs):
        (folder / "model.safetensors").write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(VilaUPipeline, "save_pretrained", fail)
        with pytest.raises(SystemExit):
            main(["push", "me/tiny", "--dry-run", str(tmp_path / "out")])
    assert "No space left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    main(["push", "me/tiny", "--dry-run", str(tmp_path / "out")])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
