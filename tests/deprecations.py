"""Makes a test fail if it uses a deprecated function, on the newest known version of transformers or a later one."""

import logging

import transformers

from vilau_hf.tested_versions import NEWEST_TRANSFORMERS


LIBRARIES = ("transformers", "diffusers", "accelerate", "datasets", "peft", "huggingface_hub")

# words of messages that a library logs about itself, and why this package cannot avoid them
ALLOWED = (
    # assisted decoding of transformers 5.24 calls `generate` of the assistant with a configuration and these arguments
    ("Passing `generation_config` together with", "'min_new_tokens'", "'max_new_tokens'", "'use_cache'"),
)

# filters of pytest: deprecations are errors, except calls inside a library
WARNING_FILTERS = (
    "error::DeprecationWarning",
    "error::FutureWarning",
    # peft 0.21 reads the deprecated attribute of each model
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    # the auto pipelines of diffusers 0.42 import the Kolors pipelines, which use TorchScript
    "ignore:`torch.jit.script` is deprecated",
    # transformers 5.24 builds the masks of flex attention with a flag that torch 2.14 no longer needs
    "ignore:_compile flag on create_block_mask:DeprecationWarning",
)


def is_newest() -> bool:
    """Returns whether the installed transformers is at least the newest minor version that this release knows."""
    installed = tuple(map(int, transformers.__version__.split(".")[:2]))
    return installed >= tuple(map(int, NEWEST_TRANSFORMERS.split(".")))


class DeprecationRecorder(logging.Handler):
    """
    Collects log messages of the libraries that mention a deprecation, inside a `with` block.

    Afterwards the log levels are restored, because the `vilau` command, which tests call, changes them.
    """

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self.levels: dict[str, int] = {}

    def emit(self, record: logging.LogRecord):
        message = record.getMessage()
        is_allowed = any(all(word in message for word in words) for words in ALLOWED)
        if "deprecat" in message.lower() and not is_allowed:
            self.messages.append(f"{record.name}: {message}")

    def __enter__(self) -> "DeprecationRecorder":
        for name in LIBRARIES:
            logger = logging.getLogger(name)
            self.levels[name] = logger.level
            logger.addHandler(self)
        return self

    def __exit__(self, *error):
        for name in LIBRARIES:
            logger = logging.getLogger(name)
            logger.setLevel(self.levels[name])
            logger.removeHandler(self)
