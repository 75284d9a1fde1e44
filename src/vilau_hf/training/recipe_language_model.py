"""Arguments of a recipe of the stage `language_model`: pretraining, fine-tuning, LoRA."""

from dataclasses import dataclass, field

from ..data.arguments import DataArguments
from .trainer_base import VilaUTrainingArguments


@dataclass
class ModelArguments:
    """The model: a trained one, or for pretraining a new one with a trained vision tower."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "folder or Hub id of the model to train; `tiny` is the shipped checkpoint"},
    )
    config_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "sizes of a new model: `vilau-7b-256`, `vilau-7b-384`, `tiny`, or folder or Hub id of a checkpoint"
        },
    )
    vision_tower_name_or_path: str | None = field(
        default=None,
        metadata={"help": "folder or Hub id of the vision tower of a new model; a whole model is accepted, too"},
    )
    language_model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "folder or Hub id of the language model of a new model (default: random weights)"},
    )
    processor_name_or_path: str | None = field(
        default=None, metadata={"help": "folder or Hub id of the processor (default: that of the model)"}
    )
    dtype: str = field(default="float32", metadata={"help": "dtype of the weights, such as `float32` or `bfloat16`"})
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "attention of the language model, such as `sdpa` or `flash_attention_2`"},
    )
    text_loss_weight: float | None = field(
        default=None, metadata={"help": "weight of the text loss (default: that of the model's configuration)"}
    )
    visual_loss_weight: float | None = field(
        default=None, metadata={"help": "weight of the visual loss (default: that of the model's configuration)"}
    )

    def __post_init__(self) -> None:
        if (self.model_name_or_path is None) == (self.config_name_or_path is None):
            raise ValueError("give one of `model_name_or_path` and `config_name_or_path`.")
        sub_models = (self.vision_tower_name_or_path, self.language_model_name_or_path)
        if self.model_name_or_path is not None and any(sub_models):
            raise ValueError(
                "`vision_tower_name_or_path` and `language_model_name_or_path` are for a new model of "
                "`config_name_or_path`, but `model_name_or_path` is given."
            )
        if self.config_name_or_path is not None and self.vision_tower_name_or_path is None:
            raise ValueError("a new model of `config_name_or_path` needs a trained `vision_tower_name_or_path`.")
        for name, weight in self.loss_weights().items():
            if weight < 0:
                raise ValueError(f"`{name}` must be at least 0, got {weight}.")

    def loss_weights(self) -> dict[str, float]:
        """Returns the loss weights that are given, by the names of their fields in [`VilaUConfig`]."""
        weights = {"text_loss_weight": self.text_loss_weight, "visual_loss_weight": self.visual_loss_weight}
        return {name: weight for name, weight in weights.items() if weight is not None}


@dataclass
class LoraArguments:
    """Low-rank adapters (Hu et al., 2022). Without `lora_r` all weights are trained."""

    lora_r: int | None = field(default=None, metadata={"help": "rank of the adapters (default: no adapters)"})
    lora_alpha: int = field(
        default=32, metadata={"help": "numerator of the scale of the adapters, which is `lora_alpha / lora_r`"}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "dropout probability before the adapters"})
    lora_target_modules: str = field(
        default=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        metadata={"help": "regular expression of the names of modules that get an adapter"},
    )
    lora_trained_modules: list[str] = field(
        default_factory=lambda: ["multi_modal_projector", "depth_transformer"],
        metadata={"help": "names of modules whose weights are all trained, beside the adapters"},
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "whether to load the language model in 4 bits (QLoRA; needs bitsandbytes and a GPU)"},
    )

    def __post_init__(self) -> None:
        if self.load_in_4bit and self.lora_r is None:
            raise ValueError("`load_in_4bit` needs adapters, give `lora_r`.")


@dataclass
class RunArguments:
    """Arguments that choose between training and a dry run."""

    dry_run: bool = field(
        default=False, metadata={"help": "whether to check the recipe and its data instead of training"}
    )
    gpus: int = field(
        default=1, metadata={"help": "number of devices for which a dry run estimates the memory of one"}
    )
    strategy: str = field(
        default="ddp",
        metadata={"help": "strategy on these devices in the estimate: `ddp`, `fsdp`, `zero2` or `zero3`"},
    )


@dataclass
class LanguageModelRecipe:
    """
    All arguments of a run of the stage `language_model`.

    Args:
        model ([`ModelArguments`]): the model.
        data ([`DataArguments`]): the data.
        lora ([`LoraArguments`]): the adapters.
        run ([`RunArguments`]): what the run does.
        training ([`VilaUTrainingArguments`]): the arguments of the trainer.
    """

    model: ModelArguments
    data: DataArguments
    lora: LoraArguments
    run: RunArguments
    training: VilaUTrainingArguments


__all__ = ["LanguageModelRecipe", "LoraArguments", "ModelArguments", "RunArguments"]
