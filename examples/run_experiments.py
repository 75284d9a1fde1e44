"""Runs the experiments of docs/experiments.md: trains and scores small models of drawn shapes on one CPU core.

    python examples/run_experiments.py contrastive    # stage 1 with and without the contrastive loss
    python examples/run_experiments.py code-depth     # codes per visual token
    python examples/run_experiments.py guidance       # classifier-free guidance of the shipped checkpoint

Each command prints its table and writes it to `--out`. Finished models in `--out` are reused, so models that two
tables share are trained once. `--steps 0.01` runs a hundredth of the training steps, to check that it works.
"""

import argparse
import json
import logging
import math
import time
from pathlib import Path

import torch
from transformers import SiglipConfig, SiglipModel, set_seed

from vilau_hf import (
    TINY_CHECKPOINT,
    VilaUConfig,
    VilaUForConditionalGeneration,
    VilaUPipeline,
    VilaUProcessor,
    VilaUVisionConfig,
    VilaUVisionTowerForPreTraining,
)
from vilau_hf.data import VilaUDataCollator, VisionTowerDataCollator
from vilau_hf.drawn import drawn_shapes
from vilau_hf.drawn.scores import evaluate_images, evaluate_reconstruction, evaluate_tower
from vilau_hf.drawn.shapes import drawings
from vilau_hf.evaluation.metrics import exact_match
from vilau_hf.evaluation.model_outputs import answer_questions, generate_from_captions
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments, VisionTowerTrainer, VisionTowerTrainingArguments


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("table", choices=["contrastive", "code-depth", "guidance"], help="experiment")
parser.add_argument("--out", type=Path, default=Path("experiments"), help="output folder (default: %(default)s)")
parser.add_argument("--steps", type=float, default=1.0, help="factor on all step counts (default: %(default)s)")
parser.add_argument("--siglip-steps", type=int, default=500, help="contrastive steps of 64 images without quantizer")
parser.add_argument("--tower-steps", type=int, default=400, help="steps of 32 images with quantizer and pixel decoder")
parser.add_argument("--language-steps", type=int, default=900, help="steps of 16 samples in stage 2")
parser.add_argument("--samples", type=int, default=360, help="generated images, and reconstructions, of each score")
parser.add_argument("--questions", type=int, default=1000, help="questions of each score")
parser.add_argument("--seed", type=int, default=0, help="seed of data, training and sampling (default: %(default)s)")
args = parser.parse_args()

logging.getLogger("transformers").setLevel(logging.WARNING)
args.out.mkdir(parents=True, exist_ok=True)
# Sizes and processor are those of the shipped checkpoint; the weights are new.
processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
tower_config = VilaUVisionConfig.from_pretrained(f"{TINY_CHECKPOINT}/tower", dtype=torch.float32)
image_size = tower_config.image_size
caption_length = tower_config.text_config.max_position_embeddings
QUESTIONS = {
    text: name
    for name, text in zip(("color", "shape", "size", "place", "background"), drawings("test")[0].answers, strict=True)
}
QUESTIONS[drawings("test")[0].description_request] = "caption"
captions = (drawings("test") * math.ceil(args.samples / len(drawings("test"))))[: args.samples]


def count(steps):
    return max(2, math.ceil(steps * args.steps))


def trainer_arguments(cls, name, steps, batch_size, **kwargs):
    return cls(
        output_dir=str(args.out / "runs" / name),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=1e-3,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=max(1, steps // 20),
        adam_beta2=0.95,
        weight_decay=0.01,
        max_grad_norm=1.0,
        logging_steps=max(1, steps // 20),
        save_strategy="no",
        report_to="none",
        dataloader_num_workers=1,
        disable_tqdm=True,
        use_cpu=True,
        bf16=True,
        seed=args.seed,
        **kwargs,
    )


def train_stage_1(name, model, steps, batch_size):
    images = drawn_shapes(
        "train",
        num_samples=steps * batch_size,
        image_size=image_size,
        tasks={"text_to_image": 1},
        seed=args.seed,
        short_captions=0.5,
    )
    trainer = VisionTowerTrainer(
        model=model,
        args=trainer_arguments(VisionTowerTrainingArguments, name, steps, batch_size, logit_learning_rate=1e-2),
        train_dataset=images,
        data_collator=VisionTowerDataCollator(processor.image_processor, processor.tokenizer, caption_length),
    )
    trainer.train()
    return trainer.state.log_history[:-1]


def new_siglip():
    set_seed(args.seed)
    siglip = SiglipModel(
        SiglipConfig(
            vision_config=tower_config.encoder_config.to_dict(), text_config=tower_config.text_config.to_dict()
        )
    )
    with torch.no_grad():  # as in train_tiny.py
        siglip.text_model.embeddings.token_embedding.weight.normal_()[processor.tokenizer.pad_token_id] = 0
        siglip.text_model.embeddings.position_embedding.weight.normal_(std=0.02)
        siglip.logit_scale.fill_(math.log(10))
        siglip.logit_bias.fill_(-4)
    return siglip


def trained_siglip():
    """Loads a SigLIP trained with the contrastive loss; the first arm that needs it trains it."""
    folder = args.out / f"siglip-{count(args.siglip_steps)}-seed{args.seed}"
    if not folder.is_dir():
        siglip = new_siglip()
        started = time.time()
        losses = train_stage_1("siglip", siglip, count(args.siglip_steps), 64)
        siglip.save_pretrained(folder.with_suffix(".part"))
        log = {"minutes": (time.time() - started) / 60, "losses": losses}
        write(folder.with_suffix(".part") / "training_log.json", log)
        folder.with_suffix(".part").rename(folder)
    return SiglipModel.from_pretrained(folder)


def train_tower(name, siglip, steps, contrastive_loss_weight, code_depth):
    set_seed(args.seed)
    fields = ("codebook_size", "latent_channels", "block_out_channels", "layers_per_block", "norm_num_groups")
    fields += ("mse_loss_weight", "l1_loss_weight", "commitment_loss_weight")
    tower = VilaUVisionTowerForPreTraining.from_siglip(
        siglip,
        **{field: getattr(tower_config, field) for field in fields},
        code_depth=code_depth,
        contrastive_loss_weight=contrastive_loss_weight,
    )
    history = train_stage_1(f"{name}-tower", tower, steps, 32)
    return tower.eval(), history


def train_language(name, tower):
    """Trains stage 2 from scratch on images without videos, and returns the model and its losses."""
    config = VilaUConfig.from_pretrained(TINY_CHECKPOINT, dtype=torch.float32).to_dict()
    config["vision_config"] = {**tower.config.to_dict(), "text_config": None}
    config["depth_config"]["code_depth"] = tower.config.code_depth
    set_seed(args.seed)
    model = VilaUForConditionalGeneration(VilaUConfig(**config))
    model.model.vision_tower.load_state_dict(tower.vision_tower.state_dict())
    # as in train_tiny.py: outputs of the new layers start at unit scale
    with torch.no_grad():
        codebook = model.model.vision_tower.quantizer.codebook.weight
        for layer in (model.model.multi_modal_projector.linear_1, model.depth_transformer.in_proj_code):
            layer.weight.normal_(std=codebook.shape[1] ** -0.5).div_(codebook.std())
    steps = count(args.language_steps)
    samples = drawn_shapes(
        "train",
        num_samples=steps * 16,
        image_size=image_size,
        tasks={"text_to_image": 5, "image_to_text": 3},
        seed=args.seed + 1,
    )
    trainer = VilaUTrainer(
        model=model,
        args=trainer_arguments(VilaUTrainingArguments, f"{name}-language", steps, 16),
        train_dataset=samples,
        data_collator=VilaUDataCollator(processor, seed=args.seed),
    )
    trainer.train()
    model.generation_config.update(
        allow_custom_entries=True,
        visual_guidance_scale=1.5,
        visual_temperature=1.0,
        visual_top_k=0,
        visual_top_p=0.9,
        unconditional_prompt_ids=processor.unconditional_prompt_ids(),
    )
    return model.eval(), trainer.state.log_history[:-1]


def answer_scores(model):
    """Computes the share of right answers to each question about held-out images."""
    records = list(drawn_shapes("test", args.questions, image_size, tasks={"image_to_text": 1}, seed=args.seed))
    asked = [record["messages"][0]["content"][1]["text"] for record in records]
    wanted = [record["messages"][1]["content"][0]["text"] for record in records]
    given = answer_questions(model, processor, records)
    scores = {}
    for question in sorted(set(asked)):
        rows = [row for row, text in enumerate(asked) if text == question]
        accuracy = exact_match([given[row] for row in rows], [wanted[row] for row in rows])
        scores[question] = {"accuracy": accuracy, "samples": len(rows)}
    return scores


def image_scores(model, **settings):
    """Computes the share of images of held-out captions in which the oracle reads each attribute."""
    texts = [drawing.caption for drawing in captions]
    return evaluate_images(generate_from_captions(model, processor, texts, "image", args.seed, **settings), captions)


def write(path, result):
    # an interrupted run leaves no file with the final name
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.rename(path)


def run_arm(name, contrastive, code_depth, from_siglip=True):
    """
    Trains and scores one model, or reads the scores of a finished model.

    With `contrastive`, the tower is trained with the contrastive loss as well. With `from_siglip`, it begins with a
    SigLIP that was trained with that loss, otherwise with random weights.
    """
    name = f"{name}-seed{args.seed}"
    settings = {
        "contrastive": contrastive,
        "code_depth": code_depth,
        "seed": args.seed,
        # All arms have the same number of steps in stage 1. Without a SigLIP, all of them train the whole tower.
        "siglip_steps": count(args.siglip_steps) if from_siglip else 0,
        "tower_steps": count(args.tower_steps) + (0 if from_siglip else count(args.siglip_steps)),
        "language_steps": count(args.language_steps),
        "samples": args.samples,
        "questions": args.questions,
    }
    path = args.out / f"{name}.json"
    if path.is_file():
        result = json.loads(path.read_text())
        if result["settings"] != settings:
            raise SystemExit(f"{path} was made with other settings: {result['settings']}. Pass another `--out`.")
        return result
    siglip = trained_siglip() if from_siglip else new_siglip()
    started = time.time()
    cpu_started = time.process_time()
    tower, tower_losses = train_tower(name, siglip, settings["tower_steps"], float(contrastive), code_depth)
    scores = evaluate_reconstruction(tower.vision_tower, processor, args.samples, args.seed)
    if from_siglip:  # otherwise the text encoder was not trained
        scores.update(evaluate_tower(tower, processor, caption_length, args.samples, args.seed))
    tower_seconds = time.time() - started
    model, language_losses = train_language(name, tower)
    training_seconds = time.time() - started
    scores.update(image_scores(model), answers=answer_scores(model))
    VilaUPipeline(model, processor).save_pretrained(args.out / name, flat=True)
    result = {
        "settings": settings,
        "scores": scores,
        "minutes": {
            "tower": tower_seconds / 60,
            "language": (training_seconds - tower_seconds) / 60,
            "all": (time.time() - started) / 60,
        },
        "cpu_minutes": (time.process_time() - cpu_started) / 60,
        "losses": {"tower": tower_losses, "language": language_losses},
    }
    write(path, result)
    return result


def percent(share, samples):
    """Formats a share of independent samples and its standard error in percent."""
    return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / samples):.1f}"


def answer_columns(scores):
    questions = {name: scores["answers"][text] for text, name in QUESTIONS.items() if text in scores["answers"]}
    of_attributes = [entry for name, entry in questions.items() if name != "caption"]
    samples = sum(entry["samples"] for entry in of_attributes)
    right = sum(entry["accuracy"] * entry["samples"] for entry in of_attributes)
    columns = {"five questions": percent(right / samples, samples)} if samples else {}
    return columns | {name: percent(entry["accuracy"], entry["samples"]) for name, entry in questions.items()}


def image_columns(scores):
    names = ("color", "shape", "size", "place", "background", "color_and_shape", "all")
    return {name.replace("_", " "): percent(scores[f"picture_{name}"], args.samples) for name in names}


def tower_columns(scores):
    zero_shot = scores.get("zero_shot_color_and_shape")
    columns = {} if zero_shot is None else {"zero-shot color and shape": percent(zero_shot, args.samples)}
    return columns | {
        "PSNR": f"{scores['reconstruction_psnr']:.1f}",
        "rebuilt color and shape": percent(scores["reconstruction_color_and_shape"], args.samples),
        "codes in use": f"{100 * scores['codebook_usage']:.0f}",
    }


def print_table(title, rows):
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    print(f"\n| {title} | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    for label, row in rows.items():
        print(f"| {label} | " + " | ".join(row.get(name, "") for name in names) + " |")


if args.table == "contrastive":
    results = {
        "with": run_arm("contrastive-depth4", True, 4),
        "in the first half": run_arm("siglip-then-reconstruction-depth4", False, 4),
        "without": run_arm("reconstruction-depth4", False, 4, from_siglip=False),
    }
    print_table("contrastive loss", {name: answer_columns(arm["scores"]) for name, arm in results.items()})
    print_table(
        "contrastive loss",
        {name: tower_columns(arm["scores"]) | image_columns(arm["scores"]) for name, arm in results.items()},
    )
elif args.table == "code-depth":
    results = {str(depth): run_arm(f"contrastive-depth{depth}", True, depth) for depth in (1, 2, 4)}
    print_table(
        "code depth D",
        {name: tower_columns(arm["scores"]) | image_columns(arm["scores"]) for name, arm in results.items()},
    )
    print_table("code depth D", {name: answer_columns(arm["scores"]) for name, arm in results.items()})
else:
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()
    results = {str(scale): {"scores": image_scores(model, guidance_scale=scale)} for scale in (1.0, 2.0, 3.0, 5.0)}
    print_table("guidance", {scale: image_columns(entry["scores"]) for scale, entry in results.items()})
write(args.out / f"{args.table}.json", results)
