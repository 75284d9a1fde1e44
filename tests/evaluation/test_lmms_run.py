"""Tasks of lmms-eval by name, with a stand-in for lmms-eval, whose versions of libraries differ from ours."""

import json
import sys

import pytest

from vilau_hf.cli import main
from vilau_hf.evaluation import lmms_run
from vilau_hf.evaluation.lmms_run import lmms_arguments, read_lmms_results

from .. import lmms_stand_in


# as lmms-eval 0.7.3 writes them
CONTENT = {
    "results": {
        "gqa": {
            "alias": "gqa",
            "exact_match,none": 0.5,
            "exact_match_stderr,none": 0.1,
            "exact_match_stderr_clt,none": 0.1,
        },
        "mme": {"alias": "mme", "mme_perception_score,none": 1400.0, "mme_perception_score_stderr,none": "N/A"},
    },
    "n-samples": {"gqa": {"original": 100, "effective": 25}, "mme": {"original": 2374, "effective": 2374}},
    "total_evaluation_time_seconds": "12.5",
}


def test_standard_errors_become_intervals():
    entries = read_lmms_results(CONTENT, ["--tasks", "gqa,mme"])
    score = entries["lmms:gqa"]["scores"]["exact_match"]
    assert score == {
        "value": 0.5,
        "low": pytest.approx(0.304, abs=1e-3),
        "high": pytest.approx(0.696, abs=1e-3),
        "count": 25,
    }
    assert list(entries["lmms:gqa"]["scores"]) == ["exact_match"]
    assert entries["lmms:mme"]["scores"] == {"mme_perception_score": 1400.0}
    assert "lmms_eval" in entries["lmms:gqa"]["environment"]["packages"]
    assert entries["lmms:gqa"]["environment"]["processor"] and entries["lmms:gqa"]["num_processes"] == 1
    assert entries["lmms:gqa"]["settings"] == {"samples": 25, "arguments": ["--tasks", "gqa,mme"]}


def test_rejects_values_that_lmms_eval_would_split(tmp_path):
    with pytest.raises(ValueError, match="`pretrained` must have no comma"):
        lmms_arguments(["gqa"], {"pretrained": "a,b"}, tmp_path)


@pytest.fixture
def stand_in(monkeypatch):
    """Replaces lmms-eval by a stand-in, which writes what it is told or nothing."""
    return lmms_stand_in.install(monkeypatch)


def test_command_adds_the_scores_of_lmms_eval_to_its_results(stand_in, tmp_path, capsys):
    stand_in["content"] = CONTENT
    before = list(sys.argv)
    options = ["--samples", "25", "--batch-size", "4", "--seed", "3", "--lmms-args", "--verbosity ERROR"]
    main(["evaluate", "lmms:gqa", "lmms:mme", "--model", "folder", "--out", str(tmp_path), *options])
    assert sys.argv == before
    arguments = " ".join(stand_in["arguments"])
    assert "--model vilau --tasks gqa,mme --batch_size 4" in arguments
    outputs = tmp_path / "lmms-eval" / "outputs"
    assert f"--model_args pretrained=folder,dtype=auto,seed=3,output_dir={outputs} " in arguments
    assert "--limit 25 --verbosity ERROR" in arguments
    tasks = json.loads((tmp_path / "results.json").read_text())["tasks"]
    assert tasks["lmms:gqa"]["scores"]["exact_match"]["value"] == 0.5
    assert "lmms:mme: 2374 samples" in capsys.readouterr().out


def test_lmms_eval_that_writes_no_results_is_an_error(stand_in, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "lmms:gqa", "--out", str(tmp_path)])
    assert "lmms-eval has written no results" in capsys.readouterr().err


def test_missing_lmms_eval_is_an_error_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lmms_run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["evaluate", "shapes-questions", "lmms:gqa", "--out", str(tmp_path / "out")])
    assert 'need lmms-eval: `pip install "vilau_hf[evaluation]"`' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def drawing_tasks(tmp_path):
    """Returns a folder with a task of each mode, and a group of two."""
    folder = tmp_path / "my tasks"
    folder.mkdir()
    for name, mode in (("ask", "understanding"), ("draw", "generate"), ("change", "edit")):
        (folder / f"{name}.yaml").write_text(f"task: {name}\nmetadata:\n  vilau_mode: {mode}\n")
    (folder / "all.yaml").write_text("group: all\ntask:\n- ask\n- draw\n")
    return folder


def evaluate(tmp_path, tasks: str, *options: str, include_path=None) -> None:
    """Runs the command for tasks of lmms-eval."""
    names = [f"lmms:{name}" for name in tasks.split()]
    further = [] if include_path is None else ["--lmms-args", f"--include_path '{include_path}'"]
    main(["evaluate", *names, "--out", str(tmp_path / "out"), *further, *options])


def model_args(stand_in) -> dict[str, str]:
    """Returns the arguments of the adapter."""
    given = stand_in["arguments"][stand_in["arguments"].index("--model_args") + 1]
    return dict(argument.split("=", 1) for argument in given.split(","))


@pytest.mark.parametrize("tasks", ["ask draw change", "all", "gqa", "ask draw gqa"])
def test_tasks_need_no_mode_and_outputs_are_below_the_folder_of_the_command(stand_in, drawing_tasks, tmp_path, tasks):
    stand_in["content"] = CONTENT
    evaluate(tmp_path, tasks, include_path=drawing_tasks)
    assert "mode" not in model_args(stand_in)
    assert model_args(stand_in)["output_dir"] == str(tmp_path / "out" / "lmms-eval" / "outputs")
    assert str(drawing_tasks) in stand_in["arguments"]


def test_the_user_chooses_the_mode_of_tasks_that_name_none_or_that_answer(stand_in, drawing_tasks, tmp_path):
    stand_in["content"] = CONTENT
    evaluate(tmp_path, "gqa ask", "--generation", "mode=visual_cot", include_path=drawing_tasks)
    assert model_args(stand_in)["mode"] == "visual_cot"
    assert model_args(stand_in)["output_dir"] == str(tmp_path / "out" / "lmms-eval" / "outputs-visual_cot")


@pytest.mark.parametrize(
    ("tasks", "setting", "message"),
    [
        ("draw", "mode=understanding", "task 'draw' needs `mode=generate`, got `mode=understanding`"),
        ("gqa draw", "mode=edit", "task 'draw' needs `mode=generate`, got `mode=edit`"),
        ("all", "mode=generate", "task 'ask' needs `mode=understanding`, got `mode=generate`"),
        ("gqa", "mode=draw", "`mode` must be one of understanding, generate, edit, video, visual_cot, got 'draw'"),
        ("draw", "image_guidance_scale=2", "`image_guidance_scale` needs `mode=\"edit\"`, got 'generate'"),
        ("gqa", "cfg=3", "unknown `--model_args`: cfg"),
        ("gqa", "seed=5", "`--generation seed=5` contradicts `--seed 0`"),
        ("gqa", "pretrained=other", "`--generation pretrained=other` contradicts `--model "),
        ("draw", "output_dir=elsewhere", "`output_dir` must be in the folder of `--out`, "),
        ("gpa", "seed=0", "unknown task of lmms-eval: 'gpa'. Similar names are gqa. The tasks in "),
        ("gpa", "seed=0", " are all, ask, change, draw. "),
    ],
)
def test_rejects_settings_and_names_before_anything_runs(
    stand_in, drawing_tasks, tmp_path, capsys, tasks, setting, message
):
    with pytest.raises(SystemExit):
        evaluate(tmp_path, tasks, "--generation", setting, include_path=drawing_tasks)
    assert message in capsys.readouterr().err
    assert "arguments" not in stand_in
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "folder", "--tower", "folder"], "tasks of lmms-eval do not use `--data`, `--tower`. They use"),
        (["--lmms-args", "--include_path 'tasks"], "`--lmms-args` cannot be split into arguments"),
        (["--lmms-args", "--include_path nowhere"], "`--include_path` must be a folder of tasks of lmms-eval, got"),
    ],
)
def test_rejects_options_without_effect_and_folders_that_are_missing(stand_in, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        evaluate(tmp_path, "gqa", *options)
    assert message in capsys.readouterr().err
    assert "arguments" not in stand_in
