"""Names and numbers of files of every layout, as the scorers of the benchmarks look for them."""

import json

import pytest

from vilau_hf.choices import PROMPT_LAYOUTS
from vilau_hf.evaluation.benchmark_layouts import LAYOUTS, get_layout
from vilau_hf.evaluation.prompt_files import Prompt


def prompt(text="a cat", line=1, **fields):
    return Prompt(text, f"prompts.jsonl, line {line}", fields)


GENEVAL = {"tag": "counting", "include": [{"class": "cat", "count": 1}]}
EXPECTED = {
    # fields of a prompt, its files as the scorer finds them
    "plain": ({}, ["00007.png"]),
    "geneval": (GENEVAL, [f"00007/samples/000{sample}.png" for sample in range(4)]),
    "dpg": ({"item_id": "partiprompts7"}, ["partiprompts7.png"]),
    "mjhq": ({"category": "animals", "id": "2a7c31"}, ["animals/2a7c31.png"]),
    "genai": ({"id": "00017"}, ["00017.jpeg"]),
    "vbench": ({}, [f"videos/a cat-{sample}.mp4" for sample in range(5)]),
    "wise": ({"prompt_id": 401}, ["401.png"]),
}


@pytest.mark.parametrize("name", PROMPT_LAYOUTS)
def test_names_and_numbers_of_files_are_those_of_the_scorer(name):
    layout = get_layout(name)
    fields, expected = EXPECTED[name]
    files = layout.files(7, prompt(**fields), layout.num_samples)
    assert [file.path for file in files] == expected
    assert sorted(sample for file in files for sample in file.samples) == list(range(layout.num_samples))
    assert layout.select([prompt(**fields)]) == [prompt(**fields)]


def test_every_layout_says_where_it_is_described():
    assert tuple(LAYOUTS) == PROMPT_LAYOUTS
    for layout in LAYOUTS.values():
        assert "github.com/" in layout.__doc__ or "huggingface.co/" in layout.__doc__


def test_a_dpg_grid_holds_the_images_in_the_order_of_the_crops():
    (file,) = get_layout("dpg").files(0, prompt(id="1"), 4)
    assert file.samples == (0, 1, 2, 3)


def test_geneval_metadata_is_one_object_with_all_fields():
    texts = get_layout("geneval").texts(3, prompt(prompt="a cat", **GENEVAL))
    assert list(texts) == ["00003/metadata.jsonl"]
    assert json.loads(texts["00003/metadata.jsonl"]) == {"prompt": "a cat", **GENEVAL}


def test_plain_numbers_several_images_and_videos():
    assert [file.path for file in get_layout("plain").files(1, prompt(), 2)] == ["00001-0.png", "00001-1.png"]
    assert [file.path for file in get_layout("plain", is_video=True).files(1, prompt(), 1)] == ["00001.mp4"]


@pytest.mark.parametrize(("fields", "name"), [({}, "00002"), ({"id": 17}, "00017"), ({"id": "17"}, "00017")])
def test_genai_names_have_five_digits(fields, name):
    assert get_layout("genai").files(2, prompt(**fields), 1)[0].path == f"{name}.jpeg"


def test_repeated_lines_are_one_prompt():
    lines = [prompt(item_id="1"), prompt(item_id="1", line=2), prompt("a dog", 3, item_id="2")]
    assert [each.text for each in get_layout("dpg").select(lines)] == ["a cat", "a dog"]
    assert len(get_layout("vbench").select([prompt(), prompt(line=2)])) == 1
    assert len(get_layout("plain").select([prompt(), prompt(line=2)])) == 2


@pytest.mark.parametrize(
    ("layout", "bad", "reason"),
    [
        ("geneval", prompt(line=2, include=[]), "needs the field 'tag'. Its fields are ['include']"),
        ("geneval", prompt(line=2), "needs the field 'tag'. Its fields are none"),
        ("dpg", prompt(line=2), "needs the id of the prompt, in a field 'item_id' or 'id'"),
        ("dpg", prompt(line=2, id="a/../../b"), "names a file after the field 'id'"),
        ("dpg", prompt(line=2, id=""), "names a file after the field 'id'"),
        ("dpg", prompt("a dog", 2, id="1"), "another prompt has its file '1.png', see prompts.jsonl, line 1"),
        ("mjhq", prompt(line=2, id="x"), "needs the field 'category'"),
        ("mjhq", prompt(line=2, id="x", category=".."), "names a file after the field 'category'"),
        ("mjhq", prompt(line=2, id="x", category=3), "must be a text, got 3"),
        ("wise", prompt(line=2, prompt_id=True), "must be a text or an integer, got True"),
        ("wise", prompt(line=2, prompt_id=1.5), "must be a text or an integer, got 1.5"),
        ("vbench", prompt("a cat/dog", 2), "names a file after the prompt"),
        ("vbench", prompt("x" * 250, 2), "has 256 bytes, at most 255 fit"),
    ],
)
def test_rejects_prompts_without_a_file_name(layout, bad, reason):
    first = prompt(id="1", category="art", **GENEVAL)
    with pytest.raises(ValueError) as error:
        get_layout(layout).select([first, bad])
    assert str(error.value).startswith("prompts.jsonl, line 2: ") and reason in str(error.value)


def test_lists_the_layouts_if_the_name_is_unknown():
    with pytest.raises(ValueError, match="must be one of plain, geneval, dpg, mjhq, genai, vbench, wise, got 'coco'"):
        get_layout("coco")


@pytest.mark.parametrize(
    ("layout", "num_samples", "is_video", "reason"),
    [
        ("plain", 0, False, "must be at least 1 for the layout 'plain', got 0"),
        ("dpg", 3, False, "must be 1 or 4 for the layout 'dpg', got 3"),
        ("mjhq", 2, False, "must be 1 for the layout 'mjhq', got 2"),
        ("geneval", 4, True, "'geneval' has images, got videos"),
        ("vbench", 5, False, "'vbench' has videos, got images"),
    ],
)
def test_rejects_numbers_and_kinds_that_the_scorer_does_not_read(layout, num_samples, is_video, reason):
    with pytest.raises(ValueError, match=reason):
        get_layout(layout).check(num_samples, is_video)
