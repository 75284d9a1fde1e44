"""The `vilau` command."""

import argparse

from . import __version__
from .commands import convert, demo, encode, env, estimate, push, records, serve, train


COMMANDS = {
    "demo": demo,
    "convert": convert,
    "push": push,
    "serve": serve,
    "encode": encode,
    "records": records,
    "train": train,
    "estimate": estimate,
    "env": env,
}


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
    args = parser.parse_args(argv)
    if args.command == "env":
        # Runs before the imports below, since it must also work where the libraries cannot be imported.
        env.run(args)
        return
    try:
        _silence_libraries()
        COMMANDS[args.command].run(args)
    except (ValueError, ImportError, OSError) as error:
        # mistakes of the user, who needs the message and no traceback; other errors are mistakes of the package
        parser.exit(1, f"vilau: {error}\n")
    _leave_process_group()


def _silence_libraries() -> None:
    """Hides warnings and progress bars of transformers, so that the output of a verb is readable."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _leave_process_group() -> None:
    """Ends distributed training, if the verb started it."""
    import torch

    # Threads of the process group can abort a process that ends while they run.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


__all__ = ["COMMANDS", "build_parser", "main"]


if __name__ == "__main__":
    main()
