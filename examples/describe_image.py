"""Answers a question about an image, in seconds on a CPU.

    python examples/describe_image.py image.png --question "describe the image"

Without an image, the script draws a square, because the shipped checkpoint knows only drawn shapes.
"""

import argparse

from PIL import Image, ImageDraw

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor


parser = argparse.ArgumentParser()
parser.add_argument("image", nargs="?", help="image file (default: a large blue square)")
parser.add_argument("--question", default="describe the image", help="question (default: %(default)s)")
parser.add_argument("--model", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
args = parser.parse_args()

model = VilaUForConditionalGeneration.from_pretrained(args.model).eval()
processor = VilaUProcessor.from_pretrained(args.model)

image = args.image
if image is None:
    image = Image.new("RGB", (320, 320), (250, 250, 250))
    ImageDraw.Draw(image).rectangle((80, 80, 240, 240), fill=(40, 70, 220))

messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": args.question}]}]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
# greedy decoding gives the most probable answer
ids = model.generate(**inputs, do_sample=False)
# the output begins with the ids of the prompt
print(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
