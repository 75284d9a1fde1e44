"""`vilau serve`."""

import argparse
import contextlib

from .. import TINY_CHECKPOINT


HELP = "serve a model over HTTP for chats about images, for clients of the OpenAI API"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.add_argument(
        "--model", default=TINY_CHECKPOINT, help="folder or Hub id of the model (default: the shipped checkpoint)"
    )
    parser.add_argument("--host", default="localhost", help="network address of the server (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port of the server (default: %(default)s)")
    parser.add_argument(
        "--device", default="auto", help="device of the model, for example cuda:0 (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype", default="auto", help="dtype of the weights (default: %(default)s, the dtype of the checkpoint)"
    )


def run(args: argparse.Namespace) -> None:
    """Starts the server and runs it until it is interrupted."""
    from transformers.utils import logging

    from ..serving import serve_model

    logging.set_verbosity_warning()
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is the usual way to end a server
        serve_model(args.model, host=args.host, port=args.port, device=args.device, dtype=args.dtype)
