"""Emoji in four styles and as clips: records from npm packages, their split, training data, and a judge.

`vilau records emoji` makes the records. `examples/emoji/` trains a model on them. `docs/emoji.md` tells where the
images come from, under which licences, and what is held out of training.
"""

from .dataset import CaptionedEmoji, load_emoji
from .records import emoji_records
from .tasks import EmojiTasks, load_clips


__all__ = ["CaptionedEmoji", "EmojiTasks", "emoji_records", "load_clips", "load_emoji"]
