"""Previews in notebooks, in a shell of IPython."""

import numpy as np
import pytest

from vilau_hf import TINY_CHECKPOINT, VilaUPipeline
from vilau_hf.drawn import drawn_shapes


pytest.importorskip("IPython")
from IPython.core.displaypub import CapturingDisplayPublisher  # noqa: E402
from IPython.core.interactiveshell import InteractiveShell  # noqa: E402

from vilau_hf.notebook import NotebookPreview  # noqa: E402


CROSS = "a small red cross at the bottom on a white background"
CIRCLE = "a large blue circle in the center on a black background"


@pytest.fixture(scope="module")
def pipe():
    pipe = VilaUPipeline.from_pretrained(TINY_CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def shell():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def outputs_of(call):
    """Runs `call` and returns its result and the pages that it shows, each with whether it replaces the one before."""
    shell = InteractiveShell.instance()
    publisher, shell.display_pub = shell.display_pub, CapturingDisplayPublisher()
    try:
        result = call()
    finally:
        captured, shell.display_pub = shell.display_pub, publisher
    ids = {output["transient"]["display_id"] for output in captured.outputs}
    pages = [(output["data"]["text/html"], output["update"]) for output in captured.outputs]
    return result, pages, len(ids)


def prompt(pipe, *captions, **settings):
    texts = [
        pipe.processor.apply_chat_template([{"role": "user", "content": caption}], add_generation_prompt=True)
        for caption in captions
    ]
    return {**pipe.processor(text=texts, return_tensors="pt"), "seed": 0, **settings}


def test_a_pipeline_updates_its_images_in_place(pipe, shell):
    preview = NotebookPreview(pipe.model, pipe.processor, every=32)
    output, pages, num_outputs = outputs_of(lambda: pipe([CROSS, CIRCLE], callback_on_step_end=preview))
    assert num_outputs == 1 and [replaces for _, replaces in pages] == [False, True]
    assert [page.count("<img") for page, _ in pages] == [2, 2] and pages[0] != pages[1]
    for image, shown in zip(output.images, preview.current, strict=True):
        assert np.array_equal(image, shown)
    _, _, num_outputs = outputs_of(lambda: pipe(CROSS, callback_on_step_end=preview))
    assert num_outputs == 1 and len(preview.current) == 1  # the second call has its own output


def test_a_pipeline_shows_the_frames_of_a_video_one_after_another(pipe, shell):
    preview = NotebookPreview(pipe.model, pipe.processor, every=64)
    output, pages, _ = outputs_of(lambda: pipe(CROSS, num_frames=2, callback_on_step_end=preview))
    assert [page.count("<img") for page, _ in pages] == [1, 2]
    shown = [part["image"] for part in preview.finished] + preview.current
    assert all(np.array_equal(a, b) for a, b in zip(output.frames[0], shown, strict=True))


def test_generate_shows_images(pipe, shell):
    preview = NotebookPreview(pipe.model, pipe.processor, every=64)
    arguments = prompt(pipe, CROSS, CIRCLE, generation_mode="image", streamer=preview)
    codes, pages, num_outputs = outputs_of(lambda: pipe.model.generate(**arguments))
    expected = pipe.processor.post_process_multimodal_output(
        pipe.model.decode_image_tokens(codes), generation_mode="image"
    )
    assert num_outputs == 1 and [page.count("<img") for page, _ in pages] == [2, 2]
    shown = [part["image"] for part in preview.finished]
    assert all(np.array_equal(a, b) for a, b in zip(expected, shown, strict=True))


def test_generate_shows_texts_and_images_in_order(pipe, shell):
    preview = NotebookPreview(pipe.model, pipe.processor, every=64)
    request = prompt(pipe, "tell a story of a yellow circle", generation_mode="interleaved", streamer=preview)
    arguments = {**request, "max_visual_spans": 1, "max_new_tokens": 110}
    output, pages, num_outputs = outputs_of(lambda: pipe.model.generate(**arguments))
    pipe.model.decode_visual_spans(output.spans)
    (answer,) = pipe.processor.post_process_multimodal_output(output, generation_mode="interleaved")
    assert num_outputs == 1 and "USER" not in pages[-1][0]
    assert [part["type"] for part in preview.finished] == [part["type"] for part in answer]
    assert preview.finished[0] == answer[0]
    assert len(pages) > 5 and all(len(a) <= len(b) for (a, _), (b, _) in zip(pages, pages[1:], strict=False))


def test_generate_shows_an_answer_about_an_image(pipe, shell):
    preview = NotebookPreview(pipe.model, pipe.processor)
    image = drawn_shapes("test", 1, tasks={"text_to_image": 1})[0]["images"][0]
    content = [{"type": "image", "image": image}, {"type": "text", "text": "describe the image"}]
    inputs = pipe.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    _, pages, _ = outputs_of(lambda: pipe.model.generate(**inputs, streamer=preview))
    assert "background" in pages[-1][0] and "<img" not in pages[-1][0]


def test_an_error_leaves_the_preview_ready_for_the_next_call(pipe, shell):
    preview = NotebookPreview(pipe.model, pipe.processor, every=64)

    def fail():
        with pytest.raises(ValueError):
            pipe.model.generate(**prompt(pipe, CROSS, generation_mode="image", streamer=preview, num_beams=2))

    _, pages, _ = outputs_of(fail)
    assert pages == []
    _, pages, _ = outputs_of(
        lambda: pipe.model.generate(**prompt(pipe, CROSS, generation_mode="image", streamer=preview))
    )
    assert pages[-1][0].count("<img") == 1


def test_outputs_show_themselves_in_a_cell(pipe, shell):
    output = pipe([CROSS, CIRCLE])
    data, _ = shell.display_formatter.format(output)
    assert data["text/html"].count('src="data:image/png') == 2 and "text/plain" in data
    assert shell.display_formatter.format(output.images)[0]["text/html"] == data["text/html"]
    video = pipe(CROSS, num_frames=2)
    assert shell.display_formatter.format(video)[0]["text/html"].count('src="data:image/webp') == 1
    assert "text/html" in shell.display_formatter.format(video.frames[0])[0]
    assert "text/html" not in shell.display_formatter.format(pipe(CROSS, output_type="codes"))[0]


def test_rejects_a_number_of_positions_below_1(pipe):
    with pytest.raises(ValueError, match="`every` must be an integer of at least 1"):
        NotebookPreview(pipe.model, pipe.processor, every=0)
