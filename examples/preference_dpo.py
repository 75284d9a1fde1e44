"""Teaches a model of drawn shapes a preference, large shapes, by some steps of DPO, in two minutes on a CPU.

python examples/preference_dpo.py --out large

A caption such as "a red circle" leaves the size open. The model draws several pictures of each such caption; preferred
are those that show the caption's colour and shape and are large. Every other picture makes a pair with a preferred one
of its caption, and the pairs train low-rank adapters by direct preference optimization (Rafailov et al., 2023, eq. 7).
The reference is the model without its adapters. The table is of captions from which no pair came; beside the
preference it shows what else may move: colour and shape, caption by caption, the layout, which no caption names, and
pictures whose caption says "small". `large/before_and_after.png` shows some of the pictures, both times from the same
seed.
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
from vilau_hf.data import VilaUDataCollator
from vilau_hf.drawn.oracle import read_drawing
from vilau_hf.drawn.scores_stories import is_shown
from vilau_hf.drawn.shapes import COLORS, SHAPES, drawings
from vilau_hf.evaluation.sheets import beside, contact_sheet, enlarge, to_uint8
from vilau_hf.training import dpo_loss


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("large"), help="folder of the adapter and the pictures")
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--pairs", type=int, default=12, help="pairs of a step (default: %(default)s)")
parser.add_argument(
    "--samples", type=int, default=32, help="pictures of a caption to learn from, twice as many to measure"
)
parser.add_argument("--beta", type=float, default=0.1, help="pull towards the reference (default: %(default)s)")
parser.add_argument("--learning-rate", type=float, default=2e-4)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
set_seed(args.seed)
logging.set_verbosity_error()
choice = random.Random(args.seed)

model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()
processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
pipe = VilaUPipeline(model, processor)
pipe.set_progress_bar_config(disable=True)
collate = VilaUDataCollator(processor, unconditional_probability=0)

# Each colour once and each shape once or twice are for measuring alone.
held_out = [(color, SHAPES[index % len(SHAPES)]) for index, color in enumerate(COLORS)]
taught = [(color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in held_out]
small = [drawing for drawing in drawings("test") if drawing.size == "small"]


def caption_of(color, shape):
    return f"a {color} {shape}"


def draw(captions, seed):
    """Codes `(N, h, w, D)` and pictures as the policy draws them, that is without guidance."""
    generator = torch.Generator().manual_seed(seed)
    parts = [captions[begin : begin + 96] for begin in range(0, len(captions), 96)]
    codes = [pipe(part, guidance_scale=1.0, generator=generator, output_type="codes").images for part in parts]
    return torch.cat(codes), torch.cat([to_uint8(model.decode_image_tokens(part)) for part in codes])


def judge(pixels, asked):
    """What the oracle finds in pictures of (colour, shape) captions."""
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


def make_pairs(asked, codes, preferred):
    """`(caption, chosen codes, rejected codes)` for each picture that is not preferred, in random order."""
    pairs = []
    for words in dict.fromkeys(asked):
        rows = [row for row, other in enumerate(asked) if other == words]
        chosen = [row for row in rows if preferred[row]]
        rejected = [row for row in rows if not preferred[row]] if chosen else []
        pairs += [(caption_of(*words), codes[choice.choice(chosen)], codes[row]) for row in rejected]
    choice.shuffle(pairs)
    return pairs


def score(pairs):
    """Log-probabilities of the chosen and of the rejected codes, `(N,)` each."""
    captions, chosen, rejected = zip(*pairs, strict=True)
    records = [
        {
            "messages": [{"role": "user", "content": caption}, {"role": "assistant", "content": [{"type": "image"}]}],
            "codes": [codes.view(1, -1, codes.shape[-1])],
        }
        for caption, codes in zip(captions * 2, chosen + rejected, strict=True)
    ]
    return model.score(**collate(records)).code_log_probs.sum((1, 2)).chunk(2)


def measure():
    """Truths of each property on held-out captions, and the pictures of the short ones."""
    asked = [words for words in held_out for _ in range(2 * args.samples)]
    codes, pixels = draw([caption_of(*words) for words in asked], seed=args.seed + 1)
    found = judge(pixels, asked)
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
pairs = make_pairs(asked_taught, codes, judge(drawn, asked_taught)[preferred])

adapted = get_peft_model(
    model,
    LoraConfig(
        r=16,
        lora_alpha=32,
        target_modules=r".*language_model.*_proj|.*depth_transformer\.layers.*\.(qkv|proj|fc1|fc2)",
    ),
)
with torch.no_grad(), adapted.disable_adapter():
    unseen_reference = score(unseen)
optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=args.learning_rate)
for step in range(args.steps):
    batch = [pairs[(step * args.pairs + index) % len(pairs)] for index in range(args.pairs)]
    with torch.no_grad(), adapted.disable_adapter():
        reference = score(batch)
    output = dpo_loss(*score(batch), *reference, beta=args.beta)
    output.loss.backward()
    torch.nn.utils.clip_grad_norm_(adapted.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if step % 5 == 0 or step == args.steps - 1:
        margin = (output.chosen_rewards - output.rejected_rewards).mean()
        print(f"step {step + 1}: loss {output.loss.item():.3f}, margin of the rewards {margin:.2f}")
adapted.save_pretrained(args.out)

with torch.no_grad():
    unseen_policy = score(unseen)
_, _, changed, after = measure()


def share(truths):
    """A share and its standard error over pictures."""
    mean = sum(truths) / len(truths)
    return mean, (mean * (1 - mean) / len(truths)) ** 0.5


table = {name: {"before": share(before[name]), "after": share(after[name])} for name in before}
print(f"\n{'share of pictures of held-out captions':40s}  before         after")
for name, row in table.items():
    print(f"{name:40s}", *(f" {mean:.3f} ± {error:.3f}" for mean, error in row.values()))
margins = {
    name: (chosen - rejected).mean().item()
    for name, (chosen, rejected) in (("before", unseen_reference), ("after", unseen_policy))
}
print(
    f"log-probability of a preferred picture less that of another, mean of {len(unseen)} held-out pairs: "
    f"{margins['before']:.1f} before, {margins['after']:.1f} after"
)
results = {"shares": table, "log_probability_margin": margins}
(args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")

shown = range(0, len(asked), max(1, args.samples // 2))  # four of each caption
pictures = [beside(enlarge(pixels[index], 96), enlarge(changed[index], 96)) for index in shown]
captions = [f"{caption_of(*asked[index])}: before, after" for index in shown]
sheet = contact_sheet(pictures, captions, [after[preferred][index] for index in shown], columns=4)
sheet.save(args.out / "before_and_after.png")
print(f"adapter, results.json and before_and_after.png are in {args.out.resolve()}")
