import pytest
import yaml
from datasets import load_dataset

from vilau_hf import cli
from vilau_hf.evaluation.task import TaskOptions
from vilau_hf.integrations.lmms_tasks import functions, write_lmms_tasks
from vilau_hf.integrations.lmms_tasks.functions import score


class Definitions(yaml.SafeLoader):
    """Reads definitions without loading the functions that they name."""


Definitions.add_constructor("!function", lambda loader, node: node.value)


def read(folder, name):
    """Returns the definition of a task and its documents."""
    definition = yaml.load((folder / f"{name}.yaml").read_text(), Definitions)
    files = {split: str(folder / file) for split, file in definition["dataset_kwargs"]["data_files"].items()}
    cache = str(folder.parent / "cache")
    return definition, load_dataset("parquet", data_files=files, split=definition["test_split"], cache_dir=cache)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lmms") / "tasks"
    return folder, write_lmms_tasks(folder, options=TaskOptions(samples=6))


def test_names_the_mode_that_each_task_needs(written):
    assert written[1] == {
        "vilau_shapes_questions": "understanding",
        "vilau_shapes_questions_choice": "understanding",
        "vilau_shapes_captions": "understanding",
        "vilau_shapes_text_to_image": "generate",
        "vilau_shapes_text_to_video": "video",
        "vilau_shapes_edits": "edit",
    }


def test_definitions_name_functions_and_columns_that_exist(written):
    folder, names = written
    for name in names:
        definition, documents = read(folder, name)
        assert definition["task"] == name
        assert definition["metadata"]["vilau_mode"] == names[name]
        assert len(documents) == 6
        for value in definition.values():
            if isinstance(value, str) and value.startswith(functions.__name__):
                assert value.rpartition(".")[2] in functions.__all__
        for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
            assert definition.get(key, "answer") in documents.column_names


def test_definitions_list_the_metrics_of_the_scores(written):
    definition, documents = read(written[0], "vilau_shapes_questions")
    names = {metric["metric"] for metric in definition["metric_list"]}
    assert names == set(score(documents[0], [documents[0]["answer"]]))


def test_choices_have_the_answer_and_the_other_words_of_its_attribute(written):
    _, documents = read(written[0], "vilau_shapes_questions_choice")
    assert documents[0]["choices"] == ["red", "green", "blue", "yellow", "purple", "orange"]
    assert all(document["answer"] in document["choices"] for document in documents)


def test_writes_tasks_of_emoji(tmp_path):
    names = write_lmms_tasks(tmp_path / "tasks", ["emoji-yes-no"], options=TaskOptions(samples=3))
    assert names == {"vilau_emoji_yes_no": "understanding"}
    definition, documents = read(tmp_path / "tasks", "vilau_emoji_yes_no")
    assert {metric["metric"] for metric in definition["metric_list"]} == {"right", "says_yes", "precision", "recall"}
    for document in documents:
        found = score(document, [document["answer"]])
        assert found["right"] == 1.0
        assert found["says_yes"] == float(document["answer"] == "yes")


def test_rejects_folders_with_files_and_tasks_that_have_no_form(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="`folder` must be new or empty, got"):
        write_lmms_tasks(tmp_path)
    options = TaskOptions(samples=2)
    with pytest.raises(ValueError, match="unknown task 'shapes'"):
        write_lmms_tasks(tmp_path / "a", ["shapes"], options=options)
    with pytest.raises(ValueError, match="first frames of a video"):
        write_lmms_tasks(tmp_path / "b", ["shapes-continuation"], options=options)
    assert not (tmp_path / "b").exists()


def test_command_writes_the_chosen_tasks(tmp_path, capsys):
    cli.main(["lmms-tasks", str(tmp_path / "tasks"), "shapes-edits", "--samples", "2", "--seed", "3"])
    assert capsys.readouterr().out == "vilau_shapes_edits: edit\n"
    assert sorted(path.name for path in (tmp_path / "tasks").iterdir()) == [
        "vilau_shapes_edits.parquet",
        "vilau_shapes_edits.yaml",
    ]
