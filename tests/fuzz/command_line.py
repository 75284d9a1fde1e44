"""Recipes, mixtures and the command line."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.cli import main
from vilau_hf.data import Mixture
from vilau_hf.training import read_recipe

from .classification import Case, Given, Printed, Wrong
from .values import file


SCALARS = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        -1,
        10**30,
        0.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "1",
        "tiny",
        [],
        ["x"],
        {},
        {1: 2},
        [None],
        "2020-01-01",
    ]
)
RECIPE_KEYS = (
    "stage", "model_name_or_path", "dataset", "output_dir", "max_steps", "per_device_train_batch_size",
    "learning_rate", "seed", "save_steps", "lr_scheduler_type", "bf16", "use_cpu", "resume_from_checkpoint",
    "freeze", "lora_r", "base_recipe", "mixture", "report_to", "logging_steps", "nonsense", "warmup_steps",
    "optim", "lora_target_modules", "from_scratch", "max_length", "num_frames", "weight_decay",
    "dataloader_num_workers", "eval_strategy",
)  # fmt: skip
INTEGER_KEYS = (
    "max_steps",
    "per_device_train_batch_size",
    "seed",
    "save_steps",
    "logging_steps",
    "dataloader_num_workers",
)
DAMAGED_YAML = [
    "",
    "- a",
    "a: [",
    "a: {b",
    "\t",
    "a: !!python/object:x.y {}",
    "? [1]\n: 2",
    "&a [*a]",
    "a: 2020-13-45",
    "\x00",
    "a: 1\na: 2",
    "1: 2",
    "[" * 200,
    "x",
    "!!binary x",
]


def yaml_file(name: str, value: Any) -> Given:
    """Returns a YAML file with a value."""
    return file(name, yaml.safe_dump(value, allow_unicode=True).encode())


@st.composite
def recipes(draw: Any) -> Case:
    """Draws recipes with odd keys and values, and command lines that replace some of them."""
    stage = draw(st.sampled_from(["language_model", "vision_tower"]))
    valid = {
        "stage": stage,
        "model_name_or_path": "tiny",
        "dataset": "drawn_shapes",
        "output_dir": "runs",
        "use_cpu": True,
    }
    keys = draw(st.lists(st.sampled_from(RECIPE_KEYS), max_size=3, unique=True))
    integers = {key: draw(st.integers(1, 99)) for key in draw(st.lists(st.sampled_from(INTEGER_KEYS), max_size=3))}
    values: dict[Any, Any] = {**valid, **integers, **{key: draw(SCALARS) for key in keys}}
    option = st.sampled_from(
        [f"--{key}" for key in RECIPE_KEYS] + ["--x", "-", "", "1", "x", "nan", "-1", "true", "--max_steps=3"]
    )
    overrides = draw(st.lists(option, max_size=3)) if draw(st.booleans()) else []
    given: Any = yaml_file("recipe.yaml", values)
    is_valid = True if not keys and not overrides else None
    if draw(st.integers(0, 4)) == 0:
        given = file("recipe.yaml", draw(st.sampled_from(DAMAGED_YAML)).encode())
        is_valid = False

    def check(recipe: Any) -> None:
        # An integer of the file must be read as this integer.
        for key in integers.keys() - set(keys):
            found = [getattr(arguments, key) for arguments in vars(recipe).values() if hasattr(arguments, key)]
            if not any(option.startswith(f"--{key}") for option in overrides) and found[:1] != [values[key]]:
                raise Wrong(f"`{key}` is {found}, not {values[key]}")

    # classes of arguments of the training arguments
    names = (
        "OptimizerNames",
        "SchedulerType",
        "IntervalStrategy",
        "SaveStrategy",
        *RECIPE_KEYS,
        "recipe.yaml",
        "keys",
        *keys,
        *(option.strip("-") for option in overrides if option.strip("-")),
        "argument",
        "arguments",
        "stage",
        "sources",
    )
    return Case("read_recipe", read_recipe, {"file": given, "overrides": overrides}, names, is_valid, check)


@st.composite
def mixtures(draw: Any) -> Case:
    """Draws mixtures of sources with odd values."""
    row = json.dumps({"question": "q", "answer": "a"}).encode()
    entry = {"name": "a", "format": "vflan", "source": "SOURCE"}
    keys = draw(
        st.lists(
            st.sampled_from(["name", "format", "source", "weight", "target", "options", "nonsense"]),
            max_size=2,
            unique=True,
        )
    )
    changed = {key: draw(SCALARS) for key in keys}
    missing = draw(st.sampled_from([None, None, None, "name", "format", "source"]))
    entry = {key: value for key, value in {**entry, **changed}.items() if key != missing}
    top: dict[str, Any] = {
        "datasets": draw(st.sampled_from([[entry], [entry, entry], [entry, {**entry, "name": "b"}], [], [3], entry]))
    }
    for key in draw(st.lists(st.sampled_from(["seed", "stopping_strategy", "datasets", "x"]), max_size=1)):
        top[key] = draw(SCALARS)
    damaged = draw(st.sampled_from([None, None, None, *DAMAGED_YAML]))

    def write(folder: Path) -> str:
        (folder / "rows.jsonl").write_bytes(row)
        text = yaml.safe_dump(top).replace("SOURCE", str(folder / "rows.jsonl")) if damaged is None else damaged
        (folder / "mixture.yaml").write_text(text)
        return str(folder / "mixture.yaml")

    def read(file: str) -> list[dict]:
        return list(Mixture.from_yaml(file).stream())

    def check(records: list[dict]) -> None:
        if not records or any(len(record["messages"]) != 2 for record in records):
            raise Wrong(f"{len(records)} records")

    names = ("mixture.yaml", "datasets", "sources", *keys, *top)
    shown = Given(f"mixture.yaml({damaged if damaged is not None else top!r})", write)
    return Case("Mixture.from_yaml", read, {"file": shown}, names, None, check)


def run_command(arguments: list[str]) -> str:
    """Runs `vilau` in this process and returns what it printed. An exit with an error raises its text."""
    out = io.StringIO()
    err = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(arguments)
    except SystemExit as stop:
        if stop.code not in (None, 0):
            # the usage, which argparse prints before the error, names all options
            raise Printed(re.sub(r"(?s)^usage:.*?\nvilau", "vilau", err.getvalue())) from None
    return out.getvalue()


@st.composite
def commands(draw: Any) -> Case:
    """Draws command lines of verbs that need neither a network nor a long time."""
    rows = file("rows.jsonl", json.dumps({"question": "q", "answer": "a"}).encode())
    path = st.sampled_from(
        [
            rows,
            Given("FOLDER", str),
            Given("FOLDER/new", lambda folder: str(folder / "new")),
            "",
            "none",
            "/dev/null",
            "/proc/none",
            "a" * 300,
        ]
    )
    value = st.sampled_from(["0", "-1", "1", "2", "x", "", "1e9", "nan", "99999999999999999999", "true"])
    verb = draw(
        st.sampled_from(
            ["records", "estimate", "convert", "push", "encode", "train", "env", "serve", "x", "--version"]
        )
    )
    options: dict[str, list[str]] = {
        "records": ["--records-per-file", "--option", "--target"],
        "estimate": [
            "--gpus",
            "--strategy",
            "--rows",
            "--length",
            "--batch-size",
            "--num-frames",
            "--lora-rank",
            "--prompt-length",
            "--lora-targets",
            "--text-targets",
            "--freeze",
        ],
        "convert": ["--dtype", "--tower-out", "--siglip-config"],
        "push": ["--dry-run", "--source", "--card"],
        "encode": ["--model", "--num-records", "--batch-size", "--shard-size", "--split"],
        "train": ["--max_steps", "--dry_run", "--output_dir"],
        "serve": ["--port", "--media-timeout", "--model"],
    }
    arguments: list[Any] = [verb]
    if verb == "records":
        arguments += [draw(st.sampled_from(["vflan", "llava", "pickle", "x", "chat"])), draw(path), draw(path)]
    elif verb == "estimate":
        arguments.append(draw(st.just(TINY_CHECKPOINT) | path))
    elif verb in ("convert", "encode"):
        arguments += [draw(path), draw(path)]
    elif verb == "push":
        arguments += [draw(st.sampled_from(["me/x", "", "a b"])), "--dry-run", draw(path)]
    elif verb == "train":
        arguments.append(draw(path))
    elif verb == "serve":
        arguments += ["--model", Given("FOLDER/new", lambda folder: str(folder / "new"))]
    for option in draw(st.lists(st.sampled_from(options.get(verb, ["--x"])), max_size=2)):
        arguments += [option, draw(value | path)]
    # "." is the folder of an empty name
    names = (
        "'.'",
        "(.)",
        "file",
        "folder",
        "source",
        "arguments",
        "argument",
        "FOLDER",
        "repo_id",
        "choice",
        "config.json",
        "checkpoint",
        "Repo id",
    )
    names += tuple(item.lstrip("-") for item in arguments if isinstance(item, str) and item.strip("-"))
    names += tuple(
        item.lstrip("-").replace("-", "_") for item in arguments if isinstance(item, str) and item.startswith("--")
    )
    return Case("vilau", run_command, {"arguments": arguments}, names, None, None)


def cases() -> st.SearchStrategy[Case]:
    """Draws a recipe, a mixture or a command line."""
    return st.one_of(recipes(), mixtures(), commands())
