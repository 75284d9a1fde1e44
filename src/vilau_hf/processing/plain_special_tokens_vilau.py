# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""
Special tokens in the text of messages are tokenized as plain text, so that no text can end a turn or begin another.

Chat templates render messages to one string, in which a `</s>` of the template and a `</s>` of a user look the same.
Therefore a mark is put into each special token of a message before it is rendered. A tokenizer that removes marks
after it has searched for special tokens reads the string. Texts without special tokens have no marks.

transformers 5.23 has `sanitize_control_tokens` for this, but only with `tokenize=True`, without the ranges of the
assistant that training needs, and not in 5.20. This file can go when these limits are gone.
"""

import copy
import json
import re
import weakref
from types import NoneType
from typing import Any

from transformers import PreTrainedTokenizerBase


# A noncharacter of Unicode, which no text may contain.
MARK = "\ufdd0"

# Tokenizers that remove marks, each with the settings of its original, which may change later.
_READERS: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, tuple[dict[str, Any], PreTrainedTokenizerBase]] = (
    weakref.WeakKeyDictionary()
)


def mark_special_tokens(messages: Any, tokenizer: PreTrainedTokenizerBase) -> Any:
    """
    Puts a mark into each special token in the text of messages.

    Args:
        messages (`list[dict]` or `list[list[dict]]`): one or several conversations.
        tokenizer (`PreTrainedTokenizerBase`): has the special tokens.

    Returns:
        The messages. Those with special tokens in their text are new, and all others are the given ones.
    """
    tokens = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens.update(tokenizer.all_special_tokens)
    # The longest first, because a token can begin with another one.
    pattern = re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) or "(?!)")
    return _mark_conversations(messages, pattern)


def _mark_conversations(messages: Any, pattern: re.Pattern[str]) -> Any:
    if hasattr(messages, "messages"):  # a `Chat` of the pipelines of transformers
        messages = messages.messages
    if not isinstance(messages, (list, tuple)):
        return messages
    return [
        _mark_message(item, pattern) if isinstance(item, dict) else _mark_conversations(item, pattern)
        for item in messages
    ]


def _mark_message(message: dict, pattern: re.Pattern[str]) -> dict:
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": _mark(content, pattern)}
    if not isinstance(content, (list, tuple)):
        return message
    texts = [part["text"] if _is_text(part) else "" for part in content]
    # Templates may join texts without a space, so that the end of one and the beginning of the next are a token.
    is_joined = len(pattern.findall("".join(texts))) > sum(len(pattern.findall(text)) for text in texts)
    prefix = MARK if is_joined else ""
    parts = [{**part, "text": prefix + _mark(part["text"], pattern)} if _is_text(part) else part for part in content]
    return {**message, "content": parts}


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _mark(text: str, pattern: re.Pattern[str]) -> str:
    return pattern.sub(lambda match: match[0][0] + MARK + match[0][1:], text)


def tokenizer_for(texts: str | list[str], tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """
    Returns the tokenizer that reads texts: the given one, or a copy that removes marks if there are any.

    Args:
        texts (`str` or `list[str]`): rendered prompts.
        tokenizer (`PreTrainedTokenizerBase`): a tokenizer of the library tokenizers.
    """
    if not any(MARK in text for text in ([texts] if isinstance(texts, str) else texts)):
        return tokenizer
    given = _settings_of(tokenizer)
    settings, reader = _READERS.get(tokenizer, ({}, tokenizer))
    if settings != given:
        reader = _without_marks(tokenizer)
        _READERS[tokenizer] = (given, reader)
    return reader


def _settings_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Returns what a user may change in a tokenizer: its plain attributes, special tokens and number of tokens."""
    plain = {name: value for name, value in vars(tokenizer).items() if isinstance(value, (str, int, float, NoneType))}
    return {**plain, "special tokens": tokenizer.special_tokens_map, "tokens": len(tokenizer)}


def _without_marks(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Returns a copy of a tokenizer that removes marks after the search for special tokens."""
    reader = copy.deepcopy(tokenizer)
    backend = reader.backend_tokenizer
    state = json.loads(backend.to_str())
    # Parsed from JSON, since files of this folder import no other library than those of their list.
    if any(token["normalized"] and token["special"] for token in state["added_tokens"]):
        # Such tokens are searched for in normalized text, as in the tokenizer of the original release. So the mark is
        # removed in the next step, which splits the text there.
        removal = {"type": "Split", "pattern": {"String": MARK}, "behavior": "Removed", "invert": False}
        state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": _with_first(removal, state["pre_tokenizer"])}
        backend.pre_tokenizer = type(backend).from_str(json.dumps(state)).pre_tokenizer
    else:
        # Then the ids are exactly those of the text without special tokens.
        removal = {"type": "Replace", "pattern": {"String": MARK}, "content": ""}
        state["normalizer"] = {"type": "Sequence", "normalizers": _with_first(removal, state["normalizer"])}
        backend.normalizer = type(backend).from_str(json.dumps(state)).normalizer
    return reader


def _with_first(step: dict, following: dict | None) -> list[dict]:
    return [step] if following is None else [step, following]


__all__ = ["MARK", "mark_special_tokens", "tokenizer_for"]
