"""`vilau env`."""

import argparse
import json

from ..environment import describe_environment


HELP = "print versions and devices, for a bug report"


def add_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--json", action="store_true", help="print one JSON object, for scripts")


def run(args: argparse.Namespace):
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
        place = "inside" if environment["transformers_is_tested"] else "OUTSIDE"
        rows["transformers"] += f" ({place} the tested window {environment['transformers_tested']})"
    rows["devices"] = ", ".join(environment["devices"]) or "CPU only"
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
