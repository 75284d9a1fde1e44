"""`vilau serve`."""

import argparse
import contextlib
import os

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
    parser.add_argument(
        "--api-key",
        help="key that clients must send (default: the environment variable VILAU_API_KEY, which other users of the "
        "machine cannot see in the list of processes; without both, no key is needed)",
    )
    parser.add_argument(
        "--allow-media-domains",
        nargs="+",
        default=[],
        metavar="DOMAIN",
        help="hosts from which images of requests are fetched (default: none, images must be `data:` URLs)",
    )
    parser.add_argument(
        "--allow-local-media", metavar="DIR", help="folder of this machine with images that requests may name"
    )
    parser.add_argument(
        "--media-timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="time limit to fetch all images of a request (default: %(default)s)",
    )
    parser.add_argument(
        "--max-media-mib",
        type=int,
        default=20,
        metavar="MIB",
        help="size limit of an image file (default: %(default)s)",
    )
    parser.add_argument(
        "--max-body-mib", type=int, default=32, metavar="MIB", help="size limit of a request (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Starts the server and runs it until it is interrupted."""
    from transformers.utils import logging

    from ..serving import MediaSources, serve_model

    logging.set_verbosity_warning()
    media = MediaSources(
        domains=args.allow_media_domains,
        local_folder=args.allow_local_media,
        timeout=args.media_timeout,
        max_bytes=args.max_media_mib * 2**20,
    )
    api_key = os.environ.get("VILAU_API_KEY") if args.api_key is None else args.api_key
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is the usual way to end a server
        serve_model(
            args.model,
            api_key=api_key,
            media=media,
            max_body_bytes=args.max_body_mib * 2**20,
            host=args.host,
            port=args.port,
            device=args.device,
            dtype=args.dtype,
        )
