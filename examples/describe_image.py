"""Answers a question about a picture, in seconds on a CPU.

    python examples/describe_image.py picture.png --question "describe the image"

Without a picture it draws one of its own: the shipped checkpoint knows drawn shapes alone.
"""

import argparse

from PIL import Image, ImageDraw

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor


parser = argparse.ArgumentParser()
parser.add_argument("image", nargs="?", help="file of the picture (default: a large blue square)")
parser.add_argument("--question", default="describe the image")
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
ids = model.generate(**inputs, do_sample=False)
print(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
