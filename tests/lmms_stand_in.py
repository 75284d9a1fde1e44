"""A stand-in for lmms-eval, whose versions of libraries differ from ours. `make test-lmms` runs the real one."""

import fnmatch
import json
import sys
import types
from pathlib import Path

import yaml

from vilau_hf.evaluation import lmms_run


# Tasks that the stand-in has beside those of a folder.
PUBLISHED = ("gqa", "mme", "pope_adv", "pope_pop")


class Definitions(yaml.SafeLoader):
    """Reads definitions without loading the functions that they name."""


Definitions.add_constructor("!function", lambda loader, node: None)


class TaskManager:
    """Lists tasks as the class of this name in lmms-eval 0.7.3 does."""

    def __init__(self, verbosity, include_path=None, model_name=None):
        published = Path(__file__).parent / "published.yaml"  # is never read from the disk
        self.task_index = {name: {"type": "task", "yaml_path": str(published)} for name in PUBLISHED}
        self.task_index["pope"] = {"type": "tag", "task": ["pope_adv", "pope_pop"], "yaml_path": -1}
        for path in sorted(Path(include_path).glob("*.yaml")) if include_path else []:
            definition = load_yaml_config(path)
            if isinstance(definition["task"], list):
                self.task_index[definition["group"]] = {"type": "group", "task": -1, "yaml_path": str(path)}
            else:
                self.task_index[definition["task"]] = {"type": "task", "yaml_path": str(path)}
        self.all_tasks = sorted(self.task_index)

    def match_tasks(self, names):
        return sorted({match for name in names for match in fnmatch.filter(self.all_tasks, name)})


def load_yaml_config(yaml_path, mode="simple"):
    assert mode == "simple"
    if Path(yaml_path).name == "published.yaml":
        return {"metadata": [{"version": 0.0}]}
    return yaml.load(Path(yaml_path).read_text(), Definitions)


def install(monkeypatch) -> dict:
    """
    Puts the stand-in where lmms-eval is imported from.

    Returns:
        A dictionary. The stand-in writes its entry `content` as results, and keeps its `arguments`.
    """
    seen: dict = {}

    def cli_evaluate():
        seen["arguments"] = list(sys.argv)
        out = sys.argv[sys.argv.index("--output_path") + 1]
        if "content" in seen:
            folder = Path(out, "vilau")
            folder.mkdir(parents=True)
            (folder / "20261128_results.json").write_text(json.dumps(seen["content"]))

    contents = {
        "lmms_eval": {},
        "lmms_eval.__main__": {"cli_evaluate": cli_evaluate},
        "lmms_eval.tasks": {"TaskManager": TaskManager},
        "lmms_eval.utils": {"load_yaml_config": load_yaml_config},
    }
    for name, content in contents.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(lmms_run, "require_lmms_eval", lambda: None)
    return seen
