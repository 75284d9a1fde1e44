"""Bodies of the requests that the server accepts, by the API of OpenAI."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import RequestError


# Fields of the API that do not change the answer. They are accepted and not passed on.
IGNORED = {
    "background", "include", "metadata", "parallel_tool_calls", "prompt_cache_key", "reasoning_effort",
    "safety_identifier", "service_tier", "store", "stream_options", "truncation", "user", "verbosity",
}  # fmt: skip
# Fields that would change the answer and that this server does not support, each with the values that ask for nothing.
# transformers ignores them silently. It fails at `stop`, whose criterion needs a tokenizer (5.20.2 to 5.24.0).
UNSUPPORTED: dict[str, tuple] = {
    "stop": ([],),
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": (),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "text": ({"format": {"type": "text"}},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "max_tool_calls": (),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "previous_response_id": (),
    "reasoning": (),
    "chat_template_kwargs": ({},),
}

# Smaller numbers are 0 or infinite in the arithmetic of a model, which then has no next token.
SMALLEST_TEMPERATURE = 1e-5
SMALLEST_PENALTY = 1e-5
LARGEST_PENALTY = 1e5


def _check_temperature(value: float) -> float:
    """Returns a temperature that is 0, for greedy decoding, or can divide logits."""
    if 0 < value < SMALLEST_TEMPERATURE:
        raise ValueError(f"Input should be 0 or at least {SMALLEST_TEMPERATURE}")
    return value


TokenCount = Annotated[int, Field(ge=1, le=2**31 - 1)]
Temperature = Annotated[float, Field(ge=0, le=2), AfterValidator(_check_temperature)]
Probability = Annotated[float, Field(ge=0, le=1)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]


class _Strict(BaseModel):
    # `strict`: a string is no number, as in the API. `allow_inf_nan`: JSON of Python can hold NaN.
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class TextContent(_Strict):
    """A text of a message."""

    type: Literal["text", "input_text", "output_text"]
    text: str
    annotations: list | None = Field(default=None, exclude=True)
    logprobs: list | None = Field(default=None, exclude=True)


class ImageAddress(_Strict):
    """The address of an image in the chat API."""

    url: str
    detail: Literal["auto", "low", "high"] | None = Field(default=None, exclude=True)


class ImageContent(_Strict):
    """An image of a message."""

    type: Literal["image_url", "input_image"]
    image_url: ImageAddress | str
    detail: Literal["auto", "low", "high"] | None = Field(default=None, exclude=True)

    @property
    def address(self) -> str:
        """Returns the address that the client gave."""
        return self.image_url if isinstance(self.image_url, str) else self.image_url.url

    def replace(self, address: str) -> None:
        """Replaces the address."""
        self.image_url = address if isinstance(self.image_url, str) else ImageAddress(url=address)


Content = Annotated[TextContent | ImageContent, Field(discriminator="type")]


class Message(_Strict):
    """A message of a chat."""

    type: Literal["message"] = Field(default="message", exclude=True)
    role: Literal["system", "user", "assistant"]
    content: str | list[Content]
    name: str | None = Field(default=None, exclude=True)
    id: str | None = Field(default=None, exclude=True)
    status: str | None = Field(default=None, exclude=True)
    refusal: None = Field(default=None, exclude=True)

    def texts(self) -> list[str]:
        """Returns the texts of the message."""
        if isinstance(self.content, str):
            return [self.content]
        return [item.text for item in self.content if isinstance(item, TextContent)]

    def images(self) -> list[ImageContent]:
        """Returns the images of the message."""
        if isinstance(self.content, str):
            return []
        return [item for item in self.content if isinstance(item, ImageContent)]


class GenerationOptions(_Strict):
    """The options of transformers' `GenerationConfig` that a client may set."""

    do_sample: bool | None = None
    temperature: Annotated[float, Field(ge=SMALLEST_TEMPERATURE)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: Probability | None = None
    min_p: Probability | None = None
    repetition_penalty: Annotated[float, Field(ge=SMALLEST_PENALTY, le=LARGEST_PENALTY)] | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=0)] | None = None
    max_new_tokens: TokenCount | None = None
    min_new_tokens: Annotated[int, Field(ge=0)] | None = None
    bos_token_id: TokenId | None = None
    pad_token_id: TokenId | None = None
    eos_token_id: TokenId | Annotated[list[TokenId], Field(min_length=1)] | None = None
    # `GenerationConfig.to_json_string` adds these two
    transformers_version: str | None = Field(default=None, exclude=True)
    from_model_config: bool | None = Field(default=None, alias="_from_model_config", exclude=True)


class TextRequest(_Strict):
    """The fields that all requests for text share."""

    model: str | None = None
    stream: bool | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    # the range of `torch.manual_seed` that JSON of all languages can hold
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    generation_config: str | None = None

    @model_validator(mode="before")
    @classmethod
    def remove_unsupported_fields(cls, values: Any) -> Any:
        """Removes fields that change nothing, and refuses those that this server cannot follow."""
        if not isinstance(values, dict):
            return values
        kept = {}
        for name, value in values.items():
            if name in cls.model_fields:
                kept[name] = value
            elif name in UNSUPPORTED:
                if value is not None and value not in UNSUPPORTED[name]:
                    raise ValueError(f"`{name}` is not supported by this server, leave it out.")
            elif name not in IGNORED:
                kept[name] = value
        return kept

    @field_validator("generation_config")
    @classmethod
    def check_generation_config(cls, text: str | None) -> str | None:
        """Returns the JSON of the accepted options."""
        if text is None:
            return None
        return GenerationOptions.model_validate_json(text).model_dump_json(exclude_unset=True)

    def conversation(self) -> list[Message]:
        """Returns the messages of the prompt."""
        return []

    def images(self) -> Iterator[ImageContent]:
        """Yields the images of the request, which can be replaced."""
        for message in self.conversation():
            yield from message.images()

    def texts(self) -> Iterator[str]:
        """Yields the texts of the prompt."""
        for message in self.conversation():
            yield from message.texts()


class ChatRequest(TextRequest):
    """The body of `/v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    # transformers adds 1 and uses it as `repetition_penalty`, which must be positive
    frequency_penalty: Annotated[float, Field(gt=-1, le=2)] | None = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None = (
        None
    )

    @field_validator("logit_bias")
    @classmethod
    def remove_empty_bias(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        """Returns `None` for an empty bias, which transformers refuses."""
        return bias or None

    def conversation(self) -> list[Message]:
        """Returns the messages."""
        return self.messages


class CompletionRequest(TextRequest):
    """The body of `/v1/completions`."""

    prompt: Annotated[str, Field(min_length=1)]
    max_tokens: TokenCount | None = None
    frequency_penalty: Annotated[float, Field(gt=-1, le=2)] | None = None

    def texts(self) -> Iterator[str]:
        """Yields the prompt."""
        yield self.prompt


class ResponsesRequest(TextRequest):
    """The body of `/v1/responses`."""

    input: str | Annotated[list[Message], Field(min_length=1)] | Annotated[list[Content], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: TokenCount | None = None

    def conversation(self) -> list[Message]:
        """Returns the messages, as transformers makes them of input and instructions."""
        if isinstance(self.input, str):
            messages = [Message(role="user", content=self.input)]
        else:
            messages = [item for item in self.input if isinstance(item, Message)]
            items = [item for item in self.input if not isinstance(item, Message)]
            if items:
                # without validation, so that the message holds the same objects and an image can be replaced
                messages = [Message.model_construct(role="user", content=items)]
        if not self.instructions:
            return messages
        rest = messages[1:] if messages[0].role == "system" else messages
        return [Message(role="system", content=self.instructions), *rest]


def parse(schema: type[TextRequest], body: bytes) -> TextRequest:
    """
    Returns the checked body of a request.

    Args:
        schema (`type[TextRequest]`): the class of the request.
        body (`bytes`): JSON.

    Raises:
        RequestError: if the body is not JSON, or a field is missing, unknown or out of range.
    """
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        # A union reports each of its cases. The case that the client meant fails at the deepest field.
        depth = max(len(item["loc"]) for item in found)
        lines = []
        for item in [item for item in found if len(item["loc"]) == depth][:3]:
            # The names of cases are types, such as `list[Message]`.
            keys = [str(key) for key in item["loc"] if isinstance(key, int) or key.islower() and "[" not in key]
            name = ".".join(key for key in keys if key != "str")
            text = item["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {text}" if name else text)
        param = str(found[0]["loc"][0]) if found[0]["loc"] else None
        raise RequestError("; ".join(lines), param=param) from error


__all__ = [
    "ChatRequest",
    "CompletionRequest",
    "ImageContent",
    "Message",
    "ResponsesRequest",
    "TextRequest",
    "parse",
]
