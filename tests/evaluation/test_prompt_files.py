"""Files of prompts of all formats, and what is said about bad lines."""

import json

import pytest

from vilau_hf.evaluation.prompt_files import read_prompts


def texts(path):
    return [prompt.text for prompt in read_prompts(path)]


def test_reads_the_formats_of_benchmarks(tmp_path):
    files = {
        "all_dimension.txt": "\ufeffa cat\r\n a dog, \u2028running \r\n\r\n",
        "evaluation_metadata.jsonl": '{"tag": "counting", "prompt": "a cat"}\n{"prompt": "a dog, \u2028running"}\n',
        "dpg_bench.csv": 'item_id,text,tuple\n1,a cat,"entity (cat)"\n2,"a dog, \u2028running",x\n\n',
        "prompts.tsv": "prompt\tid\na cat\t1\na dog, \u2028running\t2\n",
        "culture.json": json.dumps([{"Prompt": "a cat", "prompt_id": 1}, {"Prompt": "a dog, \u2028running"}]),
        "VBench_full_info.json": json.dumps([{"prompt_en": "a cat"}, {"prompt_en": "a dog, \u2028running"}]),
        "genai_image.json": json.dumps({"00000": {"prompt": "a cat"}, "00001": "a dog, \u2028running"}),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
        assert texts(tmp_path / name) == ["a cat", "a dog, \u2028running"], name
    first = {name: read_prompts(tmp_path / name)[0].fields for name in files}
    assert first["evaluation_metadata.jsonl"] == {"tag": "counting", "prompt": "a cat"}
    assert first["dpg_bench.csv"] == {"item_id": "1", "text": "a cat", "tuple": "entity (cat)"}
    assert first["genai_image.json"] == {"prompt": "a cat", "id": "00000"}


def test_reads_a_folder_of_one_file_for_each_prompt(tmp_path):
    for name, text in (("b2", "a dog\n"), ("b1", "a cat,\nasleep")):
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "README.md").write_text("no prompt")
    prompts = read_prompts(tmp_path)
    assert [(prompt.text, prompt.fields) for prompt in prompts] == [
        ("a cat, asleep", {"id": "b1"}),
        ("a dog", {"id": "b2"}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "place", "reason"),
    [
        ("a.txt", "a cat\n\na dog", "a.txt, line 2", "the prompt is empty"),
        ("a.txt", "", "a.txt", "has no prompts"),
        ("a.txt", "\n \n", "a.txt", "has no prompts"),
        ("a.txt", b"a cat\na d\xff", "a.txt, line 2", "not UTF-8"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": "b"', "a.jsonl, line 2", "not valid JSON, "),
        ("a.jsonl", '{"prompt": "a"}\n\n{"prompt": "b"}', "a.jsonl, line 2", "the line is empty"),
        ("a.jsonl", '{"prompt": "a"}\n{"caption": "b"}', "a.jsonl, line 2", "no field 'prompt', 'Prompt'"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": 3}', "a.jsonl, line 2", "must be a text, got int"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": " "}', "a.jsonl, line 2", "the prompt is empty"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": "\\ud800"}', "a.jsonl, line 2", "half of a surrogate pair"),
        ("a.jsonl", '{"prompt": "a"}\n[1]', "a.jsonl, line 2", "expected an object"),
        ("a.jsonl", "[" * 100000, "a.jsonl, line 1", "nested too deeply"),
        ("a.csv", "id,caption\n1,a", "a.csv, line 1", "must have one of prompt"),
        ("a.csv", 'prompt,id\n"a\nb",1\na dog', "a.csv, line 4", "1 cells, but the first line has 2 names"),
        ("a.csv", 'prompt,id\na,1\n"b,2', "a.csv, line 3", "not valid CSV"),
        ("a.csv", "prompt,id\na,1\n,2", "a.csv, line 3", "the prompt is empty"),
        ("a.csv", "", "a.csv", "has no prompts"),
        ("a.json", '[{"prompt": "a"},\n{"prompt": ]', "a.json, line 2", "not valid JSON"),
        ("a.json", '[{"prompt": "a"}, {"text": null}]', "a.json, entry 2", "must be a text, got NoneType"),
        ("a.json", '{"x": {"prompt": ""}}', "a.json, entry 'x'", "the prompt is empty"),
        ("a.json", "3", "a.json", "must hold a list or an object, got int"),
        ("a.parquet", "", "a.parquet", "the suffix must be one of .txt, .jsonl, .csv, .tsv, .json"),
    ],
)
def test_names_file_line_and_reason(tmp_path, name, content, place, reason):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        read_prompts(path)
    assert str(error.value).startswith(f"{tmp_path}/{place}") and reason in str(error.value)


def test_rejects_missing_files_and_folders_without_prompts(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*nowhere\.txt: No such file"):
        read_prompts(tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match="has no prompts"):
        read_prompts(tmp_path)
