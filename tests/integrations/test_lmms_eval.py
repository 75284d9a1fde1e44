"""
lmms-eval runs the adapter: local tasks by its command and its functions, and published tasks with stub datasets.

`make test-lmms` runs this file. Elsewhere lmms-eval is not installed, because it does not accept the locked versions.
"""

import json
import os
import subprocess
import sys

import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.drawn.shapes import SHAPES
from vilau_hf.evaluation.task import TaskOptions
from vilau_hf.integrations.lmms_tasks import write_lmms_tasks
from vilau_hf.integrations.lmms_tasks.functions import describe_task, load_task


lmms_eval = pytest.importorskip("lmms_eval", reason="the extra `evaluation`, see `make test-lmms`")

# Warnings of lmms-eval and its libraries are not ours.
pytestmark = pytest.mark.filterwarnings("ignore")

NUM_DOCUMENTS = 3

# Tasks of types that the local ones do not have, about their data.
FUNCTIONS = """
def visuals(doc):
    return list(doc["images"])


def rounds(doc, lmms_eval_specific_kwargs=None, previous_output=None, round_idx=None, previous_round_info=None):
    if round_idx is None:
        return doc["prompt"]
    if round_idx == 2:
        return None, None, True, previous_output, None
    return list(doc["images"]), "what shape is it?", False, previous_output, "asked"


def drawing(doc):
    return f"[GEN_PROMPT]turn it blue[/GEN_PROMPT][QUESTION]{doc['prompt']}[/QUESTION]"


def score(doc, results):
    answers = results[0] if isinstance(results[0], list) else results
    return {"answers": len(answers), "first": answers[0] == doc["answer"]}
"""
DEFINITION = """
task: {name}
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: vilau_shapes_questions.parquet
test_split: test
output_type: {type}
doc_to_visual: !function more_tasks.visuals
doc_to_text: !function more_tasks.{text}
doc_to_target: answer
process_results: !function more_tasks.score
metric_list:
  - metric: answers
    aggregation: mean
    higher_is_better: true
  - metric: first
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with the local tasks."""
    path = tmp_path_factory.mktemp("lmms") / "tasks"
    write_lmms_tasks(path, options=TaskOptions(samples=NUM_DOCUMENTS))
    (path / "more_tasks.py").write_text(FUNCTIONS)
    for name, kind, text in (
        ("rounds", "generate_until_multi_round", "rounds"),
        ("draws_first", "generate_visual_cot", "drawing"),
    ):
        (path / f"{name}.yaml").write_text(DEFINITION.format(name=name, type=kind, text=text))
    return path


@pytest.fixture(scope="module")
def tasks(folder):
    """Returns the index of all published and local tasks, which takes seconds."""
    from lmms_eval.tasks import TaskManager

    return TaskManager("ERROR", include_path=str(folder), model_name="vilau")


def evaluate(tasks, names: list[str], model_args: str, **options) -> dict:
    """Runs lmms-eval and returns its results."""
    from lmms_eval.evaluator import simple_evaluate

    return simple_evaluate(
        "vilau",
        model_args,
        tasks=names,
        task_manager=tasks,
        batch_size=2,
        bootstrap_iters=0,
        verbosity="ERROR",
        **options,
    )


def own_scores(name: str) -> dict[str, float]:
    """Returns the mean metrics of `vilau evaluate` on the documents of a local task."""
    task = load_task(describe_task(name, TINY_CHECKPOINT, TaskOptions(samples=NUM_DOCUMENTS)))
    rows = [result.metrics for result in task.run(range(NUM_DOCUMENTS))]
    return {metric: sum(float(row[metric]) for row in rows) / len(rows) for metric in rows[0]}


def scores(results: dict, name: str) -> dict[str, float]:
    """Returns the metrics of a task in results of lmms-eval, without standard errors."""
    found = {key.removesuffix(",none"): value for key, value in results["results"][name].items()}
    return {key: value for key, value in found.items() if key != "alias" and "stderr" not in key}


def test_entry_point_gives_a_class_for_each_type_of_task():
    from lmms_eval.models import get_model

    assert (get_model("vilau").__name__, get_model("vilau").is_simple) == ("VilaUChat", False)
    assert (get_model("vilau", True).__name__, get_model("vilau", True).is_simple) == ("VilaUSimple", True)


def test_command_answers_in_two_processes_as_vilau_evaluate_in_one(folder, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m", "lmms_eval"]
    command += ["--model", "vilau", "--model_args", f"pretrained={TINY_CHECKPOINT}"]
    command += ["--tasks", "vilau_shapes_questions", "--include_path", str(folder), "--batch_size", "2"]
    command += ["--output_path", str(tmp_path / "out"), "--log_samples"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    (path,) = (tmp_path / "out").glob("**/*_results.json")
    assert scores(json.loads(path.read_text()), "vilau_shapes_questions") == own_scores("shapes-questions")
    (path,) = (tmp_path / "out").glob("**/*_samples_vilau_shapes_questions.jsonl")
    assert len(path.read_text().splitlines()) == NUM_DOCUMENTS


def test_draws_what_vilau_evaluate_draws_and_nothing_twice(tasks, tmp_path):
    settings = f"output_dir={tmp_path / 'out'}"
    first = evaluate(tasks, ["vilau_shapes_text_to_image"], settings)
    assert scores(first, "vilau_shapes_text_to_image") == own_scores("shapes-text-to-image")
    images = sorted((tmp_path / "out" / "vilau_shapes_text_to_image").iterdir())
    assert [path.name for path in images] == ["0000_s0.png", "0001_s0.png", "0002_s0.png"]
    times = [path.stat().st_mtime_ns for path in images]
    again = evaluate(tasks, ["vilau_shapes_text_to_image"], settings)
    assert scores(again, "vilau_shapes_text_to_image") == scores(first, "vilau_shapes_text_to_image")
    assert [path.stat().st_mtime_ns for path in images] == times
    with pytest.raises(ValueError, match="`seed` \\(0 there, 1 now\\)"):
        evaluate(tasks, ["vilau_shapes_text_to_image"], f"{settings},seed=1")


def test_repeats_draw_other_images(tasks, tmp_path):
    settings = f"output_dir={tmp_path / 'out'},visual_top_p=1.0"
    evaluate(tasks, ["vilau_shapes_text_to_image"], settings, repeats=2, limit=1)
    first, second = sorted((tmp_path / "out" / "vilau_shapes_text_to_image").iterdir())
    assert (first.name, second.name) == ("0000_s0.png", "0000_s1.png")
    assert first.read_bytes() != second.read_bytes()


def test_chooses_answers_by_their_log_probability(tasks):
    results = evaluate(tasks, ["vilau_shapes_questions_choice"], "", force_simple=True)
    assert scores(results, "vilau_shapes_questions_choice") == {"acc": 1.0}
    sample = results["samples"]["vilau_shapes_questions_choice"][0]
    best = min(sample["filtered_resps"])
    assert sample["doc"]["choices"][sample["filtered_resps"].index(best)] == "red"
    assert best[0] > 0
    assert best[1]


@pytest.mark.parametrize("force_simple", [False, True])
def test_answers_in_rounds(tasks, force_simple):
    results = evaluate(tasks, ["rounds"], "mode=understanding", force_simple=force_simple)
    assert scores(results, "rounds") == {"answers": 2, "first": 1}
    assert results["samples"]["rounds"][0]["filtered_resps"][0][1] in SHAPES


def test_draws_before_it_answers(tasks, tmp_path):
    settings = f"output_dir={tmp_path / 'out'}"
    results = evaluate(tasks, ["draws_first"], settings, force_simple=True)
    assert scores(results, "draws_first")["answers"] == 1
    assert len(list((tmp_path / "out" / "draws_first").iterdir())) == NUM_DOCUMENTS


def test_vilau_evaluate_runs_tasks_of_all_modes_without_settings(folder, tmp_path, monkeypatch):
    from vilau_hf.cli import main

    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    names = ["questions", "text_to_image", "edits", "text_to_video"]
    tasks = [f"lmms:vilau_shapes_{name}" for name in names]
    options = ["--samples", "2", "--batch-size", "2", "--lmms-args", f"--include_path {folder}"]
    main(["evaluate", *tasks, "--out", str(tmp_path / "out"), *options])
    found = json.loads((tmp_path / "out" / "results.json").read_text())["tasks"]
    assert set(found["lmms:vilau_shapes_questions"]["scores"]) == {"right"}
    assert set(found["lmms:vilau_shapes_edits"]["scores"]) >= {"right", "recolor"}
    assert set(found["lmms:vilau_shapes_text_to_video"]["scores"]) == {"direction", "color", "shape", "all"}
    outputs = tmp_path / "out" / "lmms-eval" / "outputs"
    files = sorted(path.relative_to(outputs).as_posix() for path in outputs.glob("*/*"))
    assert files == [
        "vilau_shapes_edits/0000_s0.png",
        "vilau_shapes_edits/0001_s0.png",
        "vilau_shapes_text_to_image/0000_s0.png",
        "vilau_shapes_text_to_image/0001_s0.png",
        "vilau_shapes_text_to_video/0000_s0.mp4",
        "vilau_shapes_text_to_video/0001_s0.mp4",
    ]


def test_rejects_a_mode_that_contradicts_that_of_a_task(tasks, tmp_path):
    with pytest.raises(ValueError, match="needs `mode=generate`, got `mode=edit`"):
        evaluate(tasks, ["vilau_shapes_text_to_image"], f"mode=edit,output_dir={tmp_path / 'out'}", limit=1)
    with pytest.raises(ValueError, match="vilau_shapes_text_to_image need `output_dir`"):
        evaluate(tasks, ["vilau_shapes_text_to_image"], "", limit=1)


def test_rejects_unknown_arguments():
    from lmms_eval.models import get_model

    with pytest.raises(ValueError, match="unknown `--model_args`: cfg"):
        get_model("vilau").create_from_arg_string("cfg=3", {"batch_size": 1})
    with pytest.raises(ValueError, match="`--batch_size` must be an integer of at least 1, got 'auto'"):
        get_model("vilau").create_from_arg_string("", {"batch_size": "auto"})


TEXTS = {name: Value("string") for name in ("question", "answer", "question_id")}


def stub_datasets(shapes) -> dict[str, DatasetDict]:
    """Returns rows in the schemas of published tasks, by the paths of their datasets."""
    questions = ["Is the shape red?", "Is the shape blue?", "Is the shape green?", "Is it a cross?"]
    rows = [
        {"image": shapes[n % 3], "question": text, "answer": ("yes", "no")[n % 2], "question_id": str(n // 2)}
        for n, text in enumerate(questions)
    ]
    image = {"image": Image()}
    choices = {
        f"choice_{letter}": word for letter, word in zip("abcd", ("red", "blue", "green", "black"), strict=True)
    }
    seed = {"question": "What color is the shape?", **choices, "data_type": "image"}
    seed_rows = [
        {**seed, "image": [shapes[n]], "answer": answer, "question_id": str(n)} for n, answer in enumerate("ABC")
    ]
    gqa_rows = [{"id": str(n), "imageId": str(n), "question": rows[0]["question"], "answer": "yes"} for n in range(3)]
    video = {"video_name": "0", "question": "what color is the shape", "answer": "red", "type": "4"}
    gqa = Dataset.from_list(gqa_rows)
    gqa_images = Dataset.from_list(
        [{"id": str(n), "image": shapes[n]} for n in range(3)], features=Features({"id": Value("string"), **image})
    )
    return {
        # two questions about each image, as MME demands
        "lmms-lab-encoder/MME": DatasetDict(
            test=Dataset.from_list(
                [{**row, "category": "color"} for row in rows],
                features=Features({**image, **TEXTS, "category": Value("string")}),
            )
        ),
        "lmms-lab-encoder/POPE": DatasetDict(test=Dataset.from_list(rows[:3], features=Features({**image, **TEXTS}))),
        "lmms-lab-encoder/SEED-Bench": DatasetDict(
            test=Dataset.from_list(
                seed_rows,
                features=Features(
                    {"image": List(Image()), **TEXTS, "data_type": Value("string")}
                    | {name: Value("string") for name in choices}
                ),
            )
        ),
        "lmms-lab-encoder/GQA": DatasetDict(testdev=gqa, images=gqa_images),
        "lmms-eval/ActivityNetQA": DatasetDict(test=Dataset.from_list([video] * 3)),
    }


@pytest.fixture
def offline_hub(monkeypatch, tmp_path, shapes):
    """Lets `datasets.load_dataset` return stub datasets, and puts a video where ActivityNet-QA looks for it."""
    import datasets

    from vilau_hf.evaluation.media_files import save_video

    real = datasets.load_dataset
    stubs = stub_datasets(shapes)

    def load_dataset(path, name=None, split=None, **options):
        if path not in stubs:
            return real(path, name, split=split, **options)
        # GQA has its images in a second dataset of the same path.
        return stubs[path]["images"] if name == "testdev_balanced_images" else stubs[path]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    videos = tmp_path / "activitynetqa" / "all_test"
    videos.mkdir(parents=True)
    save_video([shapes[0]] * 6, videos / "v_0.mp4", ".mp4")


def test_answers_published_tasks(tasks, offline_hub):
    results = evaluate(tasks, ["mme", "pope", "seedbench", "gqa"], "mode=understanding")
    assert 0 <= scores(results, "mme")["mme_perception_score"] <= 200
    assert set(scores(results, "pope")) >= {"pope_accuracy", "pope_f1_score", "pope_yes_ratio"}
    assert 0 <= scores(results, "seedbench")["seed_image"] <= 1
    assert 0 <= scores(results, "gqa")["exact_match"] <= 1
    assert {name: len(samples) for name, samples in results["samples"].items()} == {
        "mme": 4,
        "pope": 3,
        "seedbench": 3,
        "gqa": 3,
    }


def test_answers_questions_about_videos(tasks, offline_hub):
    # Its metric asks a model of OpenAI, so only the answers are made.
    results = evaluate(tasks, ["activitynetqa"], "mode=understanding", predict_only=True)
    answers = [sample["filtered_resps"] for sample in results["samples"]["activitynetqa"]]
    assert len(answers) == 3
    assert all(isinstance(text, str) and text for (text,) in answers)


def test_scores_the_answers_of_seedbench(tasks, offline_hub):
    results = evaluate(tasks, ["seedbench_ppl"], "mode=understanding", force_simple=True)
    assert 0 <= scores(results, "seedbench_ppl")["acc"] <= 1
