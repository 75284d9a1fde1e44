"""Arguments of a recipe of the stage `vision_tower`."""

from dataclasses import asdict, dataclass, field
from typing import Any

from .arguments_vision_tower import VisionTowerTrainingArguments


@dataclass
class VisionTowerModelArguments:
    """The vision tower: a trained one, or a new one from a SigLIP model."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "folder or Hub id of the vision tower to train, with its text encoder; `tiny` is the shipped one"
        },
    )
    siglip_name_or_path: str | None = field(
        default=None,
        metadata={"help": "folder or Hub id of the SigLIP model whose weights a new vision tower starts from"},
    )
    from_scratch: bool = field(
        default=False, metadata={"help": "whether to use the sizes of the SigLIP model without its weights"}
    )
    tokenizer_name_or_path: str | None = field(
        default=None,
        metadata={"help": "folder or Hub id of the tokenizer for captions (default: that of the model)"},
    )

    def __post_init__(self) -> None:
        if (self.model_name_or_path is None) == (self.siglip_name_or_path is None):
            raise ValueError("give one of `model_name_or_path` and `siglip_name_or_path`.")
        if self.from_scratch and self.siglip_name_or_path is None:
            raise ValueError("`from_scratch` needs the configuration of `siglip_name_or_path`.")


@dataclass
class VisionTowerConfigArguments:
    """Fields of [`VilaUVisionConfig`]. Without a value, a field is that of the model or the default."""

    codebook_size: int | None = field(default=None, metadata={"help": "number of entries of the codebook"})
    code_depth: int | None = field(default=None, metadata={"help": "number of codes of a visual token"})
    shared_codebook: bool | None = field(
        default=None, metadata={"help": "whether all depths use one codebook instead of one each"}
    )
    codebook_decay: float | None = field(
        default=None, metadata={"help": "decay of the moving averages that update the codebook"}
    )
    codebook_initialization: str | None = field(
        default=None,
        metadata={"help": "initial codebook: `random` features of the first batch, or their clusters by `kmeans`"},
    )
    restart_unused_codes: bool | None = field(
        default=None, metadata={"help": "whether to replace unused entries of the codebook by random features"}
    )
    latent_channels: int | None = field(
        default=None, metadata={"help": "number of input channels of the pixel decoder"}
    )
    block_out_channels: list[int] | None = field(
        default=None,
        metadata={
            "help": "numbers of channels of the pixel decoder's blocks, from the highest resolution to the lowest"
        },
    )
    layers_per_block: int | None = field(
        default=None,
        metadata={"help": "number of residual layers in a block of the pixel decoder, besides the first one"},
    )
    norm_num_groups: int | None = field(
        default=None, metadata={"help": "number of groups of the pixel decoder's group normalisation"}
    )
    decoder_latent_size: int | None = field(
        default=None,
        metadata={"help": "rows and columns to which the features are resized before the pixel decoder"},
    )
    contrastive_loss_type: str | None = field(
        default=None, metadata={"help": "kind of the contrastive loss: `sigmoid` or `softmax`"}
    )
    contrastive_loss_weight: float | None = field(
        default=None, metadata={"help": "weight of the contrastive loss (0: no captions are read)"}
    )
    reconstruction_loss_weight: float | None = field(
        default=None, metadata={"help": "weight of the sum of pixel, commitment, perceptual and adversarial losses"}
    )
    mse_loss_weight: float | None = field(
        default=None, metadata={"help": "weight of the squared error of pixels in the reconstruction loss"}
    )
    l1_loss_weight: float | None = field(
        default=None, metadata={"help": "weight of the absolute error of pixels in the reconstruction loss"}
    )
    commitment_loss_weight: float | None = field(
        default=None, metadata={"help": "weight of the commitment loss in the reconstruction loss"}
    )

    def given(self) -> dict[str, Any]:
        """Returns the fields that have a value."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class VisionTowerDataArguments:
    """The data: images with captions, for training and for evaluation."""

    dataset: str = field(
        default="drawn_shapes", metadata={"help": "folder or Hub id of the dataset, or `drawn_shapes`"}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "name of the configuration of the dataset"})
    train_split: str = field(default="train", metadata={"help": "name of the split for training"})
    eval_split: str | None = field(default="test", metadata={"help": "name of the split for evaluation"})
    image_column: str = field(default="image", metadata={"help": "name of the column of images"})
    caption_column: str = field(default="caption", metadata={"help": "name of the column of captions"})
    label_column: str | None = field(
        default=None,
        metadata={"help": "name of the column of class labels in the evaluation split, for zero-shot accuracy"},
    )
    on_bad_media: str = field(
        default="error",
        metadata={
            "help": "what to do with images that cannot be opened: `error` stops, `skip` takes the next image instead"
        },
    )
    class_caption: str = field(
        default="a photo of a {}", metadata={"help": "template of the caption of a class; `{}` is the class name"}
    )
    num_train_samples: int = field(
        default=200_000, metadata={"help": "number of drawn shapes for training; other datasets are read as a whole"}
    )
    num_eval_samples: int = field(default=200, metadata={"help": "largest number of images for evaluation"})
    rfid: bool = field(
        default=False, metadata={"help": "whether to compute the reconstruction FID in each evaluation"}
    )


@dataclass
class VisionTowerRunArguments:
    """Arguments that choose between training and a dry run."""

    dry_run: bool = field(
        default=False, metadata={"help": "whether to check the recipe and its data instead of training"}
    )


@dataclass
class VisionTowerRecipe:
    """
    All arguments of a run of the stage `vision_tower`.

    Args:
        model ([`VisionTowerModelArguments`]): the vision tower.
        config ([`VisionTowerConfigArguments`]): fields of its configuration.
        data ([`VisionTowerDataArguments`]): the data.
        run ([`VisionTowerRunArguments`]): what the run does.
        training ([`VisionTowerTrainingArguments`]): the arguments of the trainer.
    """

    model: VisionTowerModelArguments
    config: VisionTowerConfigArguments
    data: VisionTowerDataArguments
    run: VisionTowerRunArguments
    training: VisionTowerTrainingArguments


__all__ = [
    "VisionTowerConfigArguments",
    "VisionTowerDataArguments",
    "VisionTowerModelArguments",
    "VisionTowerRecipe",
    "VisionTowerRunArguments",
]
