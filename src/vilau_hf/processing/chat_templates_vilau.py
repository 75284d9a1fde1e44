# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Chat templates (jinja) of new checkpoints and of the original release."""

import json


VICUNA_SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

# The prompt ends in "ASSISTANT:" without a space. A text answer begins with its space (" text"), an image with its
# marker. So the ids of the prompt are the same in training and at inference, whatever the model answers.
_CHAT_TEMPLATE = r"""
{%- macro parts(content) -%}
    {%- if content is string -%}
        {%- if content | trim -%}{{ ' ' + content | trim }}{%- endif -%}
    {%- else -%}
        {%- for item in content -%}
            {%- if item.type == 'text' -%}
                {%- if item.text | trim -%}{{ ' ' + item.text | trim }}{%- endif -%}
            {%- elif item.type in ('image', 'video') -%}
                {{ '<' + item.type + '>' }}
            {%- else -%}
                {{ raise_exception('Content type must be text, image or video, got ' ~ item.type) }}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- set system = __SYSTEM_PROMPT__ -%}
{%- set state = namespace(gap='') -%}
{{- bos_token -}}
{%- if messages[0].role == 'system' -%}
    {%- set system = parts(messages[0].content) | trim -%}
{%- endif -%}
{%- if system and messages[0].role != 'document' -%}
    {{ system }}
    {%- set state.gap = ' ' -%}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{ state.gap + 'USER:' + parts(message.content) }}
        {%- set state.gap = ' ' -%}
    {%- elif message.role == 'assistant' -%}
        {{ state.gap + 'ASSISTANT:' }}
        {%- generation -%}{{ parts(message.content) }}{{ eos_token }}{%- endgeneration -%}
        {%- set state.gap = '' -%}
    {%- elif message.role == 'document' -%}
        {%- if message.content is string -%}
            {%- generation -%}{{ message.content }}{%- endgeneration -%}
        {%- else -%}
            {%- for item in message.content -%}
                {%- if item.type == 'text' -%}
                    {%- generation -%}{{ item.text }}{%- endgeneration -%}
                {%- else -%}
                    {{ parts([item]) }}
                {%- endif -%}
            {%- endfor -%}
        {%- endif -%}
        {%- generation -%}{{ eos_token }}{%- endgeneration -%}
        {%- set state.gap = '' -%}
    {%- elif message.role != 'system' or not loop.first -%}
        {{ raise_exception('Role must be system (first), user, assistant or document, got ' ~ message.role) }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ state.gap + 'ASSISTANT:' }}
{%- endif -%}
"""


def vilau_chat_template(system_prompt: str = VICUNA_SYSTEM_PROMPT) -> str:
    """
    Returns a chat template with the wording of vicuna v1: `{system} USER: {question} ASSISTANT: {answer}</s>`.

    `{% generation %}` marks the training targets: the answers of the assistant with their end token, and the text of a
    message with the role `document`. Images and videos of a `document` are not targets.

    Args:
        system_prompt (`str`, *optional*, defaults to the system prompt of vicuna v1): the text before a conversation
            that has no system message. `""` for none.
    """
    return _CHAT_TEMPLATE.strip().replace("__SYSTEM_PROMPT__", json.dumps(system_prompt))


# The differences to the template above follow the original code: each message is stripped as a whole, an empty message
# has no separators, and an image of the user is followed by a line break. The tokenizer adds the first token.
_ORIGINAL_CHAT_TEMPLATE = r"""
{%- macro parts(content, line_end) -%}
    {%- if content is string -%}
        {{ content }}
    {%- else -%}
        {%- for item in content -%}
            {%- if item.type == 'text' -%}
                {{ item.text }}
            {%- elif item.type in ('image', 'video') -%}
                {{ '<' + item.type + '>' + line_end }}
            {%- else -%}
                {{ raise_exception('Content type must be text, image or video, got ' ~ item.type) }}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- set system = __SYSTEM_PROMPT__ -%}
{%- if messages[0].role == 'system' -%}
    {%- set system = parts(messages[0].content, '') | trim -%}
{%- endif -%}
{{- system + ' ' -}}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {%- set text = parts(message.content, '\n') | trim -%}
        {{ 'USER: ' + text + ' ' if text else 'USER:' }}
    {%- elif message.role == 'assistant' -%}
        {%- set text = parts(message.content, '') | trim -%}
        {{ 'ASSISTANT:' }}
        {%- if text -%}
            {%- generation -%}{{ ' ' + text + eos_token }}{%- endgeneration -%}
        {%- endif -%}
    {%- elif message.role != 'system' or not loop.first -%}
        {{ raise_exception('Role must be system (first), user or assistant, got ' ~ message.role) }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ 'ASSISTANT:' }}
    {%- if generation_mode == 'image' -%}
        {{ ' <im_start>' }}
    {%- elif generation_mode == 'video' -%}
        {{ ' <vi_start>' }}
    {%- endif -%}
{%- endif -%}
"""


def original_chat_template() -> str:
    """
    Returns a chat template that renders prompts like the original VILA-U release.

    With `generation_mode="image"` or `"video"` the prompt ends with the start marker. Without it, `generate` adds the
    marker.
    """
    return _ORIGINAL_CHAT_TEMPLATE.strip().replace("__SYSTEM_PROMPT__", json.dumps(VICUNA_SYSTEM_PROMPT))


__all__ = ["VICUNA_SYSTEM_PROMPT", "original_chat_template", "vilau_chat_template"]
