"""Asks whether the contrastive loss raises understanding (VILA-U, section 5.1), on emoji and with three seeds.

    vilau records emoji emoji-records
    python examples/emoji/contrastive.py --records emoji-records --out emoji-contrastive

Vision towers are trained in four ways: they begin with a trained SigLIP or with random weights, and learn with or
without the contrastive loss. Each has the same number of steps with quantizer and pixel decoder. The paper compares
two of them, which both begin with SigLIP. Then a language model learns to answer questions about the images. It does
not learn to draw, as in the paper. The scores are answers about held-out images: their names, and yes or no.

The table has each run with the 95 % interval over its images. `contrastive.json` has the means over the seeds and the
differences between the arms too, with the 95 % interval over seeds: it shows how much another run would differ.

An interrupted command continues where it was. A run takes about an hour of one CPU core, and a SigLIP, which two arms
of a seed share, 40 minutes: 14 hours for all twelve runs. The two arms of the paper alone take 8 hours, with
`--arms "siglip, contrastive" "siglip, reconstruction"`. `--seeds 0` in one process and, a minute later, `--seeds 1 2`
in another divide the work; the complete command then prints the table. `--steps 0.01` runs a hundredth of the steps.
"""

import argparse
import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import SiglipModel, Trainer, set_seed

from vilau_hf import VilaUPipeline, VilaUProcessor, VilaUVisionTowerForPreTraining
from vilau_hf.data import VilaUDataCollator, VisionTowerDataCollator, encode_dataset, load_encoded
from vilau_hf.emoji.dataset import CaptionedEmoji, caption_texts, load_emoji
from vilau_hf.emoji.evaluation_tasks import EmojiQuestions, EmojiReconstruction, EmojiYesNo, EmojiZeroShot
from vilau_hf.emoji.tasks import EmojiTasks, media_records
from vilau_hf.evaluation.evaluated_model import EvaluatedModel
from vilau_hf.evaluation.intervals import across_runs
from vilau_hf.evaluation.run_tasks import run_tasks, score_to_json
from vilau_hf.evaluation.task import TaskOptions
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments, VisionTowerTrainer, VisionTowerTrainingArguments
from vilau_hf.training.from_scratch import (
    new_model,
    new_processor,
    new_siglip,
    optimizer_settings,
    release_tower,
    round_weights,
    train_tokenizer,
)


IMAGE_SIZE = 64
PATCH_SIZE = 8
NUM_FRAMES = 8
CAPTION_LENGTH = 24
# Name of an arm -> whether its tower begins with a trained SigLIP, and whether it learns with the contrastive loss.
ARMS = {
    "siglip, contrastive": (True, True),
    "siglip, reconstruction": (True, False),
    "random, contrastive": (False, True),
    "random, reconstruction": (False, False),
}
# Differences that are reported: an arm, and the arm that it is compared with.
COMPARISONS = {
    "contrastive loss, from SigLIP": ("siglip, contrastive", "siglip, reconstruction"),
    "contrastive loss, from random weights": ("random, contrastive", "random, reconstruction"),
    "SigLIP, with the contrastive loss": ("siglip, contrastive", "random, contrastive"),
    "SigLIP, without the contrastive loss": ("siglip, reconstruction", "random, reconstruction"),
}
# Scores in the tables: task and metric.
SCORES = {
    "names": ("emoji-names", "right"),
    "yes or no": ("emoji-yes-no", "right"),
    "zero-shot": ("emoji-zero-shot", "top_1"),
    "PSNR": ("emoji-reconstruction", "psnr"),
}
# as in train_emoji.py. The hours above follow from 1.5, 2.5 and 0.8 s for a step of SigLIP, tower and language model,
# and from 160 encoded images a second (torch 2.14, one busy core with AVX-512, bfloat16).
ATTENTION = "sdpa" if torch.accelerator.is_available() else "eager"


class EmojiNames(EmojiQuestions):
    """Answers what held-out images show."""

    name = "emoji-names"
    kinds = ("name",)


class Experiment:
    """Trains and scores the runs of all arms and seeds in a folder, each stage once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.emoji = load_emoji(args.records, IMAGE_SIZE)
        self.check_settings()
        once(args.out / "processor", self.save_processor)

    def check_settings(self) -> None:
        """Stores the settings that all runs of the folder share, or compares them with those that it has."""
        names = ("steps", "siglip_steps", "tower_steps", "language_steps", "samples")
        settings = {name: getattr(self.args, name) for name in names}
        path = self.args.out / "settings.json"
        if path.is_file() and json.loads(path.read_text()) != settings:
            raise SystemExit(f"{path} has other settings: {path.read_text().strip()}. Give another `--out`.")
        self.args.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings) + "\n")

    def save_processor(self, folder: Path) -> None:
        tokenizer = train_tokenizer([*caption_texts(self.emoji), *self.questions()], vocab_size=3072)
        new_processor(tokenizer, IMAGE_SIZE, PATCH_SIZE, NUM_FRAMES).save_pretrained(folder)

    def questions(self) -> list[str]:
        """Returns the words of questions and answers, often enough that each gets a token."""
        groups = sorted({one.concept.group.lower() for one in self.emoji})
        asked = "USER: ASSISTANT: what is this? describe the image which style is it? which group does it belong to?"
        return [asked, "is it yes no", *groups] * 50

    @property
    def processor(self) -> VilaUProcessor:
        return VilaUProcessor.from_pretrained(self.args.out / "processor")

    def count(self, steps: int) -> int:
        return max(2, math.ceil(steps * self.args.steps))

    def arguments(self, cls, name: str, seed: int, steps: int, batch_size: int, **kwargs):
        return cls(
            output_dir=str(self.args.out / "checkpoints" / name),
            **optimizer_settings(self.count(steps)),
            per_device_train_batch_size=batch_size,
            logging_steps=max(1, self.count(steps) // 20),
            save_steps=self.args.save_steps,
            save_total_limit=1,
            dataloader_num_workers=1,
            seed=seed,
            **kwargs,
        )

    def train_tower(self, model, name: str, seed: int, steps: int, batch_size: int, **kwargs) -> None:
        """Trains a SigLIP or a tower on images with captions."""
        processor = self.processor
        train(
            VisionTowerTrainer(
                model=model,
                args=self.arguments(
                    VisionTowerTrainingArguments,
                    name,
                    seed,
                    steps,
                    batch_size,
                    logit_learning_rate=1e-2,
                    **kwargs,
                ),
                train_dataset=CaptionedEmoji(self.emoji, num_samples=2_000_000, seed=seed),
                data_collator=VisionTowerDataCollator(processor.image_processor, processor.tokenizer, CAPTION_LENGTH),
            )
        )

    def new_siglip(self, seed: int) -> SiglipModel:
        set_seed(seed)
        siglip = new_siglip(
            self.processor.tokenizer,
            vision_config={
                "hidden_size": 192,
                "intermediate_size": 768,
                "num_hidden_layers": 6,
                "num_attention_heads": 3,
                "image_size": IMAGE_SIZE,
                "patch_size": PATCH_SIZE,
            },
            text_config={
                "hidden_size": 192,
                "intermediate_size": 384,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "max_position_embeddings": CAPTION_LENGTH,
            },
        )
        siglip.set_attn_implementation(ATTENTION)
        return siglip

    def trained_siglip(self, seed: int) -> SiglipModel:
        """Returns the SigLIP of a seed, which the first arm that needs it trains."""

        def make(folder: Path) -> None:
            siglip = self.new_siglip(seed)
            self.train_tower(siglip, f"siglip-seed{seed}", seed, self.args.siglip_steps, 128)
            siglip.save_pretrained(folder)

        return SiglipModel.from_pretrained(once(self.args.out / f"siglip-seed{seed}", make))

    def tower(self, arm: str, seed: int, run: Path) -> VilaUVisionTowerForPreTraining:
        """Returns the tower of a run."""
        from_siglip, contrastive = ARMS[arm]

        def make(folder: Path) -> None:
            siglip = self.trained_siglip(seed) if from_siglip else self.new_siglip(seed)
            set_seed(seed)
            tower = VilaUVisionTowerForPreTraining.from_siglip(
                siglip,
                codebook_size=1024,
                code_depth=4,
                latent_channels=64,
                block_out_channels=[32, 64, 96, 128],
                layers_per_block=1,
                norm_num_groups=8,
                contrastive_loss_weight=float(contrastive),
                reconstruction_loss_weight=1.0,
                mse_loss_weight=10.0,
                l1_loss_weight=1.0,
            )
            tower.set_attn_implementation(ATTENTION)
            # A text encoder with random weights has to learn, too. The paper freezes that of SigLIP.
            is_new = contrastive and not from_siglip
            name = f"{run.name}-tower"
            self.train_tower(tower, name, seed, self.args.tower_steps, 48, tune_text_model=is_new)
            round_weights(tower)
            release_tower(tower, self.processor, folder)

        return VilaUVisionTowerForPreTraining.from_pretrained(once(run / "tower", make))

    def model(self, tower: VilaUVisionTowerForPreTraining, seed: int, run: Path) -> Path:
        """Trains the language model of a run, and returns its folder."""

        def make(folder: Path) -> None:
            processor = self.processor
            encode_dataset(media_records(self.emoji, []), run / "codes", tower, processor)
            encoded = load_encoded(run / "codes", tower, processor).with_format("numpy")
            codes = {row["id"]: np.asarray(row["codes"][0]) for row in encoded}
            set_seed(seed)
            model = new_model(
                tower,
                processor.tokenizer,
                text_config={
                    "model_type": "llama",
                    "hidden_size": 256,
                    "intermediate_size": 640,
                    "num_hidden_layers": 6,
                    "num_attention_heads": 4,
                    "max_position_embeddings": 2048,
                    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
                    "initializer_range": 0.04,
                    "tie_word_embeddings": True,
                },
                depth_config={
                    "hidden_size": 192,
                    "num_hidden_layers": 3,
                    "num_attention_heads": 3,
                    "intermediate_size": 768,
                },
            )
            model.set_attn_implementation(ATTENTION)
            num_samples = self.count(self.args.language_steps) * 32
            samples = EmojiTasks(self.emoji, [], codes, num_samples, tasks={"answer": 1.0}, seed=seed)
            train(
                VilaUTrainer(
                    model=model,
                    args=self.arguments(
                        VilaUTrainingArguments, f"{run.name}-language", seed, self.args.language_steps, 32
                    ),
                    train_dataset=samples.grouped(),
                    data_collator=VilaUDataCollator(processor, seed=seed),
                )
            )
            VilaUPipeline(model, processor).save_pretrained(folder, flat=True)

        return once(run / "model", make)

    def run(self, arm: str, seed: int) -> dict[str, dict]:
        """Trains and scores one run, and returns its scores by the names of `SCORES`."""
        run = self.args.out / f"{arm.replace(', ', '-')}-seed{seed}"
        run.mkdir(exist_ok=True)
        tower = self.tower(arm, seed, run)
        model = EvaluatedModel(str(self.model(tower, seed, run)), tower=str(run / "tower"))
        options = TaskOptions(samples=self.args.samples, records=str(self.args.records))
        tasks = [cls(model, options) for cls in (EmojiNames, EmojiYesNo, EmojiZeroShot, EmojiReconstruction)]
        found = run_tasks(tasks, run / "scores")["tasks"]
        return {name: found[task]["scores"][metric] for name, (task, metric) in SCORES.items()}


def train(trainer: Trainer) -> None:
    """Trains from the last checkpoint, if there is one."""
    trainer.train(resume_from_checkpoint=any(Path(trainer.args.output_dir).glob("checkpoint-*")))


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Makes a folder if it is missing. An interruption leaves no folder of this name."""
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        make(unfinished)
        unfinished.rename(folder)
    return folder


def summarize(runs: dict[str, dict[int, dict]]) -> dict[str, dict[str, dict]]:
    """Returns means over the seeds of each arm, and differences of arms with the same seed, by the names of scores."""
    values = {
        arm: {seed: {name: scores[name]["value"] for name in SCORES} for seed, scores in of_seed.items()}
        for arm, of_seed in runs.items()
    }
    # Arms of one seed share data, and often the SigLIP. So their difference varies less than their scores.
    differences = {
        label: {
            seed: {name: first[name] - values[other][seed][name] for name in SCORES}
            for seed, first in values[one].items()
        }
        for label, (one, other) in COMPARISONS.items()
        if one in runs and other in runs
    }
    return {
        kind: {
            label: {name: score_to_json(across_runs([row[name] for row in rows.values()])) for name in SCORES}
            for label, rows in of_label.items()
        }
        for kind, of_label in (("arms", values), ("differences", differences))
    }


def print_table(title: str, rows: dict[str, dict]) -> None:
    """Prints scores with their intervals as a table of Markdown."""
    print(f"\n| {title} | " + " | ".join(SCORES) + " |\n" + "|---" * (len(SCORES) + 1) + "|")
    for label, scores in rows.items():
        shown = []
        for name in SCORES:
            score = scores[name]
            # One seed has no interval.
            interval = "" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]"
            shown.append(f"{score['value']:.3f}{interval}")
        print(f"| {label} | " + " | ".join(shown) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, required=True, help="folder of `vilau records emoji`")
    parser.add_argument("--out", type=Path, default=Path("emoji-contrastive"), help="output folder")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="arms to run (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of each arm (default: 0 1 2)")
    parser.add_argument("--steps", type=float, default=1.0, help="factor on all step counts (default: %(default)s)")
    parser.add_argument("--siglip-steps", type=int, default=1500, help="steps of 128 images without quantizer")
    parser.add_argument("--tower-steps", type=int, default=800, help="steps of 48 images with quantizer and decoder")
    parser.add_argument("--language-steps", type=int, default=1500, help="steps of 32 questions in stage 2")
    parser.add_argument("--save-steps", type=int, default=100, help="steps between checkpoints (default: %(default)s)")
    parser.add_argument("--samples", type=int, help="held-out images of each score (default: all)")
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.WARNING)

    experiment = Experiment(args)
    # Seeds first, so that an interrupted command has complete comparisons.
    runs: dict[str, dict[int, dict]] = {arm: {} for arm in args.arms}
    for seed in args.seeds:
        for arm in args.arms:
            runs[arm][seed] = experiment.run(arm, seed)
            print_table("run", {f"{arm}, seed {seed}": runs[arm][seed]})
    found = summarize(runs)
    print_table("mean over seeds", found["arms"])
    print_table("difference", found["differences"])
    settings = json.loads((args.out / "settings.json").read_text())
    content = {"settings": settings, "runs": runs, **found}
    (args.out / "contrastive.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
