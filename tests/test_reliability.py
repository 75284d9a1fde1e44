"""The promises of docs/reliability.md: their tests exist, and files with code in them run nothing."""

import ast
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from vilau_hf import convert_original_checkpoint
from vilau_hf.data import Mixture
from vilau_hf.training import read_recipe

from .golden import ROOT as GOLDEN


ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
TABLES = re.findall(r"^\| promise .*\n\|---.*\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
ROWS = [row for table in TABLES for row in table.splitlines()]


def test_every_promise_names_its_tests():
    assert len(ROWS) > 20
    assert all("::test_" in row for row in ROWS)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/\S+::\w+)`", PAGE))))
def test_named_tests_exist(name):
    file, _, function = name.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_with_code_in_a_release_is_refused(tmp_path):
    shutil.copytree(GOLDEN / "tiny-256", tmp_path / "original")
    projector = tmp_path / "original" / "checkpoint" / "mm_projector"
    weights = load_file(projector / "model.safetensors")
    (projector / "model.safetensors").unlink()
    torch.save({**weights, "payload": Payload(tmp_path / "exploded")}, projector / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        convert_original_checkpoint(tmp_path / "original" / "checkpoint", tmp_path / "out")
    assert not (tmp_path / "exploded").exists() and not (tmp_path / "out").exists()
    # the payload itself works
    pickle.loads(pickle.dumps(Payload(tmp_path / "exploded"))).close()
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("read", [read_recipe, Mixture.from_yaml], ids=["recipe", "mixture"])
def test_a_yaml_tag_with_code_is_refused(tmp_path, read):
    file = tmp_path / "file.yaml"
    file.write_text(f"output_dir: !!python/object/apply:os.mkdir ['{tmp_path}/exploded']\n")
    with pytest.raises((yaml.YAMLError, ValueError), match="python/object/apply"):
        read(file)
    assert not (tmp_path / "exploded").exists()
    # the tag itself works, where a reader follows it
    yaml.unsafe_load(file.read_text())
    assert (tmp_path / "exploded").is_dir()
