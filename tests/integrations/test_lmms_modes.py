"""Modes of tasks. tests/evaluation/test_lmms_run.py shows their use by the command."""

import pytest

from vilau_hf.integrations.lmms_modes import choose_mode, find_modes
from vilau_hf.integrations.lmms_settings import MODES

from .. import lmms_stand_in


@pytest.mark.parametrize(
    ("named", "given", "mode"),
    [
        (None, None, "understanding"),
        (None, "generate", "generate"),
        ("edit", None, "edit"),
        ("edit", "edit", "edit"),
        ("understanding", "visual_cot", "visual_cot"),
    ],
)
def test_the_mode_of_the_user_comes_before_that_of_the_task(named, given, mode):
    assert choose_mode("task", named, given) == mode


@pytest.mark.parametrize(
    ("named", "given"),
    [(one, other) for one in MODES for other in MODES if one != other and (one, other) != (MODES[0], "visual_cot")],
)
def test_rejects_modes_that_contradict_each_other(named, given):
    with pytest.raises(ValueError, match=f"task 'task' needs `mode={named}`, got `mode={given}`"):
        choose_mode("task", named, given)


def test_rejects_unknown_modes_of_definitions():
    with pytest.raises(ValueError, match="task 'task' names the unknown mode 'draw'. The modes are understanding"):
        choose_mode("task", "draw", None)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    lmms_stand_in.install(monkeypatch)
    (tmp_path / "draw.yaml").write_text("task: draw\nmetadata:\n  vilau_mode: generate\n")
    (tmp_path / "plain.yaml").write_text("task: plain\nmetadata:\n  version: 1.0\n")
    members = "- draw\n- task: plain\n  num_fewshot: 1\n- pope\n"
    (tmp_path / "both.yaml").write_text(f"group: both\ntask:\n{members}")
    return tmp_path


def test_reads_modes_of_tasks_groups_tags_patterns_and_files(folder):
    published = {"pope_adv": None, "pope_pop": None}
    assert find_modes(["gqa", "draw"], str(folder)) == {"gqa": None, "draw": "generate"}
    assert find_modes(["both"], str(folder)) == {"draw": "generate", "plain": None, **published}
    assert find_modes(["pope_*"]) == published
    assert find_modes([str(folder / "draw.yaml")]) == {"draw": "generate"}


def test_names_tasks_for_an_unknown_one(folder):
    with pytest.raises(ValueError, match="'drew'. Similar names are draw. The tasks in .* are both, draw, plain. `py"):
        find_modes(["gqa", "drew"], str(folder))
    with pytest.raises(ValueError, match="'zzzzzzzz'. `python -m lmms_eval --tasks list` prints all names"):
        find_modes(["zzzzzzzz"])
