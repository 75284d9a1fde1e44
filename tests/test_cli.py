"""The verbs of the command and their error messages."""

import argparse
import json
import subprocess
import sys

import pytest
import torch
from datasets import load_dataset
from datasets.exceptions import DatasetGenerationError
from PIL import Image
from safetensors import SafetensorError

from vilau_hf import TINY_CHECKPOINT, choices
from vilau_hf.cli import COMMANDS, main
from vilau_hf.commands import estimate
from vilau_hf.data import write_records
from vilau_hf.data.converters import FORMATS
from vilau_hf.modeling.sub_models_vilau import SUB_MODELS
from vilau_hf.training.recipe_language_model import LoraArguments


ANSWER_AND_NAME_HEAVY_MODULES = """
import sys, time
from vilau_hf.cli import main

code = None
try:
    main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
heavy = {"torch", "transformers", "diffusers", "datasets", "numpy", "PIL", "yaml"} & set(sys.modules)
print(code, time.process_time(), *heavy, file=sys.stderr)
"""


def test_demo_saves_the_files_that_it_prints(tmp_path, capsys):
    main(["demo", "--out", str(tmp_path), "--seed", "1"])
    printed = capsys.readouterr().out
    assert str(tmp_path) in printed
    assert Image.open(tmp_path / "pictures.png").width > 4 * 192
    assert Image.open(tmp_path / "reconstructions.png").width > 2 * 256
    gifs = list(tmp_path.glob("*.gif"))
    assert len(gifs) == 4 and all(Image.open(gif).n_frames == 4 for gif in gifs)
    table = (tmp_path / "answers.md").read_text().splitlines()
    assert len(table) == 2 + 20
    for word in ("pictures.png", "*.gif", "reconstructions.png", "answers.md"):
        assert word in printed


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        ([], 2),
        (["nonsense"], 2),
        (["records", "nonsense", "SOURCE", "OUT"], 2),
        (["records", "llava", "SOURCE", "OUT", "--option", "no value"], 2),
        *(([name, "--help"], 0) for name in COMMANDS),
    ],
    ids=str,
)
def test_parser_imports_no_library(arguments, code):
    command = [sys.executable, "-c", ANSWER_AND_NAME_HEAVY_MODULES, *arguments]
    run = subprocess.run(command, capture_output=True, text=True)
    found, seconds, *heavy = run.stderr.splitlines()[-1].split()
    assert int(found) == code and not heavy
    assert float(seconds) < 1  # takes 0.1 s; torch alone would take 2 s


def test_help_of_every_verb_describes_it(capsys):
    for name, command in COMMANDS.items():
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert command.HELP in " ".join(capsys.readouterr().out.split())


def test_choices_equal_those_of_their_sources():
    assert tuple(choices.RECORD_FORMATS) == tuple(FORMATS)
    assert choices.SUB_MODELS == tuple(SUB_MODELS)


def test_estimate_takes_defaults_of_adapters_from_recipes():
    parser, recipe = argparse.ArgumentParser(), LoraArguments()
    estimate.add_arguments(parser)
    config = estimate.lora_config(parser.parse_args(["tiny", "--lora-rank", "4"]))
    assert (config.r, config.target_modules) == (4, recipe.lora_target_modules)
    assert config.modules_to_save == recipe.lora_trained_modules
    given = ["--lora-targets", ".*q_proj", "--lora-modules-to-save", "lm_head"]
    config = estimate.lora_config(parser.parse_args(["tiny", "--lora-rank", "4", *given]))
    assert (config.target_modules, config.modules_to_save) == (".*q_proj", ["lm_head"])


def test_estimate_prints_bytes_as_json(capsys):
    main(["estimate", TINY_CHECKPOINT, "--length", "256", "--json"])
    content = json.loads(capsys.readouterr().out)
    assert content["config"] == TINY_CHECKPOINT
    for name in ("training", "generation"):
        estimate = content[name]
        held = sum(line["size"] for line in estimate["held"])
        assert estimate["peak"] == held + max(line["size"] for line in estimate["phases"]) > 1_000_000


def test_help_exits_with_0_and_a_missing_verb_with_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and "demo" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2


@pytest.mark.parametrize("command", [["demo"], ["push", "me/tiny", "--dry-run", "out"]])
def test_names_a_missing_model_without_a_traceback(command, tmp_path, capsys):
    option = "--source" if command[0] == "push" else "--model"
    with pytest.raises(SystemExit) as stop:
        main([*command, option, str(tmp_path / "nowhere")])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("vilau: ") and "nowhere" in error


def test_records_saves_a_dataset_and_reports_skipped_rows(tmp_path, capsys):
    lines = [{"question": "2 + 2?", "reply": "4"}, {"question": "3 + 3?", "reply": ""}]
    (tmp_path / "sums.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    main(["records", "vflan", str(tmp_path / "*.jsonl"), str(tmp_path / "out"), "--option", "answer_field=reply"])
    printed = capsys.readouterr().out
    assert "1 records, 1 rows skipped" in printed and "field 'reply' is empty  (sums:1 in " in printed
    assert f"1 files in {tmp_path / 'out'}" in printed
    dataset = load_dataset(str(tmp_path / "out"), split="train")
    assert dataset[0]["messages"][1]["content"] == [{"type": "text", "text": "4"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vflan", "SOURCE", "OUT", "--option", "answer_key=reply"], "unexpected keyword argument 'answer_key'"),
        (["vflan", "OUT"], "The format 'vflan' needs two paths or more"),
        (["parquet", "SOURCE", "OUT"], "missing a required argument: 'target'"),
        (["parquet", "SOURCE", "OUT", "--target", "text"], "`records` has no records"),
        (["pickle", "SOURCE", "OUT"], "is a pickle. Loading a pickle can run any code"),
        (["vflan", "SOURCE.none", "OUT"], "`source` must be a file, a pattern such as 'data/*.parquet', or a folder"),
        (["llava", "SOURCE", "OUT", "--option", "media_folder=3"], "the option `media_folder` of the format 'llava'"),
    ],
)
def test_records_rejects_wrong_arguments(tmp_path, capsys, arguments, message):
    (tmp_path / "a.jsonl").write_text("{}")
    names = {"SOURCE": str(tmp_path / "a.jsonl"), "OUT": str(tmp_path / "out")}
    with pytest.raises(SystemExit) as stop:
        main(["records", *(names.get(argument, argument) for argument in arguments)])
    assert stop.value.code == 1 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["vflan", "A", "--option", "answer_field=reply", "B", "OUT"],
        ["vflan", "A", "B", "--option", "answer_field=reply", "OUT"],
        ["--option", "answer_field=reply", "vflan", "A", "B", "OUT"],
        ["vflan", "--option", "answer_field=reply", "A", "--records-per-file", "1", "B", "OUT"],
    ],
    ids=str,
)
def test_records_accepts_options_between_paths(tmp_path, capsys, arguments):
    for name in "AB":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": f"is this {name}?", "reply": "yes"}))
    names = {"A": str(tmp_path / "A.jsonl"), "B": str(tmp_path / "B.jsonl"), "OUT": str(tmp_path / "out")}
    main(["records", *(names.get(argument, argument) for argument in arguments)])
    assert load_dataset(str(tmp_path / "out"), split="train")["id"] == ["A:0", "B:0"]
    assert "2 records, 0 rows skipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["records", "vflan", "A", "OUT", "--nonsense", "x"], ["demo", "x"], ["env", "--nonsense"]],
    ids=str,
)
def test_rejects_arguments_that_a_verb_does_not_have(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "unrecognized arguments: " in capsys.readouterr().err


def test_options_that_are_not_valid_yaml_are_reported_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["records", "vflan", "A", "OUT", "--option", "answer_field=["])
    assert stop.value.code == 2 and "'answer_field=[' is not valid YAML: " in capsys.readouterr().err


def fail_with_cause():
    try:
        raise OSError("Couldn't deserialize thrift")
    except OSError as error:
        raise DatasetGenerationError("An error occurred while generating the dataset") from error


def fail_to_save_weights():
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def fail_to_save_states():
    torch.save(torch.zeros(10_000), "/dev/full")


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (fail_with_cause, "An error occurred while generating the dataset Couldn't deserialize thrift"),
        (fail_to_save_weights, "No space left on device"),
        (fail_to_save_states, "a file cannot be written, is the disk full?"),
    ],
)
def test_reports_errors_of_libraries_without_a_traceback(monkeypatch, capsys, fail, message):
    monkeypatch.setattr(COMMANDS["demo"], "run", lambda args: fail())
    with pytest.raises(SystemExit) as stop:
        main(["demo"])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("vilau: ") and message in error and error.count("\n") == 1


def test_shows_the_traceback_of_a_fault_of_the_package(monkeypatch):
    def fail(args):
        raise RuntimeError("a fault")

    monkeypatch.setattr(COMMANDS["demo"], "run", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        main(["demo"])


def test_exits_with_130_after_ctrl_c(monkeypatch, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS["demo"], "run", interrupt)
    with pytest.raises(SystemExit) as stop:
        main(["demo"])
    assert stop.value.code == 130 and capsys.readouterr().err == "vilau: interrupted\n"


CLOSED_OUTPUT = """
from vilau_hf import cli
from vilau_hf.commands import demo
demo.run = lambda args: [print(number) for number in range(100_000)]
cli.main(["demo"])
"""


def test_ends_quietly_if_the_reader_of_its_output_ends():
    process = subprocess.Popen([sys.executable, "-c", CLOSED_OUTPUT], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141


def test_shows_no_progress_bar_in_logs(tmp_path):
    command = [sys.executable, "-m", "vilau_hf.cli", "generate", "a red cross", "--out", str(tmp_path / "a.png")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout == f"{tmp_path / 'a.png'}\n" and "positions" not in run.stderr and run.returncode == 0


def test_encode_replaces_images_of_records_by_codes(tmp_path, capsys):
    image = {"type": "image", "text": None}
    words = [{"type": "text", "text": "a red circle"}]
    messages = [{"role": "user", "content": words}, {"role": "assistant", "content": [image]}]
    for name in "ab":
        Image.new("RGB", (40, 30), "red" if name == "a" else "blue").save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    images = [{"path": str(tmp_path / f"{name}.png"), "bytes": None} for name in "abc"]
    rows = [{"id": n, "messages": messages, "images": [i], "videos": []} for n, i in zip("abc", images, strict=True)]
    write_records(rows, tmp_path / "records")
    arguments = ["encode", str(tmp_path / "records"), str(tmp_path / "encoded")]
    with pytest.raises(SystemExit):
        main(arguments)
    error = capsys.readouterr().err
    assert "vilau: Cannot open images[0] of record 'c'" in error
    main([*arguments, "--on-bad-media", "skip"])
    printed = capsys.readouterr().out
    assert "process 1 of 1: 2 images and frames of 2 records" in printed and "1 records skipped" in printed
    assert f"Complete: {tmp_path / 'encoded'}" in printed
    main([*arguments, "--on-bad-media", "skip", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["out"] == str(tmp_path / "encoded") and report["is_complete"] and report["num_processes"] == 1
    encoded = load_dataset(str(tmp_path / "encoded"), split="train")
    assert encoded["id"] == ["a", "b"] and encoded[0]["messages"] == messages
    assert encoded[0]["codes"] != encoded[1]["codes"]
