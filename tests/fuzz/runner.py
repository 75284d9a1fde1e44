"""Runs cases of an entry point, which hypothesis draws from a fixed seed."""

import importlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator

import hypothesis
from transformers.utils import logging

from .classification import CLASSES, FAILURES, Case, Outcome, run_case


# module -> name in the table, and share of the cases in thousandths
ENTRY_POINTS = {
    "images": ("images through image processor and processor", 264),
    "texts": ("texts, videos, chats, training samples, post-processing", 183),
    "generation": ("`generate`", 125),
    "scoring": ("`score`, `decode_image_tokens`, `decode_video_tokens`, `decode_visual_spans`", 85),
    "configurations": ("configurations and models on the meta device", 79),
    "pipelines": ("`VilaUPipeline` and tasks of `pipeline`", 37),
    "converters": ("record converters and writing", 132),
    "command_line": ("recipes, mixtures, command line", 95),
}


def run_entry_point(
    name: str,
    cases: int,
    seed: int = 0,
    only: int | None = None,
    report: Callable[[int, Outcome], None] = lambda index, outcome: None,
) -> Counter[str]:
    """
    Runs cases of one entry point and counts their classes.

    Args:
        name (`str`): one of `ENTRY_POINTS`.
        cases (`int`): number of cases. The cases depend on it and on `seed`, and on nothing else.
        seed (`int`, *optional*, defaults to 0): seed of hypothesis.
        only (`int`, *optional*): runs only this case. All are drawn, since hypothesis draws them in order.
        report (`Callable`, *optional*): called with number and outcome of each case.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    counts: Counter[str] = Counter()
    numbers = itertools.count()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(importlib.import_module(f".{name}", __package__).cases())
    def run(case: Case) -> None:
        number = next(numbers)
        if only is None or number == only:
            outcome = run_case(case)
            counts[outcome.kind] += 1
            report(number, outcome)

    run()
    return counts


def shares(cases: int) -> Iterator[tuple[str, int]]:
    """Yields each entry point with its share of all cases."""
    for name, (_, share) in ENTRY_POINTS.items():
        yield name, max(1, round(cases * share / sum(each for _, each in ENTRY_POINTS.values())))


def table(counts: dict[str, Counter[str]]) -> str:
    """Returns a table in markdown with a row for each entry point."""
    lines = [f"| entry point | cases | {' | '.join(CLASSES)} |", "|---" * (2 + len(CLASSES)) + "|"]
    rows = [(ENTRY_POINTS[name][0], each) for name, each in counts.items()]
    rows.append(("all", sum(counts.values(), Counter())))
    for title, each in rows:
        lines.append(f"| {title} | {each.total()} | {' | '.join(str(each[kind]) for kind in CLASSES)} |")
    return "\n".join(lines)


__all__ = ["ENTRY_POINTS", "FAILURES", "run_entry_point", "shares", "table"]
