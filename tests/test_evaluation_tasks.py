"""The registry of tasks, and the verb `vilau evaluate`."""

import json

import pytest
import torch

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.choices import EVALUATION_TASKS
from vilau_hf.cli import main
from vilau_hf.commands.evaluate import format_score, parse_settings
from vilau_hf.emoji.judge import EmojiJudge
from vilau_hf.evaluation.evaluated_model import EvaluatedModel
from vilau_hf.evaluation.feature_distances import make_feature_network
from vilau_hf.evaluation.sheets import to_pil
from vilau_hf.evaluation.task import TaskOptions
from vilau_hf.evaluation_tasks import make_tasks, task_class


def test_every_name_has_its_class_and_a_description():
    for name in EVALUATION_TASKS:
        found = task_class(name)
        assert found.name == name and found.description
        known = set(TaskOptions.__dataclass_fields__)
        assert set(found.uses) <= known and set(found.needs) <= set(found.uses)


def test_rejects_an_unknown_task_with_the_list(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "imagenet", "--out", str(tmp_path / "out")])
    assert stop.value.code == 1
    printed = capsys.readouterr().err
    assert "unknown task 'imagenet'. The tasks are reconstruction, rfid, zero-shot, fid, vqa" in printed
    assert not (tmp_path / "out").exists()


def test_rejects_options_that_no_task_uses():
    model = EvaluatedModel(TINY_CHECKPOINT)
    options = TaskOptions(reference="images", samples=2)
    with pytest.raises(ValueError, match="shapes-questions do not use `--reference`. They use generation"):
        make_tasks(["shapes-questions"], model, options, given=["reference", "samples"])
    with pytest.raises(ValueError, match="each task must be named once, got rfid, rfid"):
        make_tasks(["rfid", "rfid"], model, options)


def test_command_prints_scores_and_says_where_they_are(tmp_path, capsys):
    arguments = ["evaluate", "shapes-reconstruction", "--samples", "3", "--metrics", "psnr", "--out", str(tmp_path)]
    main(arguments)
    printed = capsys.readouterr().out
    assert "shapes-reconstruction: 3 samples" in printed and "color_and_shape" in printed
    content = json.loads((tmp_path / "results.json").read_text())
    assert format_score(content["tasks"]["shapes-reconstruction"]["scores"]["psnr"]) in printed
    assert str((tmp_path / "results.json").resolve()) in printed
    main([*arguments, "--json"])  # nothing is measured again
    assert json.loads(capsys.readouterr().out) == content
    with pytest.raises(SystemExit):
        main([*arguments[:-1], str(tmp_path), "--seed", "1"])
    assert "`seed` (0 there, 1 now)" in capsys.readouterr().err


def test_settings_are_json_or_texts():
    assert parse_settings(["visual_top_p=0.9", "visual_decoding=parallel", "do_sample=false"]) == {
        "visual_top_p": 0.9,
        "visual_decoding": "parallel",
        "do_sample": False,
    }
    with pytest.raises(ValueError, match="takes settings such as visual_top_p=0.9, got 'guidance'"):
        parse_settings(["guidance"])


def test_undefined_scores_say_so():
    assert format_score(None) == "undefined" and format_score(0.5) == "0.5000"
    assert format_score({"value": None, "low": None, "high": None, "count": 4}) == "undefined, n = 4"


def test_the_judge_gives_features_for_fid(tmp_path):
    torch.manual_seed(0)
    judge = EmojiJudge(["a", "b", "c", "d", "e"], image_size=16).eval()
    judge.save(tmp_path)
    model = EvaluatedModel(TINY_CHECKPOINT)
    images = [to_pil(torch.randint(256, (3, 16, 16), dtype=torch.uint8)) for _ in range(3)]
    network = make_feature_network(model, TaskOptions(features="judge", judge=str(tmp_path)))
    torch.testing.assert_close(network(images), judge.judge(images).features, rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match="`--features judge` needs the folder of the judge by `--judge`"):
        make_feature_network(model, TaskOptions(features="judge"))
