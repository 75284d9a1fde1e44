import numpy as np
import pytest
import torch
from PIL import Image

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.drawn.shapes import Drawing, draw
from vilau_hf.evaluation.sheets import to_pil
from vilau_hf.integrations.lmms_generation import PromptModel
from vilau_hf.integrations.lmms_prompts import Prompt, user_turn


DRAWINGS = [
    Drawing("red", "cross", "small", "bottom", "white"),
    Drawing("blue", "circle", "large", "center", "black"),
    Drawing("green", "square", "small", "left", "gray"),
]


@pytest.fixture(scope="session")
def tiny() -> PromptModel:
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()
    return PromptModel(model, VilaUProcessor.from_pretrained(TINY_CHECKPOINT))


@pytest.fixture(scope="session")
def shapes() -> list[Image.Image]:
    return [to_pil(image) for image in draw(DRAWINGS)]


@pytest.fixture(scope="session")
def questions(shapes) -> list[Prompt]:
    """Returns a question about each drawing; the last has no image."""
    text = "what color is the shape?"
    content = [{"type": "image"}, {"type": "text", "text": text}]
    return [*(Prompt(user_turn(content), [image]) for image in shapes), caption_prompt("describe a red cross")]


def caption_prompt(text: str) -> Prompt:
    """Returns a prompt of text alone."""
    return Prompt(user_turn([{"type": "text", "text": text}]))


@pytest.fixture
def video_file(tmp_path):
    """Writes a video of two seconds: twelve plain frames, each lighter than the one before."""
    av = pytest.importorskip("av")
    path = tmp_path / "grey.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=6)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for index in range(12):
            array = np.full((32, 32, 3), 20 * index + 10, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    return path


def levels(frames: np.ndarray) -> list[int]:
    """Returns the index of each frame in the video of `video_file`."""
    return [round((float(frame.mean()) - 10) / 20) for frame in torch.from_numpy(frames).float()]
