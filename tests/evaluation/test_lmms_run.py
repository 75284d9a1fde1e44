"""Tasks of lmms-eval by name, with a stand-in for lmms-eval, whose versions of libraries differ from ours."""

import json
import sys
import types
from pathlib import Path

import pytest

from vilau_hf.cli import main
from vilau_hf.evaluation import lmms_run
from vilau_hf.evaluation.lmms_run import lmms_arguments, read_lmms_results


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
    assert entries["lmms:gqa"]["settings"] == {"samples": 25, "arguments": ["--tasks", "gqa,mme"]}


def test_rejects_values_that_lmms_eval_would_split(tmp_path):
    with pytest.raises(ValueError, match="`pretrained` must have no comma"):
        lmms_arguments(["gqa"], {"pretrained": "a,b"}, tmp_path)


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a module in place of lmms-eval, which writes what it is told or nothing."""
    seen = {}

    def evaluate():
        seen["arguments"] = sys.argv
        out = sys.argv[sys.argv.index("--output_path") + 1]
        if "content" in seen:
            folder = Path(out, "vilau")
            folder.mkdir(parents=True)
            (folder / "20261128_results.json").write_text(json.dumps(seen["content"]))

    module = types.ModuleType("lmms_eval.__main__")
    module.cli_evaluate = evaluate
    monkeypatch.setitem(sys.modules, "lmms_eval", types.ModuleType("lmms_eval"))
    monkeypatch.setitem(sys.modules, "lmms_eval.__main__", module)
    monkeypatch.setattr(lmms_run, "require_lmms_eval", lambda: None)
    return seen


def test_command_adds_the_scores_of_lmms_eval_to_its_results(stand_in, tmp_path, capsys):
    stand_in["content"] = CONTENT
    before = list(sys.argv)
    options = ["--samples", "25", "--batch-size", "4", "--seed", "3", "--lmms-args", "--include_path tasks"]
    main(["evaluate", "lmms:gqa", "lmms:mme", "--model", "folder", "--out", str(tmp_path), *options])
    assert sys.argv == before
    arguments = " ".join(stand_in["arguments"])
    assert "--model vilau --tasks gqa,mme --batch_size 4" in arguments
    assert "--model_args pretrained=folder,dtype=auto,seed=3" in arguments
    assert "--limit 25 --include_path tasks" in arguments
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
