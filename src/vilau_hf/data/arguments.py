"""Arguments of a training run that choose its data."""

from dataclasses import dataclass, field


ROW_FORMATS = ("padded", "packed", "padding_free")


@dataclass
class DataArguments:
    """What the model is trained on, and how records become rows."""

    dataset: str = field(
        default="drawn_shapes",
        metadata={
            "help": "YAML of a mixture, folder of records (`vilau records`) or of codes (`vilau encode`), Hub id of "
            "records, or `drawn_shapes`"
        },
    )
    eval_dataset: str | None = field(default=None, metadata={"help": "the same, but no mixture"})
    train_split: str = field(default="train", metadata={"help": "split to train on"})
    eval_split: str = field(default="test", metadata={"help": "split to evaluate on (default: `test`)"})
    num_train_samples: int | None = field(
        default=None, metadata={"help": "the first so many (default: all; 200,000 drawn shapes)"}
    )
    num_eval_samples: int = field(default=1000, metadata={"help": "records to evaluate on, at most"})
    row_format: str = field(
        default="padded",
        metadata={
            "help": "`padded`: a record a row; `packed`: rows of `max_length` of several records; `padding_free`: all "
            "records of a batch in one row"
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "tokens of a packed row; otherwise text beyond it is cut off"}
    )
    pad_to_multiple_of: int | None = field(default=None, metadata={"help": "lengthen rows to a multiple of this"})
    unconditional_probability: float = field(
        default=0.1, metadata={"help": "share of records that lose their prompt, for classifier-free guidance"}
    )
    on_bad_media: str = field(default="error", metadata={"help": "`error` or `skip`"})
    on_too_long: str = field(default="error", metadata={"help": "records longer than a packed row: `error` or `skip`"})
    shuffle_block: int = field(default=1000, metadata={"help": "records of a mixture that are shuffled together"})

    def __post_init__(self):
        if self.row_format not in ROW_FORMATS:
            raise ValueError(f"`row_format` must be one of {', '.join(ROW_FORMATS)}, got {self.row_format!r}.")
        if self.row_format == "packed" and self.max_length is None:
            raise ValueError("`row_format` 'packed' needs `max_length`, the tokens of a row.")
