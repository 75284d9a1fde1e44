"""`vilau chat`."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..choices import IMAGE_DISPLAYS
from .generate import DEFAULT_MODEL


if TYPE_CHECKING:
    from ..terminal.answer_streamer import Medium
    from ..terminal.chat_session import ChatSession
    from ..terminal.conversation import Conversation


# The checkpoints of the package. Their training data are single questions and answers.
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
HELP = "talk with a model in the terminal, with images and videos in both directions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.epilog = (
        "In the chat, /help lists the commands, Ctrl-C stops an answer, and Ctrl-D ends. If the input is no terminal, "
        "each of its lines is a message or a command, and the first mistake ends the chat with exit code 1."
    )
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="folder or Hub id of the model (default: the shipped checkpoint)"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub (default: main)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("vilau_chat"),
        help="folder for the images and videos of the answers (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        choices=IMAGE_DISPLAYS,
        default="auto",
        help="how images are shown in the terminal (default: as the terminal can, not with NO_COLOR)",
    )
    parser.add_argument("--json", action="store_true", help="print each answer as one JSON object on a line")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first answer; the next have the numbers after it (default: 0)"
    )
    parser.add_argument(
        "--guidance-scale", type=float, help="scale of classifier-free guidance (default here: as the model saves)"
    )
    parser.add_argument(
        "--max-images", type=int, default=4, help="most images and videos of an answer (default: %(default)s)"
    )
    parser.add_argument("--num-frames", type=int, help="number of frames of a video (default: as the model saves)")
    parser.add_argument(
        "--history",
        action=argparse.BooleanOptionalAction,
        help="whether the model reads the messages before (default: yes, except for the shipped checkpoints, which "
        "learned to answer single messages)",
    )
    parser.add_argument(
        "--device", default="auto", help="device of the model, for example cuda:0 (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="dtype of the weights (default: %(default)s, the dtype of the checkpoint)",
    )


def run(args: argparse.Namespace) -> None:
    """Runs the chat until the input ends."""
    from ..evaluation.drawing_run import check_seeds

    # Before the model is loaded, so that a mistake costs no time.
    check_seeds(args.seed, 1)
    for option, number in (("--max-images", args.max_images), ("--num-frames", args.num_frames)):
        if number is not None and number < 1:
            raise ValueError(f"`{option}` must be at least 1, got {number}.")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"`--out` must be a folder, got {args.out}, which is a file.")
    conversation = _load(args)
    if args.json:
        _run_for_scripts(args, conversation)
    else:
        _run_for_people(args, conversation)


def _load(args: argparse.Namespace) -> "Conversation":
    """Loads the model, and begins a conversation."""
    from ..data.code_cache import launched_processes
    from ..evaluation.drawing_model import load_pipeline
    from ..terminal.conversation import Conversation

    device = launched_processes().device if args.device == "auto" else args.device
    pipe = load_pipeline(args.model, args.revision, device, args.dtype)
    given = {"guidance_scale": args.guidance_scale, "num_frames": args.num_frames}
    settings = {name: value for name, value in given.items() if value is not None}
    return Conversation(pipe.model, pipe.processor, args.max_images, settings, _keeps_history(args))


def _keeps_history(args: argparse.Namespace) -> bool:
    """Returns whether messages are answered with those before."""
    return not Path(args.model).is_relative_to(CHECKPOINTS) if args.history is None else args.history


def _run_for_scripts(args: argparse.Namespace, conversation: "Conversation") -> None:
    """Prints each answer as a line of JSON."""
    from ..terminal.chat_session import ChatSession
    from ..terminal.views import ContentView

    views: list[tuple[ContentView, int]] = []

    def make_view(text: str, seed: int) -> ContentView:
        views.append((ContentView(lambda medium: _save(medium, args.out, text, seed)), seed))
        return views[-1][0]

    session = ChatSession(conversation, make_view, lambda text: print(text, file=sys.stderr), args.seed)
    for line in _lines(""):
        session.handle(line)
        for view, seed in views:
            print(json.dumps({"role": "assistant", "seed": seed, "content": view.content}, ensure_ascii=False))
            sys.stdout.flush()
        views.clear()
        if session.is_ended:
            return


def _run_for_people(args: argparse.Namespace, conversation: "Conversation") -> None:
    """Shows answers as they are generated. At a terminal, mistakes and Ctrl-C do not end the chat."""
    from rich.console import Console

    from ..terminal.chat_session import ChatSession
    from ..terminal.image_display import choose_display
    from ..terminal.views import ConsoleView

    console = Console(highlight=False)
    display = choose_display(console, args.images)
    is_interactive = sys.stdin.isatty()

    def make_view(text: str, seed: int) -> ConsoleView:
        return ConsoleView(console, display, lambda medium: _save(medium, args.out, text, seed))

    # Standard output of a script has answers alone.
    notes = console if is_interactive else Console(stderr=True, highlight=False)

    def say(text: str) -> None:
        notes.print(text, style="dim", markup=False, soft_wrap=True)

    session = ChatSession(conversation, make_view, say, args.seed)
    if is_interactive:
        say(f"{Path(args.model).name}. Type a message, or /help. Ctrl-D ends.")
        if not conversation.keeps_history:
            say("This model learned single messages, so each is answered alone. /edit changes the last image.")
    for line in _lines("> " if is_interactive else ""):
        if is_interactive:
            _handle_with_mistakes(session, line)
        else:
            session.handle(line)
        if session.is_ended:
            return


def _handle_with_mistakes(session: "ChatSession", line: str) -> None:
    """Handles a line, and reports a mistake or Ctrl-C."""
    try:
        session.handle(line)
    except KeyboardInterrupt:
        session.say("Stopped.")
    except (ValueError, OSError) as error:
        session.say(f"vilau: {error}")


def _lines(prompt: str) -> Iterator[str]:
    """Yields the lines of standard input. With a prompt, they can be edited, and Ctrl-C begins a new line."""
    if not prompt:
        yield from sys.stdin
        return
    try:
        import readline  # noqa: F401  # gives `input` its history and editing
    except ImportError:  # Windows has its own
        pass
    while True:
        try:
            yield input(prompt)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\nCtrl-D ends the chat.")


def _save(medium: "Medium", out: Path, text: str, seed: int) -> Path:
    """Writes an image or a video of an answer, and returns its file."""
    from ..evaluation.drawing_files import name_files, write_results

    is_video = medium.kind == "video"
    out.mkdir(parents=True, exist_ok=True)  # otherwise a name with a suffix would be that of a file
    paths = name_files(out, text, [seed], is_video)
    write_results([medium.frames if is_video else medium.frames[0]], paths)
    return paths[0]
