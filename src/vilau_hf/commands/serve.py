"""`vilau serve`."""

import argparse
import contextlib

from .. import TINY_CHECKPOINT


HELP = "answer chats about images over HTTP, for clients of OpenAI's API"


def add_arguments(parser: argparse.ArgumentParser):
    parser.add_argument(
        "--model", default=TINY_CHECKPOINT, help="folder or Hub id of a model (default: the shipped checkpoint)"
    )
    parser.add_argument("--host", default="localhost", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="device of the model, as in cuda:0 (default: %(default)s)")
    parser.add_argument(
        "--dtype", default="auto", help="dtype of the weights (default: %(default)s, the dtype of the checkpoint)"
    )


def run(args: argparse.Namespace):
    from transformers.utils import logging

    from ..serving import serve_model

    logging.set_verbosity_warning()
    with contextlib.suppress(KeyboardInterrupt):  # the way to end a server
        serve_model(args.model, host=args.host, port=args.port, device=args.device, dtype=args.dtype)
