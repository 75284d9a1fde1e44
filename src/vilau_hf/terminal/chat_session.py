"""Lines that a user types in a chat: messages and commands."""

import shlex
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from ..evaluation.opened_media import open_media
from ..evaluation.prompt_files import check_text
from .answer_streamer import AnswerStreamer, AnswerView, Medium
from .conversation import Conversation


Mode: TypeAlias = Literal["interleaved", "image", "video"]

COMMANDS = {
    "/attach FILE...": "send images, animations or videos with the next message",
    "/draw PROMPT": "answer with an image",
    "/edit PROMPT": "change the last image of the chat",
    "/animate PROMPT": "answer with a video",
    "/retry": "answer the last message again, with the next seed",
    "/seed N": "seed of the next answer; later answers have the numbers after it",
    "/new": "forget the conversation",
    "/help": "show this list",
    "/quit": "end, like Ctrl-D",
}


class ChatSession:
    """
    Reads the lines of a user, and answers them.

    Args:
        conversation ([`Conversation`]): the conversation.
        make_view (`Callable[[str, int], AnswerView]`): returns the view of an answer to a text with a seed.
        say (`Callable[[str], None]`): shows a line that is no answer.
        seed (`int`, *optional*, defaults to 0): seed of the first answer. Later answers have the numbers after it.
    """

    def __init__(
        self,
        conversation: Conversation,
        make_view: Callable[[str, int], AnswerView],
        say: Callable[[str], None],
        seed: int = 0,
    ) -> None:
        self.conversation = conversation
        self.make_view = make_view
        self.say = say
        self.seed = seed
        self.attached: list[str | Medium] = []
        self.last_image: Medium | None = None
        self.last_message: tuple[list[str | Medium], str, Mode] | None = None
        self.is_ended = False

    def handle(self, line: str) -> None:
        """
        Answers a message, or runs a command.

        Args:
            line (`str`): the line.

        Raises:
            ValueError: for a wrong command, a file that cannot be read, or a conversation that is too long.
        """
        line = line.strip()
        check_text(line, "the message")
        if not line.startswith("/"):
            if line or self.attached:
                self._answer(line, "interleaved")
            return
        name, _, rest = line.partition(" ")
        commands: dict[str, Callable[[str], Any]] = {
            "/attach": self._attach,
            "/draw": lambda prompt: self._answer(self._required(prompt, name), "image"),
            "/edit": lambda prompt: self._edit(self._required(prompt, name)),
            "/animate": lambda prompt: self._answer(self._required(prompt, name), "video"),
            "/retry": lambda _: self._retry(),
            "/seed": self._set_seed,
            "/new": lambda _: self._forget(),
            "/help": lambda _: self._show_help(),
            "/quit": lambda _: self._end(),
        }
        if name not in commands:
            raise ValueError(f"there is no command {name}. The commands are {', '.join(commands)}.")
        commands[name](rest.strip())

    def _answer(self, text: str, mode: Mode) -> None:
        parts = [*self.attached, *([text] if text else [])]
        self._generate(parts, text, mode)
        self.attached = []

    def _edit(self, prompt: str) -> None:
        if self.last_image is None:
            raise ValueError("/edit needs an image in the chat. /attach one, or /draw one.")
        self._generate([self.last_image, prompt], prompt, "image")

    def _generate(self, parts: list[str | Medium], text: str, mode: Mode) -> None:
        seed = self.seed
        answer = self.conversation.answer(parts, self.make_view(text, seed), seed, mode)
        self.seed = seed + 1
        self.last_message = (parts, text, mode)
        for part in [*parts, *answer.parts]:
            if isinstance(part, Medium) and part.kind == "image":
                self.last_image = part
        self._report(answer)

    def _report(self, answer: AnswerStreamer) -> None:
        """Says what the answer lacks."""
        if answer.num_cut_off:
            self.say(f"An image was cut off after {answer.num_cut_off} positions: the conversation is too long. /new")
        elif not answer.parts:
            self.say("The model answered with nothing.")

    def _retry(self) -> None:
        if self.last_message is None:
            raise ValueError("/retry needs a message before it.")
        before = self.conversation.messages
        self.conversation.messages = before[:-2]  # without the message and its answer
        try:
            self._generate(*self.last_message)
        except BaseException:  # also Ctrl-C, after which the old answer stays
            self.conversation.messages = before
            raise

    def _attach(self, files: str) -> None:
        # Terminals quote the names of files that are dropped on them, as shells do.
        names = shlex.split(self._required(files, "/attach"))
        opened = [open_media(name, self.conversation.num_frames) for name in names]
        self.attached += [self.conversation.encode(kind, frames) for kind, frames in opened]
        self.say(f"{len(names)} attached. The next message will have {len(self.attached)}.")

    def _set_seed(self, number: str) -> None:
        if not (number.isascii() and number.isdigit()) or int(number) >= 2**63:
            raise ValueError(f"/seed needs a number from 0 to 2^63 - 1, got {number[:30]!r}.")
        self.seed = int(number)

    def _forget(self) -> None:
        self.conversation.messages = []
        self.attached = []
        self.last_image = None
        self.last_message = None
        self.say("The conversation is empty.")

    def _show_help(self) -> None:
        width = max(map(len, COMMANDS))
        for name, meaning in COMMANDS.items():
            self.say(f"{name:<{width}}  {meaning}")

    def _end(self) -> None:
        self.is_ended = True

    @staticmethod
    def _required(text: str, name: str) -> str:
        if not text:
            raise ValueError(f"{name} needs something after it. /help lists the commands.")
        return text


__all__ = ["COMMANDS", "ChatSession"]
