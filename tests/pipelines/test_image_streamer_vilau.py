from threading import Thread

import numpy as np
import pytest
import torch
from transformers import TextIteratorStreamer, TextStreamer

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUImageStreamer, VilaUProcessor


CAPTIONS = [
    "a small red cross at the bottom on a white background",
    "a large blue circle in the center on a black background",
]


@pytest.fixture(scope="module")
def tiny():
    return (
        VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval(),
        VilaUProcessor.from_pretrained(TINY_CHECKPOINT),
    )


def stream(tiny, every, **settings):
    model, processor = tiny
    texts = [
        processor.apply_chat_template([{"role": "user", "content": caption}], add_generation_prompt=True)
        for caption in CAPTIONS
    ]
    settings = {**processor(text=texts, return_tensors="pt"), "do_sample": False, **settings}
    streamer, result = VilaUImageStreamer(model, processor, every=every, timeout=60), []
    thread = Thread(target=lambda: result.append(model.generate(**settings, streamer=streamer)))
    thread.start()
    previews = list(streamer)
    thread.join()
    return previews, result[0]


def test_previews_end_in_the_pictures_that_are_drawn(tiny):
    model, processor = tiny
    previews, codes = stream(tiny, every=24, generation_mode="image")
    assert [len(images) for images in previews] == [2, 2, 2]  # after 24, 48 and all 64 positions
    final = processor.post_process_multimodal_output(model.decode_image_tokens(codes), generation_mode="image")
    for image, expected in zip(previews[-1], final, strict=True):
        assert np.array_equal(np.array(image), np.array(expected))
    upper = np.array(previews[1][1])[:16].astype(int) - np.array(final[1])[:16]
    assert abs(upper).mean() < 12  # what is drawn looks as it will


def test_each_frame_of_a_video_is_shown(tiny):
    previews, codes = stream(tiny, every=64, generation_mode="video", num_frames=3)
    assert len(previews) == codes.shape[1] == 3


@pytest.fixture
def story(tiny):
    """Arguments of `generate` for a story with pictures in it."""
    messages = [{"role": "user", "content": "tell a story of a yellow circle"}]
    inputs = tiny[1].apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    settings = {"generation_mode": "interleaved", "do_sample": False, "visual_do_sample": False}
    return {**inputs, **settings, "max_visual_spans": 2, "max_new_tokens": 240}


def text_of(processor, output):
    """The text of the only row, markers and all, without the visual tokens."""
    is_text = (output.visual_codes[0, :, 0] < 0) & (torch.arange(output.sequences.shape[1]) >= output.prompt_length)
    return processor.tokenizer.decode(output.sequences[0][is_text])


def test_text_between_pictures_goes_to_the_streamers_of_the_library(tiny, story, capsys):
    model, processor = tiny
    output = model.generate(**story, streamer=TextStreamer(processor.tokenizer, skip_prompt=True))
    assert len(output.spans[0]) > 0
    assert capsys.readouterr().out.strip() == text_of(processor, output).strip()
    with pytest.raises(ValueError, match=r'needs a method `put_visual\(codes\)` for `generation_mode="image"`'):
        model.generate(story["input_ids"], generation_mode="image", streamer=TextStreamer(processor.tokenizer))


def test_text_and_previews_stream_at_once(tiny, story):
    model, processor = tiny
    text = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, timeout=60)
    streamer = VilaUImageStreamer(model, processor, every=64, timeout=60, text_streamer=text)
    outputs = []
    thread = Thread(target=lambda: outputs.append(model.generate(**story, streamer=streamer)))
    thread.start()
    previews, words = list(streamer), "".join(text)
    thread.join()
    assert words.strip() == text_of(processor, outputs[0]).strip()
    spans = model.decode_visual_spans(outputs[0].spans)[0]
    assert len(previews) == len(spans)
    for images, span in zip(previews, spans, strict=True):
        assert np.array_equal(
            np.array(images[0]), np.array(processor.image_processor.postprocess(span.pixels[None])[0])
        )


def test_it_takes_positions_that_make_sense(tiny):
    with pytest.raises(ValueError, match="`every` must be at least 1, got 0"):
        VilaUImageStreamer(*tiny, every=0)


def test_codes_so_far_can_be_shown(tiny):
    model, _ = tiny
    streamer = VilaUImageStreamer(*tiny)
    codes = torch.randint(0, 256, (2, 5, 4))
    assert [image.size for image in streamer.preview(codes)] == [(32, 32)] * 2
