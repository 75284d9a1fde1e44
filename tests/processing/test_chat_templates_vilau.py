"""Rendered prompts of both chat templates."""

import pytest

from vilau_hf import original_chat_template, vilau_chat_template
from vilau_hf.processing.chat_templates_vilau import VICUNA_SYSTEM_PROMPT

from .conftest import IMAGE, VIDEO, assistant, build_processor, text, user


def test_prompts_have_the_wording_of_vicuna(processor):
    messages = [user(text("what is this ")), assistant(text("a square")), user(text("draw it"))]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert prompt == f"<s>{VICUNA_SYSTEM_PROMPT} USER: what is this ASSISTANT: a square</s>USER: draw it ASSISTANT:"


def test_renders_media_in_order_and_strings_as_content(processor):
    messages = [
        {"role": "system", "content": "draw a circle"},
        user(text("what"), IMAGE, text("then"), VIDEO, IMAGE),
        {"role": "assistant", "content": "red"},
    ]
    expected = "<s>draw a circle USER: what<image> then<video><image> ASSISTANT: red</s>"
    assert processor.apply_chat_template(messages) == expected
    bare = build_processor(chat_template=vilau_chat_template(""))
    assert bare.apply_chat_template(messages[1:]) == expected.replace("draw a circle ", "")
    quoted = build_processor(chat_template=vilau_chat_template('Say "\\n" or\nit\'s'))
    assert quoted.apply_chat_template([user()]) == '<s>Say "\\n" or\nit\'s USER:'


def test_renders_a_document_without_prompt_and_with_unchanged_text(processor):
    messages = [{"role": "document", "content": [text("a red "), IMAGE, text("\nsquare")]}]
    assert processor.apply_chat_template(messages) == "<s>a red <image>\nsquare</s>"


@pytest.mark.parametrize("message", [{"role": "tool", "content": "a"}, user({"type": "audio"})])
def test_rejects_unknown_roles_and_content_types(processor, message):
    with pytest.raises(Exception, match="must be"):
        processor.apply_chat_template([user(text("a")), message])


def test_original_template_drops_separators_around_an_empty_message():
    processor = build_processor(chat_template=original_chat_template())

    def render(content, **kwargs):
        return processor.apply_chat_template([{"role": "user", "content": content}], **kwargs)

    assert render(" ", add_generation_prompt=True).endswith(" USER:ASSISTANT:")
    assert render("draw it", add_generation_prompt=True).endswith(" USER: draw it ASSISTANT:")
    assert render([{"type": "image"}, {"type": "text", "text": "it"}]).endswith(" USER: <image>\nit ")
    for mode, marker in (("image", "<im_start>"), ("video", "<vi_start>")):
        assert render("it", add_generation_prompt=True, generation_mode=mode).endswith(f"ASSISTANT: {marker}")
    ids = processor.unconditional_prompt_ids()
    assert ids == processor.tokenizer(f"{VICUNA_SYSTEM_PROMPT} USER:ASSISTANT:")["input_ids"]
