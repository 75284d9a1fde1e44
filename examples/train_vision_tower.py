"""Trains a vision tower by a recipe.

    python examples/train_vision_tower.py examples/recipes/tower_tiny.yaml

goes on training the shipped tower on drawn shapes, with a discriminator, in about a minute on one CPU core. A recipe
is a YAML file of the arguments below; any of them can be given behind it, as in `--max_steps 100`. On several GPUs:
`accelerate launch examples/train_vision_tower.py RECIPE.yaml`.
"""

import sys
from dataclasses import asdict, dataclass, field

from datasets import ClassLabel, Image, load_dataset
from transformers import AutoConfig, AutoTokenizer, HfArgumentParser, SiglipModel, set_seed

from vilau_hf import TINY_CHECKPOINT, VilaUImageProcessor, VilaUVisionTowerForPreTraining
from vilau_hf.data import MediaLoader, ReadableRows, VisionTowerDataCollator
from vilau_hf.drawn import drawn_shapes
from vilau_hf.drawn.shapes import COLORS, SHAPES
from vilau_hf.training import (
    VisionTowerEvaluationCallback,
    VisionTowerTrainer,
    VisionTowerTrainingArguments,
    checkpoint_to_resume,
    read_layers,
)


@dataclass
class ModelArguments:
    """Where the tower comes from; one of the first two."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "tower with its text encoder to go on from; `tiny` is the shipped one"}
    )
    siglip_name_or_path: str | None = field(
        default=None, metadata={"help": "SigLIP model that gives the weights of image and text encoder"}
    )
    from_scratch: bool = field(default=False, metadata={"help": "take SigLIP's configuration without its weights"})
    tokenizer_name_or_path: str | None = field(default=None, metadata={"help": "default: that of the model"})


@dataclass
class TowerArguments:
    """Fields of `VilaUVisionConfig`; those left out are the model's, or the default."""

    codebook_size: int | None = None
    code_depth: int | None = None
    shared_codebook: bool | None = None
    codebook_decay: float | None = None
    codebook_initialization: str | None = None
    restart_unused_codes: bool | None = None
    latent_channels: int | None = None
    block_out_channels: list[int] | None = None
    layers_per_block: int | None = None
    norm_num_groups: int | None = None
    decoder_latent_size: int | None = None
    contrastive_loss_type: str | None = None
    contrastive_loss_weight: float | None = None
    reconstruction_loss_weight: float | None = None
    mse_loss_weight: float | None = None
    l1_loss_weight: float | None = None
    commitment_loss_weight: float | None = None


@dataclass
class DataArguments:
    """What it is trained and evaluated on."""

    dataset: str = field(default="drawn_shapes", metadata={"help": "`drawn_shapes`, a folder or a Hub id"})
    dataset_config: str | None = field(default=None, metadata={"help": "configuration of the dataset"})
    train_split: str = field(default="train", metadata={"help": "split to train on"})
    eval_split: str | None = field(default="test", metadata={"help": "split to evaluate on (default: `test`)"})
    image_column: str = field(default="image", metadata={"help": "column of the pictures"})
    caption_column: str = field(default="caption", metadata={"help": "column of the captions"})
    label_column: str | None = field(
        default=None, metadata={"help": "column of class labels in the evaluation split, for zero-shot accuracy"}
    )
    on_bad_media: str = field(
        default="error",
        metadata={"help": "pictures that cannot be opened: `error`, or `skip` to take the next one in their place"},
    )
    class_caption: str = field(default="a photo of a {}", metadata={"help": "caption of a class, for its name"})
    num_train_samples: int = field(default=200_000, metadata={"help": "how many shapes to draw"})
    num_eval_samples: int = field(default=200, metadata={"help": "pictures to evaluate on, at most"})
    rfid: bool = field(default=False, metadata={"help": "compute the reconstruction FID"})


# Arguments: the command line over the recipe, a recipe over the one it is based on
parser = HfArgumentParser((ModelArguments, TowerArguments, DataArguments, VisionTowerTrainingArguments))
if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
    parser.error("the first argument must be a recipe, as in examples/recipes/tower_tiny.yaml")
try:
    recipe = read_layers(sys.argv[1])
except (ValueError, OSError) as error:
    parser.error(str(error))
unknown = set(recipe) - {action.dest for action in parser._actions}
if unknown:
    parser.error(f"unknown keys in the recipe: {', '.join(sorted(unknown))}")
parser.set_defaults(**recipe)
source, tower_arguments, data, args = parser.parse_args_into_dataclasses(args=sys.argv[2:])
if (source.model_name_or_path is None) == (source.siglip_name_or_path is None):
    parser.error("give one of `model_name_or_path` and `siglip_name_or_path`")
if source.from_scratch and source.siglip_name_or_path is None:
    parser.error("`from_scratch` needs the configuration of `siglip_name_or_path`")
set_seed(args.seed)

# Model
config = {name: value for name, value in asdict(tower_arguments).items() if value is not None}
folder = source.model_name_or_path or source.siglip_name_or_path
if source.model_name_or_path is not None:
    folder = f"{TINY_CHECKPOINT}/tower" if folder == "tiny" else folder
    tower = VilaUVisionTowerForPreTraining.from_pretrained(folder, dtype="float32", **config)
else:
    siglip = (
        SiglipModel(AutoConfig.from_pretrained(folder))
        if source.from_scratch
        else SiglipModel.from_pretrained(folder, dtype="float32")
    )
    tower = VilaUVisionTowerForPreTraining.from_siglip(siglip, **config)
side = tower.config.image_size
image_processor = VilaUImageProcessor(size={"height": side, "width": side})
tokenizer = None
if tower.config.contrastive_loss_weight:
    tokenizer = AutoTokenizer.from_pretrained(source.tokenizer_name_or_path or folder)
collator = VisionTowerDataCollator(image_processor, tokenizer, tower.config.text_config.max_position_embeddings)

# Data: records with `images`, `caption` and, where there are classes, `label`
classes = label_of = None
if data.dataset == "drawn_shapes":
    shapes = {"image_size": side, "tasks": {"text_to_image": 1}}
    train_data = drawn_shapes("train", data.num_train_samples, seed=args.seed, short_captions=0.5, **shapes)
    eval_data = drawn_shapes("test", data.num_eval_samples, **shapes)
    pairs = [(color, shape) for color in COLORS for shape in SHAPES]
    classes = [f"a {color} {shape}" for color, shape in pairs]

    def label_of(record):
        return pairs.index((record["drawing"]["color"], record["drawing"]["shape"]))

else:
    loader = MediaLoader(on_bad_media=data.on_bad_media)

    def to_records(batch):
        records = {"images": [[image] for image in batch[data.image_column]]}
        if tokenizer is not None:
            records["caption"] = batch[data.caption_column]
        if data.label_column in batch:
            records["label"] = batch[data.label_column]
        records = loader(records)
        return {**records, "images": [[image.convert("RGB") for image in images] for images in records["images"]]}

    stored = Image(decode=False)  # opened by the loader, which says what happens to those that cannot be
    train_data = load_dataset(data.dataset, data.dataset_config, split=data.train_split)
    train_data = train_data.cast_column(data.image_column, stored).with_transform(to_records)
    eval_data = None
    if data.eval_split is not None:
        eval_data = load_dataset(data.dataset, data.dataset_config, split=data.eval_split)
        eval_data = eval_data.select(range(min(data.num_eval_samples, len(eval_data))))
        if data.label_column is not None:
            labels = eval_data.features[data.label_column]
            if not isinstance(labels, ClassLabel):
                parser.error(f"`label_column` must be a column of class labels, {data.label_column!r} is {labels}")
            classes = [data.class_caption.format(name.replace("_", " ")) for name in labels.names]

            def label_of(record):
                return record["label"]

        eval_data = eval_data.cast_column(data.image_column, stored).with_transform(to_records)
    if data.on_bad_media == "skip":
        train_data, eval_data = ReadableRows(train_data), None if eval_data is None else ReadableRows(eval_data)

# Training
trainer = VisionTowerTrainer(
    model=tower,
    args=args,
    train_dataset=train_data,
    eval_dataset=eval_data,
    data_collator=collator,
    processing_class=tokenizer,
)
if eval_data is not None:
    if tokenizer is None:
        classes = label_of = None
    trainer.add_callback(
        VisionTowerEvaluationCallback(
            trainer, classes, label_of, fid=data.rfid, download_judge_weights=args.download_judge_weights
        )
    )
trainer.train(resume_from_checkpoint=checkpoint_to_resume(args.resume_from_checkpoint))
if eval_data is not None and args.eval_strategy == "no":
    trainer.evaluate()
trainer.save_model()
trainer.accelerator.end_training()
