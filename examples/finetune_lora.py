"""Teaches a model of drawn shapes a new shape, a ring, in two minutes on a CPU.

python examples/finetune_lora.py --out ring

The attention and MLP layers of the language model get low-rank adapters. The projector and the depth transformer are
trained in full, and the vision tower is frozen. A quarter of the samples are old drawings, so the model keeps those.
`ring/before_and_after.png` shows true rings beside the model's images for their captions, before and after training.
"""

import argparse
import random
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import set_seed
from transformers.utils import logging

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUPipeline, VilaUProcessor
from vilau_hf.data import VilaUDataCollator
from vilau_hf.drawn import drawn_shapes
from vilau_hf.drawn.shapes import BACKGROUNDS, COLORS, PLACES, SIZES, drawings, render
from vilau_hf.evaluation.metrics import psnr
from vilau_hf.evaluation.sheets import beside, contact_sheet, enlarge, to_pil
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("ring"), help="folder for the adapter and the images")
parser.add_argument("--steps", type=int, default=240, help="number of optimizer steps (default: %(default)s)")
parser.add_argument("--seed", type=int, default=0, help="seed for data, training and sampling (default: %(default)s)")
args = parser.parse_args()
set_seed(args.seed)
logging.set_verbosity_error()

circles = [drawing for drawing in drawings("train") if drawing.shape == "circle"]


def caption_of(circle):
    return circle.caption.replace("circle", "ring")


def draw_rings(circles, seed):
    """Draws circles with a hole of half their radius, uint8 of shape `(N, 3, 32, 32)`."""
    noise = torch.rand(len(circles), 2, generator=torch.Generator().manual_seed(seed)) - 0.5
    centers = torch.tensor([PLACES[circle.place] for circle in circles]) + 0.06 * noise
    radii = torch.tensor([SIZES[circle.size] for circle in circles])
    colors = torch.tensor([COLORS[circle.color] for circle in circles], dtype=torch.float32)
    grounds = torch.tensor([BACKGROUNDS[circle.background] for circle in circles], dtype=torch.float32)
    shapes = ["circle"] * len(circles)
    discs = render(shapes, colors, grounds, centers, radii, side=32).float()
    white, black = torch.full_like(colors, 255), torch.zeros_like(colors)
    hole = render(shapes, white, black, centers, radii / 2, side=32) / 255
    return (discs * (1 - hole) + grounds[:, :, None, None] * hole).round().to(torch.uint8)


def ring_record(circle, seed):
    ring = to_pil(draw_rings([circle], seed)[0])
    question = "what shape is it?"
    answer = "ring"
    image = {"type": "image"}
    text = [{"type": "text", "text": caption_of(circle)}]
    turns = (
        (text, [image])
        if seed % 5
        else ([image, {"type": "text", "text": question}], [{"type": "text", "text": answer}])
    )
    messages = [{"role": role, "content": content} for role, content in zip(("user", "assistant"), turns, strict=True)]
    return {"messages": messages, "images": [ring], "videos": []}


# Only large rings: the hole of a small one has too few pixels. Six of them are kept for the sheet.
large = [circle for circle in circles if circle.size == "large"]
random.Random(args.seed).shuffle(large)
shown = large[:6]
taught = large[6:]
count = 32 * args.steps
old = drawn_shapes("train", count, tasks={"text_to_image": 2, "image_to_text": 1}, seed=args.seed)
choice = random.Random(args.seed)
rows = [{"index": index, "ring": choice.randrange(len(taught)) if index % 4 else -1} for index in range(count)]


def read(batch):
    records = [
        ring_record(taught[ring], index)
        if ring >= 0
        else {name: old[index][name] for name in ("messages", "images", "videos")}
        for index, ring in zip(batch["index"], batch["ring"], strict=True)
    ]
    return {name: [record[name] for record in records] for name in records[0]}


model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)


def draw_captions(model):
    pipe = VilaUPipeline(model.eval(), processor)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(args.seed)
    images = pipe([caption_of(circle) for circle in shown], generator=generator, output_type="pt").images
    return (images * 255).round().to(torch.uint8)


truth = draw_rings(shown, seed=0)
before = draw_captions(model)
adapted = get_peft_model(
    model,
    LoraConfig(
        r=16,
        lora_alpha=32,
        target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        modules_to_save=["multi_modal_projector", "depth_transformer"],
    ),
)
trainer = VilaUTrainer(
    model=adapted,
    args=VilaUTrainingArguments(
        output_dir=str(args.out / "run"),
        max_steps=args.steps,
        per_device_train_batch_size=32,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, args.steps // 20),
        logging_steps=max(1, args.steps // 10),
        save_strategy="no",
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        bf16=True,
        seed=args.seed,
    ),
    train_dataset=Dataset.from_list(rows).with_transform(read),
    data_collator=VilaUDataCollator(processor, seed=args.seed),
)
trainer.train()
adapted.save_pretrained(args.out)
after = draw_captions(adapted.merge_and_unload())

rows = [
    beside(beside(enlarge(a, 128), enlarge(b, 128)), enlarge(c, 128))
    for a, b, c in zip(truth, before, after, strict=True)
]
captions = [f"{caption_of(circle)}: truth, before, after" for circle in shown]
contact_sheet(rows, captions, [True] * len(rows), columns=2).save(args.out / "before_and_after.png")
print(f"PSNR to true rings: {psnr(before, truth, 255):.1f} dB before, {psnr(after, truth, 255):.1f} dB after")
print(f"adapter and before_and_after.png are in {args.out.resolve()}")
