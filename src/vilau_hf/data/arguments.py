"""Arguments of a training run that choose its data."""

from dataclasses import dataclass, field


ROW_FORMATS = ("padded", "packed", "padding_free")


@dataclass
class DataArguments:
    """The training data of a run, and how records become rows of a batch."""

    dataset: str = field(
        default="drawn_shapes",
        metadata={
            "help": "YAML file of a mixture, folder of records (`vilau records`), folder of codes (`vilau encode`), "
            "Hub id of records, or `drawn_shapes`"
        },
    )
    eval_dataset: str | None = field(
        default=None, metadata={"help": "dataset for evaluation, given as `dataset`; a mixture is not supported"}
    )
    train_split: str = field(default="train", metadata={"help": "split of the training dataset"})
    eval_split: str = field(default="test", metadata={"help": "split of the evaluation dataset (default: `test`)"})
    num_train_samples: int | None = field(
        default=None,
        metadata={"help": "number of training records, from the first (default: all; 200,000 drawn shapes)"},
    )
    num_eval_samples: int = field(default=1000, metadata={"help": "largest number of evaluation records"})
    row_format: str = field(
        default="padded",
        metadata={
            "help": "`padded`: each record in a row; `packed`: several records in a row of `max_length` tokens; "
            "`padding_free`: all records of a batch in one row"
        },
    )
    max_length: int | None = field(
        default=None,
        metadata={"help": "tokens of a packed row; in other row formats, text beyond this length is cut off"},
    )
    pad_to_multiple_of: int | None = field(
        default=None, metadata={"help": "pad the length of rows to a multiple of this number"}
    )
    unconditional_probability: float = field(
        default=0.1, metadata={"help": "share of records without their prompt, for classifier-free guidance"}
    )
    context_noise: float = field(
        default=0.0,
        metadata={
            "help": "share of records whose images and videos to generate are read with errors, so that the model "
            "follows the prompt rather than the positions before"
        },
    )
    on_bad_media: str = field(
        default="error", metadata={"help": "at media that cannot be opened: `error`, or `skip` the record"}
    )
    media_roots: list[str] | None = field(
        default=None,
        metadata={"help": "folders that may hold the images and videos of records (default: any local folder)"},
    )
    on_short_video: str = field(
        default="repeat",
        metadata={"help": "at videos with fewer frames than are sampled: `repeat` frames, or `error`"},
    )
    on_too_long: str = field(
        default="error", metadata={"help": "at records longer than a packed row: `error`, or `skip` the record"}
    )
    shuffle_block: int = field(default=1000, metadata={"help": "records of a mixture that are shuffled together"})

    def __post_init__(self) -> None:
        if self.row_format not in ROW_FORMATS:
            raise ValueError(f"`row_format` must be one of {', '.join(ROW_FORMATS)}, got {self.row_format!r}.")
        if self.row_format == "packed" and self.max_length is None:
            raise ValueError("`row_format` 'packed' needs `max_length`, the tokens of a row.")
