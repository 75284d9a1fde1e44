"""Times quick answers of the command and imports. Each runs in a separate process, and its CPU time counts.

`import vilau_hf` imports no library. The first use of a class imports torch, transformers and some of diffusers, and
registers the classes. Its time is compared with the time of importing exactly the same modules of the libraries.

python benchmarks/bench_import.py
"""

import json
import platform
import resource
import statistics
import subprocess
import sys
from importlib.metadata import version

from figures import argument_parser, save_results

from vilau_hf.cli import COMMANDS


RUNS = 5
MODEL = "from vilau_hf import VilaUForConditionalGeneration"


def library_modules(code: str) -> list[str]:
    """Returns the modules of other packages that `code` imports, in their order."""
    script = f"""if True:
        import sys, json
        known = set(sys.modules)
        {code}
        found = []
        for name, module in sys.modules.items():
            spec = getattr(module, "__spec__", None)
            # some libraries put objects into `sys.modules` that cannot be imported by their name
            is_file = spec is not None and spec.name == name and spec.has_location
            if is_file and name not in known and name.split(".")[0] != "vilau_hf":
                found.append(name)
        print(json.dumps(found))
    """
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def cpu_seconds(arguments: list[str], expected_code: int = 0) -> float:
    """Returns the CPU seconds of a Python process, from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode != expected_code:
        raise RuntimeError(f"{arguments} ended with {run.returncode}: {run.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def import_all(names: list[str]) -> list[str]:
    return ["-c", f"import importlib\nfor name in {names!r}: importlib.import_module(name)"]


def main() -> None:
    folder = argument_parser(__doc__).parse_args().out
    command = ["-m", "vilau_hf.cli"]
    answers = {
        "vilau --help": ([*command, "--help"], 0),
        "vilau --version": ([*command, "--version"], 0),
        "vilau nonsense": ([*command, "nonsense"], 2),
        **{f"vilau {name} --help": ([*command, name, "--help"], 0) for name in COMMANDS},
    }
    variants = {
        "python -c pass": (["-c", "pass"], 0),
        "import vilau_hf": (["-c", "import vilau_hf"], 0),
        "libraries": (import_all(library_modules(MODEL)), 0),
        MODEL: (["-c", MODEL], 0),
        **answers,
    }
    times = {name: [] for name in variants}
    for run in range(RUNS + 1):
        for name, (arguments, code) in variants.items():
            seconds = cpu_seconds(arguments, code)
            if run:  # the first run fills the file caches
                times[name].append(seconds)
    median = {name: statistics.median(values) for name, values in times.items()}
    ratio = median[MODEL] / median["libraries"]
    for name, value in median.items():
        print(f"{name:52} {value:6.3f} s")
    save_results(
        "import",
        folder,
        median_cpu_s={name: round(value, 4) for name, value in median.items()},
        ratio=round(ratio, 3),
        runs=RUNS,
        python=platform.python_version(),
        diffusers=version("diffusers"),
    )


if __name__ == "__main__":
    main()
