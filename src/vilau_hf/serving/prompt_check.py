"""Check of a prompt against the model, before an image is fetched and before an answer begins."""

import os
import threading

from jinja2 import TemplateError
from PIL import Image
from transformers import AutoConfig, AutoProcessor

from .errors import RequestError
from .protocol import ImageContent, Message, TextRequest


class PromptCheck:
    """
    Makes the prompt of a request without its images, and compares its length with the context of the model.

    An error of the model itself comes too late: a streamed answer has begun with status 200 by then. A small blank
    image stands for each image, because all images have the same number of visual tokens.

    Args:
        model (`str`): folder or Hub id of the checkpoint, with `@revision` if it is not the main one.
    """

    def __init__(self, model: str) -> None:
        name, _, revision = (model, "", "") if os.path.exists(model) else model.partition("@")
        try:
            self.processor = AutoProcessor.from_pretrained(name, revision=revision or "main")
            config = AutoConfig.from_pretrained(name, revision=revision or "main").text_config
        except OSError as error:
            # without a connection, the message of the library does not have the name of the model (5.24.0)
            raise OSError(f"Cannot load the `model` {model!r}: {error}") from error
        self.max_positions = config.max_position_embeddings
        self.vocab_size = config.vocab_size
        tokenizer = self.processor.tokenizer
        self.longest_token = max(len(token) for token in tokenizer.get_vocab())
        self.placeholders = (self.processor.image_token, self.processor.video_token)
        # A tokenizer of the library `tokenizers` refuses calls from two threads at once while a setting changes.
        self._lock = threading.Lock()

    def check(self, request: TextRequest) -> None:
        """
        Checks the prompt of a request.

        Args:
            request ([`TextRequest`]): the request.

        Raises:
            RequestError: if a text has a placeholder of an image, or the chat template refuses a message. Also if the
                prompt leaves no position for an answer, or a token of `logit_bias` does not exist.
        """
        self._check_texts(request)
        bias = getattr(request, "logit_bias", None) or {}
        for token in bias:
            if int(token) >= self.vocab_size:
                raise RequestError(
                    f"A token of `logit_bias` must be below {self.vocab_size}, got {token}.", param="logit_bias"
                )
        length = self._length(request)
        if length == 0:
            raise RequestError("The prompt is empty.")
        if length >= self.max_positions:
            raise self._too_long(f"{length} tokens")

    def _check_texts(self, request: TextRequest) -> None:
        """Checks what needs no tokenizer, which would take long for a large text."""
        num_characters = 0
        for text in request.texts():
            num_characters += len(text)
            for placeholder in self.placeholders:
                if placeholder in text:
                    raise RequestError(
                        f"A text must not contain {placeholder!r}. Send an image as a content item of its message."
                    )
        if num_characters > self.max_positions * self.longest_token:
            raise self._too_long(f"{num_characters} characters")
        num_images = sum(1 for _ in request.images())
        if num_images * self.processor.num_visual_tokens >= self.max_positions:
            raise self._too_long(f"{num_images} images")

    def _length(self, request: TextRequest) -> int:
        """Returns the number of tokens of the prompt."""
        messages = request.conversation()
        try:
            with self._lock:
                if not messages:
                    return sum(len(self.processor.tokenizer(text)["input_ids"]) for text in request.texts())
                inputs = self.processor.apply_chat_template(
                    [_to_template(message) for message in messages],
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=True,
                    return_tensors="pt",
                )
        except (ValueError, TemplateError) as error:
            raise RequestError(f"The messages cannot be made into a prompt: {error}", param="messages") from error
        return inputs["input_ids"].shape[1]

    def _too_long(self, found: str) -> RequestError:
        return RequestError(
            f"The prompt must leave one of the {self.max_positions} tokens of this model's context for the answer. It "
            f"has {found}.",
            code="context_length_exceeded",
        )


def _to_template(message: Message) -> dict:
    """Returns a message as the chat template takes it, with blank images."""
    if isinstance(message.content, str):
        return {"role": message.role, "content": [{"type": "text", "text": message.content}]}
    items: list[dict] = []
    for item in message.content:
        if isinstance(item, ImageContent):
            items.append({"type": "image", "image": Image.new("RGB", (8, 8))})
        else:
            items.append({"type": "text", "text": item.text})
    return {"role": message.role, "content": items}


__all__ = ["PromptCheck"]
