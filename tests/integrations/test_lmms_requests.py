import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vilau_hf.integrations import lmms_requests
from vilau_hf.integrations.lmms_requests import NextRound, RepetitionCounter, Request, RequestRunner
from vilau_hf.integrations.lmms_settings import AdapterSettings
from vilau_hf.integrations.lmms_store import OutputStore

from .conftest import DRAWINGS, caption_prompt


def runner(tiny, folder: Path | None = None, batch_size: int = 2, **settings) -> RequestRunner:
    """Returns a runner whose outputs are in `folder`."""
    chosen = AdapterSettings("tiny", **settings)
    store = None if folder is None else OutputStore(folder)
    if store is not None:
        store.begin(chosen.to_dict())
        store.read()
    return RequestRunner(tiny, chosen, store, batch_size, shows_progress=False)


def requests_of(prompts, **fields) -> list[Request]:
    """Returns a request for each prompt."""
    return [
        Request("task", "test", index, prompt.text, lambda prompt=prompt: prompt, **{"settings": {}, **fields})
        for index, prompt in enumerate(prompts)
    ]


def forbidden():
    """Fails where a finished request is run again."""
    raise AssertionError("the request was finished")


def test_answers_come_in_the_order_of_the_requests(tiny, questions):
    requests = requests_of(questions[:3])
    requests[1] = replace(requests[1], settings={"max_new_tokens": 1})
    answers = runner(tiny).run(requests)
    assert answers[0] == "red"
    assert answers[2] == "green"
    assert answers == runner(tiny, batch_size=1).run(requests)


def test_padding_gets_an_empty_answer_and_runs_nothing(tiny, questions):
    request = replace(requests_of(questions[:1])[0], is_padding=True, make_prompt=forbidden)
    assert runner(tiny).run([request]) == [""]


def test_draws_images_once(tiny, tmp_path):
    prompts = [caption_prompt(drawing.caption) for drawing in DRAWINGS[:2]]
    first = runner(tiny, tmp_path / "out", num_images=2, seed=4).run(requests_of(prompts, mode="generate"))
    paths = [json.loads(response)["images"] for response in first]
    assert [[Path(path).name for path in row] for row in paths] == [
        ["0000_s0.png", "0000_s1.png"],
        ["0001_s0.png", "0001_s1.png"],
    ]
    again = runner(tiny, tmp_path / "out", num_images=2, seed=4)
    finished = [replace(request, make_prompt=forbidden) for request in requests_of(prompts, mode="generate")]
    assert again.run(finished) == first
    (image,) = tiny.draw(prompts[1:], "image", [5])  # the seed of document 1
    assert Image.open(paths[1][0]).tobytes() == image.tobytes()


def test_an_interrupted_run_draws_the_rest(tiny, tmp_path):
    requests = requests_of([caption_prompt(drawing.caption) for drawing in DRAWINGS], mode="generate")
    whole = runner(tiny, tmp_path / "whole", batch_size=3, output_form="folder")
    part = runner(tiny, tmp_path / "part", batch_size=1, output_form="folder")
    assert whole.run(requests) == [str(tmp_path / "whole" / "task")] * 3
    part.run(requests[:1])
    rest = [replace(requests[0], make_prompt=forbidden), *requests[1:]]
    runner(tiny, tmp_path / "part", batch_size=2, output_form="folder").run(rest)
    for path in sorted((tmp_path / "whole" / "task").iterdir()):
        assert path.read_bytes() == (tmp_path / "part" / "task" / path.name).read_bytes()


def test_repetitions_of_a_document_have_other_images(tiny, tmp_path):
    counter = RepetitionCounter()
    (request,) = requests_of([caption_prompt("a red cross")], mode="generate")
    requests = [replace(request, sample=counter.number("task", 0)) for _ in range(2)]
    first, second = runner(tiny, tmp_path, output_form="path").run(requests)
    assert [Path(first).name, Path(second).name] == ["0000_s0.png", "0000_s1.png"]
    assert Path(first).read_bytes() != Path(second).read_bytes()
    assert counter.number("task", 1) == 0


def test_videos_are_files(tiny, tmp_path):
    requests = requests_of([caption_prompt("a large red cross moving left on a white background")], mode="video")
    (path,) = runner(tiny, tmp_path, num_frames=2).run(requests)
    assert path == str(tmp_path / "task" / "0000_s0.mp4")
    assert Path(path).stat().st_size > 0


def test_draws_before_it_answers(tiny, questions, tmp_path):
    tagged = "[GEN_PROMPT]turn it blue[/GEN_PROMPT][QUESTION]what color is the shape?[/QUESTION]"
    prompt = questions[0]
    prompt = replace(
        prompt, messages=[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": tagged}]}]
    )
    requests = requests_of([prompt], kind="generate_visual_cot")
    (answer,) = runner(tiny, tmp_path).run(requests)
    assert not answer.startswith("{")
    assert (tmp_path / "task" / "0000_s0.png").is_file()
    (plain,) = runner(tiny, tmp_path / "plain").run(requests_of(questions[:1], mode="visual_cot"))
    assert not plain.startswith("{")


def test_asks_all_rounds_of_each_request(tiny, questions, monkeypatch):
    def next_round(number, outputs, info):
        assert info == (None if number == 1 else number - 1)
        if number == last:
            return NextRound(None, [f"round {index}: {text}" for index, text in enumerate(outputs)])
        return NextRound(questions[number], outputs, number)

    last = 3
    requests = requests_of(questions[:1], kind="generate_until_multi_round", next_round=next_round)
    assert runner(tiny).run(requests) == [["round 0: red", "round 1: blue", "round 2: green"]]
    monkeypatch.setattr(lmms_requests, "MAX_ROUNDS", 2)
    with pytest.raises(ValueError, match="task 'task' asks for more than 2 rounds"):
        runner(tiny).run(requests)


def test_rejects_prompts_that_do_not_fit_the_mode(tiny, questions, tmp_path):
    with pytest.raises(ValueError, match="document 0 of task has an image.*mode=generate`.*mode=edit"):
        runner(tiny, tmp_path / "a").run(requests_of(questions[:1], mode="generate"))
    with pytest.raises(ValueError, match="document 0 of task has no image.*mode=edit`.*mode=generate"):
        runner(tiny, tmp_path / "b").run(requests_of([caption_prompt("a red cross")], mode="edit"))


def test_each_task_of_a_run_has_its_mode(tiny, questions, tmp_path):
    drawing = requests_of([caption_prompt("a red cross")], mode="generate")[0]
    requests = [*requests_of(questions[:2]), replace(drawing, task="drawing")]
    first, second, drawn = runner(tiny, tmp_path, batch_size=3).run(requests)
    assert [first, second] == ["red", "blue"]
    assert json.loads(drawn)["images"] == [str(tmp_path / "drawing" / "0000_s0.png")]


def test_another_mode_is_another_request(tiny, questions):
    (request,) = requests_of(questions[:1])
    assert request.key != replace(request, mode="visual_cot").key


def test_rounds_are_answers_in_each_mode(tiny, questions):
    (request,) = requests_of(questions[:1], kind="generate_until_multi_round", mode="visual_cot")
    assert not request.draws
    assert runner(tiny).run([request]) == [["red"]]


def test_rejects_drawing_without_a_folder(tiny, questions):
    with pytest.raises(ValueError, match="`mode=generate` needs `output_dir`"):
        runner(tiny, mode="generate")
    requests = requests_of(questions[:1], kind="generate_visual_cot")
    with pytest.raises(ValueError, match="task need `output_dir`, the folder of images and videos, got none"):
        runner(tiny).run(requests)


def test_rejects_image_guidance_of_tasks_without_given_images(tiny, questions, tmp_path):
    requests = [replace(request, make_prompt=forbidden) for request in requests_of(questions[:1])]
    with pytest.raises(ValueError, match="`image_guidance_scale` needs `mode=\"edit\"`, got 'understanding'"):
        runner(tiny, tmp_path, visual={"image_guidance_scale": 2.0}).run(requests)
