"""Teaches a model of drawn shapes a preference for large shapes by DPO, in two minutes on a CPU.

python examples/preference_dpo.py --out large

A caption such as "a red circle" does not name the size. The model draws several images of each such caption. An image
is preferred if it shows the caption's colour and shape, and the shape is large. Every other image makes a pair with a
preferred image of the same caption. The pairs train low-rank adapters by direct preference optimization (Rafailov et
al., 2023, eq. 7). The reference is the model without its adapters.

The table is for captions without training pairs. Beside the preference it shows what else may change: the colour and
shape of each caption, the layout, which no caption names, and images whose caption says "small".
`large/before_and_after.png` shows images before and after training, drawn with the same seed.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import set_seed
from transformers.utils import logging

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUPipeline, VilaUProcessor
from vilau_hf.drawn.oracle import read_drawing
from vilau_hf.drawn.scores_stories import is_shown
from vilau_hf.drawn.shapes import COLORS, SHAPES, drawings
from vilau_hf.evaluation.sheets import beside, contact_sheet, enlarge, to_uint8
from vilau_hf.training import PreferencePairCollator, VilaUDPOTrainer, VilaUDPOTrainingArguments


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("large"), help="folder for the adapter and the images")
parser.add_argument("--steps", type=int, default=40, help="number of optimizer steps (default: %(default)s)")
parser.add_argument("--pairs", type=int, default=12, help="number of pairs in a step (default: %(default)s)")
parser.add_argument(
    "--samples",
    type=int,
    default=32,
    help="number of images of a caption for training; twice as many for measuring (default: %(default)s)",
)
parser.add_argument(
    "--beta", type=float, default=0.1, help="strength of the pull towards the reference (default: %(default)s)"
)
parser.add_argument("--learning-rate", type=float, default=2e-4, help="learning rate (default: %(default)s)")
parser.add_argument("--seed", type=int, default=0, help="seed for sampling and training (default: %(default)s)")
args = parser.parse_args()
set_seed(args.seed)
logging.set_verbosity_error()
choice = random.Random(args.seed)

model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()
processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
pipe = VilaUPipeline(model, processor)
pipe.set_progress_bar_config(disable=True)
collate_with_text = PreferencePairCollator(processor)

# Captions for measuring only: each colour once, each shape once or twice.
held_out = [(color, SHAPES[index % len(SHAPES)]) for index, color in enumerate(COLORS)]
taught = [(color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in held_out]
small = [drawing for drawing in drawings("test") if drawing.size == "small"]


def caption_of(color, shape):
    return f"a {color} {shape}"


def draw(captions, seed):
    """Draws codes `(N, h, w, D)` and images without guidance, because DPO trains the policy without guidance."""
    generator = torch.Generator().manual_seed(seed)
    batches = [captions[begin : begin + 96] for begin in range(0, len(captions), 96)]
    codes = [pipe(batch, guidance_scale=1.0, generator=generator, output_type="codes").images for batch in batches]
    return torch.cat(codes), torch.cat([to_uint8(model.decode_image_tokens(batch)) for batch in codes])


def read_properties(pixels, asked):
    """Reads properties of images with the oracle. `asked` has the colour and shape in the caption of each image."""
    readings = read_drawing(pixels)
    right = [(reading.color, reading.shape) == words for reading, words in zip(readings, asked, strict=True)]
    large = [reading.size == "large" for reading in readings]
    return {
        "preferred: right colour and shape, large": [a and b for a, b in zip(right, large, strict=True)],
        "large": large,
        "right colour and shape": right,
        "in the center (not asked)": [reading.place == "center" for reading in readings],
        "on white (not asked)": [reading.background == "white" for reading in readings],
    }


def record(caption, codes):
    """Makes a record whose answer is an image, given by its codes `(h, w, D)`."""
    messages = [{"role": "user", "content": caption}, {"role": "assistant", "content": [{"type": "image"}]}]
    return {"messages": messages, "codes": [codes.view(1, -1, codes.shape[-1])]}


def make_pairs(asked, codes, preferred):
    """Makes a pair of records for each image that is not preferred, in random order."""
    pairs = []
    for words in dict.fromkeys(asked):
        rows = [row for row, other in enumerate(asked) if other == words]
        chosen = [row for row in rows if preferred[row]]
        rejected = [row for row in rows if not preferred[row]] if chosen else []
        caption = caption_of(*words)
        pairs += [
            {"chosen": record(caption, codes[choice.choice(chosen)]), "rejected": record(caption, codes[row])}
            for row in rejected
        ]
    choice.shuffle(pairs)
    return pairs


def collate(pairs):
    """Collates pairs. Only codes are labelled: `generate` forces the tokens after an image, so they are no choice."""
    batch = collate_with_text(pairs)
    batch["labels"] = batch["labels"].where(model.config.is_visual(batch["labels"]), -100)
    return batch


def measure():
    """Draws images of held-out captions and reads their properties."""
    asked = [words for words in held_out for _ in range(2 * args.samples)]
    codes, pixels = draw([caption_of(*words) for words in asked], seed=args.seed + 1)
    found = read_properties(pixels, asked)
    detailed = (small * args.samples)[: 4 * args.samples]
    readings = read_drawing(draw([drawing.caption for drawing in detailed], seed=args.seed + 2)[1])
    for words in held_out:
        rows = [row for row, other in enumerate(asked) if other == words]
        found[f"- {caption_of(*words)}"] = [found["right colour and shape"][row] for row in rows]
    found['all five right where "small" is asked'] = [
        is_shown(reading, drawing) for reading, drawing in zip(readings, detailed, strict=True)
    ]
    return asked, codes, pixels, found


asked, codes, pixels, before = measure()
preferred = next(iter(before))
unseen = make_pairs(asked, codes, before[preferred])[:64]

asked_taught = [words for words in taught for _ in range(args.samples)]
codes, drawn = draw([caption_of(*words) for words in asked_taught], seed=args.seed + 3)
pairs = make_pairs(asked_taught, codes, read_properties(drawn, asked_taught)[preferred])

adapted = get_peft_model(
    model,
    LoraConfig(
        r=16,
        lora_alpha=32,
        target_modules=r".*language_model.*_proj|.*depth_transformer\.layers.*\.(qkv|proj|fc1|fc2)",
    ),
)
trainer = VilaUDPOTrainer(
    model=adapted,
    args=VilaUDPOTrainingArguments(
        output_dir=str(args.out / "run"),
        beta=args.beta,
        max_steps=args.steps,
        per_device_train_batch_size=args.pairs,
        learning_rate=args.learning_rate,
        weight_decay=0.01,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        # The pairs are in random order already, and each step takes the next ones.
        train_sampling_strategy="sequential",
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        seed=args.seed,
    ),
    train_dataset=[pairs[index % len(pairs)] for index in range(args.steps * args.pairs)],
    data_collator=collate,
)


def score_unseen():
    """Computes the log-probabilities of the chosen and of the rejected images in held-out pairs."""
    with torch.no_grad():
        return trainer.score_pairs(adapted.eval(), collate(unseen))


with adapted.disable_adapter():
    unseen_reference = score_unseen()
trainer.train()
adapted.save_pretrained(args.out)
unseen_policy = score_unseen()
_, _, changed, after = measure()


def share(truths):
    """Computes a share and its standard error over images."""
    mean = sum(truths) / len(truths)
    return mean, (mean * (1 - mean) / len(truths)) ** 0.5


table = {name: {"before": share(before[name]), "after": share(after[name])} for name in before}
print(f"\n{'share of images of held-out captions':40s}  before         after")
for name, row in table.items():
    print(f"{name:40s}", *(f" {mean:.3f} ± {error:.3f}" for mean, error in row.values()))
margins = {
    name: (chosen - rejected).mean().item()
    for name, (chosen, rejected) in (("before", unseen_reference), ("after", unseen_policy))
}
print(
    f"log-probability of a preferred image minus that of another, mean of {len(unseen)} held-out pairs: "
    f"{margins['before']:.1f} before, {margins['after']:.1f} after"
)
results = {"shares": table, "log_probability_margin": margins}
(args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")

shown = range(0, len(asked), max(1, args.samples // 2))  # four of each caption
sheet_rows = [beside(enlarge(pixels[index], 96), enlarge(changed[index], 96)) for index in shown]
captions = [f"{caption_of(*asked[index])}: before, after" for index in shown]
sheet = contact_sheet(sheet_rows, captions, [after[preferred][index] for index in shown], columns=4)
sheet.save(args.out / "before_and_after.png")
print(f"adapter, results.json and before_and_after.png are in {args.out.resolve()}")
