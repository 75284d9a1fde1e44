"""`vilau env`."""

import argparse
import json

from ..environment import describe_environment


HELP = "print versions and devices, for a bug report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace) -> None:
    """Prints versions and devices as a table or as JSON."""
    environment = describe_environment()
    if args.json:
        print(json.dumps(environment))
        return
    rows = {name: environment[name] for name in ("vilau_hf", "python", "platform")}
    for name, version in environment["packages"].items():
        rows[name] = version or "not installed"
    if environment["torch_backend"] is not None:
        rows["torch"] += f" ({environment['torch_backend']})"
    if environment["transformers_is_tested"] is not None:
        position = "inside" if environment["transformers_is_tested"] else "OUTSIDE"
        rows["transformers"] += f" ({position} the tested window {environment['transformers_tested']})"
    rows["devices"] = ", ".join(environment["devices"]) or "CPU only"
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
