"""The package without torchvision: everything but videos and the any-to-any task works."""

import subprocess
import sys


SCRIPT = """
import sys

sys.modules["torchvision"] = None  # as if it were not installed
import numpy as np
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, pipeline
from transformers.utils import is_torchvision_available

import vilau_hf
from vilau_hf import TINY_CHECKPOINT

assert not is_torchvision_available()
assert type(AutoModel.from_pretrained(TINY_CHECKPOINT)) is vilau_hf.VilaUForConditionalGeneration
assert type(AutoImageProcessor.from_pretrained(TINY_CHECKPOINT)) is vilau_hf.VilaUImageProcessorPil
processor = AutoProcessor.from_pretrained(TINY_CHECKPOINT)
assert type(processor) is vilau_hf.VilaUProcessor

caption = "a large blue circle in the center on a black background"
image = pipeline("text-to-image")(caption, do_sample=False)[0]["generated_image"]
assert vilau_hf.VilaUPipeline.from_pretrained(TINY_CHECKPOINT)(caption, do_sample=False).images[0] == image
assert len(pipeline("text-to-video")(caption, num_frames=2)[0]["generated_video"]) == 2
content = [{"type": "image", "image": image}, {"type": "text", "text": "what color is the shape?"}]
ask = pipeline("image-text-to-text", model=TINY_CHECKPOINT)
answer = ask(text=[{"role": "user", "content": content}], return_full_text=False)[0]["generated_text"]
classify = pipeline("zero-shot-image-classification", model=f"{TINY_CHECKPOINT}/tower")
assert answer.strip() == "blue" == classify(image, candidate_labels=["red", "blue", "green"])[0]["label"]
try:
    processor(text="<video>", videos=[np.zeros((2, 8, 8, 3), np.uint8)])
except ImportError as error:
    assert "VilaUVideoProcessor requires the Torchvision library" in str(error)
else:
    raise AssertionError("videos were processed")
"""


def test_images_and_text_need_no_torchvision():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
