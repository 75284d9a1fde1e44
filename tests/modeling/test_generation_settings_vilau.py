"""Settings of visual generation: where they come from, and what a new one costs."""

import ast
import dataclasses
import importlib
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

import vilau_hf
from vilau_hf.modeling.generation_sampling_vilau import PER_DEPTH_SETTINGS, CodeSampler, SamplingSettings
from vilau_hf.modeling.generation_settings_vilau import (
    VISUAL_GENERATION_DEFAULTS,
    VisualArguments,
    VisualGenerationSettings,
)

from ..conftest import DEPTH, TEXT, TOKEN_IDS, VISION
from .test_generation_vilau import PROMPTS, left_padded


PACKAGE = Path(vilau_hf.__file__).parent
OTHER_VALUES = {"do_sample": False, "temperature": 0.5, "top_k": 7, "top_p": 0.5, "min_p": 0.25}


def collect(arguments=None, config=None, saved=None, mode="image", **kwargs):
    arguments = VisualArguments(by_name=arguments or {})
    return VisualGenerationSettings.collect(mode, arguments, kwargs, config, saved or GenerationConfig())


def enclosing_definitions(word):
    """Returns file and innermost function or class of each line of the package that holds `word`."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text()
        definitions = [
            node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        ]
        for number, line in enumerate(source.splitlines(), 1):
            if re.search(rf"\b(visual_)?{word}\b", line):
                around = [node for node in definitions if node.lineno <= number <= node.end_lineno]
                innermost = max(around, key=lambda node: node.lineno).name if around else None
                found.add((path.name, innermost))
    return found


def test_a_sampling_setting_is_named_in_three_places():
    assert enclosing_definitions("min_p") == {
        ("generation_sampling_vilau.py", "SamplingSettings"),
        ("generation_sampling_vilau.py", "truncated_probabilities"),
        ("generation_vilau.py", "generate"),
        # the `min_p` of text, an option of the library
        ("generation_checks_vilau.py", None),
        ("protocol.py", "GenerationOptions"),
    }


def test_three_edits_add_a_sampling_setting(tmp_path, monkeypatch):
    """Adds a setting to a copy of the modeling files: it drops codes whose logit is far below the largest."""
    copied = tmp_path / "copied_modeling"
    shutil.copytree(PACKAGE / "modeling", copied, ignore=shutil.ignore_patterns("__pycache__"))
    for file, old, new in (
        (
            "generation_sampling_vilau.py",
            "    min_p: PerDepth =",
            '    max_gap: PerDepth = _per_depth(100.0, lambda value: value > 0, "greater than 0")\n'
            "    min_p: PerDepth =",
        ),
        (
            "generation_sampling_vilau.py",
            "    probabilities = values.softmax(-1)\n",
            "    values = values.masked_fill(values < values[:, :1] - settings.max_gap, -torch.inf)\n"
            "    probabilities = values.softmax(-1)\n",
        ),
        ("generation_vilau.py", "`visual_min_p`,", "`visual_max_gap`, `visual_min_p`,"),
    ):
        source = (copied / file).read_text()
        assert source.count(old) == 1
        (copied / file).write_text(source.replace(old, new))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("copied_modeling")
    config = module.VilaUConfig(vision_config=VISION, depth_config=DEPTH, text_config=TEXT, **TOKEN_IDS)
    model = module.VilaUForConditionalGeneration(config).eval()

    def draw(**settings):
        return model.generate(**left_padded(PROMPTS), generation_mode="image", seed=0, **settings)

    greedy = draw(visual_do_sample=False)
    assert torch.equal(draw(visual_max_gap=1e-9), greedy) and not torch.equal(draw(), greedy)
    assert torch.equal(draw(visual_max_gap=[1e-9] * 3), greedy)
    assert "max_gap" in model.sampling_settings
    with pytest.raises(ValueError, match="`visual_max_gap` must be greater than 0, got 0"):
        draw(visual_max_gap=0)
    with pytest.raises(ValueError, match="`max_gap` is for text: use `visual_max_gap`"):
        draw(max_gap=1.0)
    model.generation_config.visual_max_gap = 1e-9
    assert torch.equal(draw(), greedy)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SamplingSettings)])
def test_every_sampling_setting_can_be_given_in_each_way(name):
    visual_name = f"visual_{name}"
    other = OTHER_VALUES[name]
    assert f"`{visual_name}`" in vilau_hf.VilaUForConditionalGeneration.generate.__doc__
    assert VISUAL_GENERATION_DEFAULTS[visual_name] == getattr(SamplingSettings(), name) != other
    by_argument = collect({visual_name: other})
    by_config = collect(config=GenerationConfig(**{visual_name: other}))
    by_checkpoint = collect(saved=GenerationConfig(**{visual_name: other}))
    expected = dataclasses.replace(SamplingSettings(), **{name: other})
    assert by_argument.sampling == by_config.sampling == by_checkpoint.sampling == expected
    default = CodeSampler(SamplingSettings(), code_depth=3).signature()
    assert CodeSampler(expected, code_depth=3).signature() != default  # a compiled graph is not shared


def test_arguments_win_over_the_config_and_the_config_over_the_checkpoint():
    saved = GenerationConfig(visual_top_k=1, visual_top_p=0.1, num_frames=3)
    config = GenerationConfig(visual_top_k=2, visual_top_p=0.2)
    settings = collect({"visual_top_k": 3}, config, saved, mode="video")
    assert (settings.sampling.top_k, settings.sampling.top_p, settings.num_frames) == (3, 0.2, 3)


def test_do_sample_is_about_codes_except_in_interleaved_mode():
    assert not collect(do_sample=False).sampling.do_sample
    assert collect(mode="interleaved", do_sample=False).sampling.do_sample
    assert collect({"visual_do_sample": True}, do_sample=False).sampling.do_sample


def test_settings_are_frozen():
    settings = collect()
    for frozen, name in ((settings, "num_frames"), (settings.sampling, "top_k"), (VisualArguments(), "seed")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(frozen, name, 1)


def test_a_list_gives_one_number_for_each_depth():
    settings = SamplingSettings(top_k=[1, 2, 3], temperature=0.5)
    assert [each.top_k for each in settings.split_by_depth(3)] == [1, 2, 3]
    assert {each.temperature for each in settings.split_by_depth(3)} == {0.5}
    with pytest.raises(ValueError, match=r"`visual_top_k` must be a number, or a list of 2 numbers"):
        settings.split_by_depth(2)
    assert set(PER_DEPTH_SETTINGS) == set(OTHER_VALUES) - {"do_sample"}
