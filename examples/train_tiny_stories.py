"""Trains a checkpoint of `train_tiny.py` to edit images, continue videos and tell stories with images.

    python examples/train_tiny_stories.py --out tiny-stories

It takes less than an hour on two CPU cores. `--steps 0.01` runs a hundredth of the steps, to check that it works.
"""

import argparse
import logging
import math
import time
from pathlib import Path

from transformers import set_seed

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUPipeline, VilaUProcessor
from vilau_hf.data import VilaUDataCollator
from vilau_hf.drawn import drawn_shapes
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument(
    "--model", default=TINY_CHECKPOINT, help="folder or Hub id of the first weights (default: shipped)"
)
parser.add_argument("--out", type=Path, default=Path("tiny-stories"), help="output folder (default: %(default)s)")
parser.add_argument(
    "--work", type=Path, default=Path("tiny-runs/stories"), help="folder for checkpoints of the trainer"
)
parser.add_argument("--steps", type=float, default=1.0, help="factor on the step count (default: %(default)s)")
parser.add_argument("--seed", type=int, default=2, help="seed of data and training (default: %(default)s)")
args = parser.parse_args()

set_seed(args.seed)
logging.getLogger("transformers").setLevel(logging.WARNING)
started = time.time()
steps = max(2, math.ceil(3000 * args.steps))
model = VilaUForConditionalGeneration.from_pretrained(args.model)
processor = VilaUProcessor.from_pretrained(args.model)

# The tasks that the model already knows stay in the mixture, because it would forget them otherwise.
samples = drawn_shapes(
    "train",
    num_samples=32 * steps,
    image_size=model.config.vision_config.image_size,
    num_frames=model.generation_config.num_frames,
    tasks={
        "text_to_image": 9,
        "image_to_text": 4,
        "text_to_video": 2,
        "video_to_text": 0.5,
        "edit": 9,
        "story": 6,
        "continue_video": 1.5,
    },
    seed=args.seed,
)
trainer = VilaUTrainer(
    model=model,
    args=VilaUTrainingArguments(
        output_dir=str(args.work),
        max_steps=steps,
        per_device_train_batch_size=32,
        learning_rate=7e-4,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.03},
        warmup_steps=max(1, steps // 20),
        adam_beta2=0.95,
        weight_decay=0.01,
        max_grad_norm=1.0,
        logging_steps=max(1, steps // 60),
        save_steps=max(1, steps // 6),
        save_total_limit=1,
        report_to="none",
        dataloader_num_workers=1,
        train_sampling_strategy="group_by_length",
        disable_tqdm=True,
        use_cpu=True,
        bf16=True,
        seed=args.seed,
    ),
    train_dataset=samples,
    data_collator=VilaUDataCollator(processor, seed=args.seed),
)
trainer.train()
VilaUPipeline(model, processor).save_pretrained(args.out, flat=True)
print(f"Written to {args.out} in {time.time() - started:.0f} s")
