"""The `vilau` command."""

import argparse
import io
import logging
import os
import sys

from . import __version__
from .commands import (
    chat,
    convert,
    demo,
    encode,
    env,
    estimate,
    evaluate,
    generate,
    inspect,
    lmms_tasks,
    push,
    records,
    serve,
    train,
)


COMMANDS = {
    "demo": demo,
    "generate": generate,
    "chat": chat,
    "inspect": inspect,
    "convert": convert,
    "push": push,
    "serve": serve,
    "encode": encode,
    "records": records,
    "train": train,
    "estimate": estimate,
    "evaluate": evaluate,
    "lmms-tasks": lmms_tasks,
    "env": env,
}


# Exit codes of a command that Ctrl-C or a closed output ends, as shells report them. Otherwise 0 is success, 1 a
# mistake that was found while the command ran, and 2 a mistake in its arguments.
INTERRUPTED = 130
OUTPUT_CLOSED = 141


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command and of all its verbs, without importing a library."""
    parser = argparse.ArgumentParser(prog="vilau", description="VILA-U for Hugging Face")
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(required=True, dest="command", metavar="command")
    for name, command in COMMANDS.items():
        command.add_arguments(subparsers.add_parser(name, help=command.HELP, description=command.HELP))
    return parser


def main(argv: list[str] | None = None) -> None:
    """
    Runs the command.

    Args:
        argv (`list[str]`, *optional*): arguments of the command line. By default they are `sys.argv[1:]`.
    """
    parser = build_parser()
    args = _parse(parser, argv)
    if args.command == "env":
        # Runs before the imports below, since it must also work where the libraries cannot be imported.
        env.run(args)
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Reports name files and texts of any alphabet, which the encoding of a terminal may not have.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _silence_libraries()
        COMMANDS[args.command].run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        parser.exit(INTERRUPTED, "vilau: interrupted\n")
    except BrokenPipeError:
        # The reader of the output has ended, for example `head`. Python would report what is left of it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        parser.exit(OUTPUT_CLOSED)
    except (ValueError, ImportError, OSError) as error:
        # mistakes of the user, who needs the message and no traceback; other errors are mistakes of the package
        parser.exit(1, f"vilau: {error}\n")
    except _library_errors() as error:
        cause = "" if error.__cause__ is None else f" {' '.join(str(error.__cause__).split())}"
        parser.exit(1, f"vilau: {' '.join(str(error).split())}{cause}\n")
    except RuntimeError as error:
        # `torch.save` raises it if the disk is full (torch 2.14, caffe2/serialize/inline_container.cc).
        if "inline_container.cc" not in str(error):
            raise
        parser.exit(1, f"vilau: a file cannot be written, is the disk full? {error}\n")
    _leave_process_group()


def _parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parses the command line. Paths of `vilau records` may also follow options."""
    # argparse gives a list of positional arguments only those up to the next option. `parse_intermixed_args` would
    # give it all, but does not support verbs.
    args, rest = parser.parse_known_args(argv)
    if rest and (args.command != "records" or any(argument.startswith("-") for argument in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.paths += rest
    return args


def _library_errors() -> tuple[type[Exception], ...]:
    """Returns classes with which libraries report damaged files and full disks. None is a class of `main` above."""
    from datasets.exceptions import DatasetsError
    from safetensors import SafetensorError

    return DatasetsError, SafetensorError


def _silence_libraries() -> None:
    """Hides warnings and progress bars of libraries, so that the output of a verb is readable."""
    # diffusers reads it when it is imported. Some of its warnings come at that time.
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    # torchao 0.18, which diffusers imports, makes torch 2.14 warn of a deprecated function here.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _leave_process_group() -> None:
    """Ends distributed training, if the verb started it."""
    import torch

    # Threads of the process group can abort a process that ends while they run.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


__all__ = ["COMMANDS", "build_parser", "main"]


if __name__ == "__main__":
    main()
