"""Makes tests fail where one of the Hugging Face libraries logs that something is deprecated."""

import logging


LIBRARIES = ("transformers", "diffusers", "accelerate", "datasets", "peft", "huggingface_hub")

# what a library says about its own code, and why no change of ours can avoid it
ALLOWED = ()


class DeprecationRecorder(logging.Handler):
    """Collects log messages of the libraries that speak of a deprecation."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord):
        message = record.getMessage()
        if "deprecat" in message.lower() and not any(allowed in message for allowed in ALLOWED):
            self.messages.append(f"{record.name}: {message}")

    def __enter__(self) -> "DeprecationRecorder":
        for name in LIBRARIES:
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *error):
        for name in LIBRARIES:
            logging.getLogger(name).removeHandler(self)
