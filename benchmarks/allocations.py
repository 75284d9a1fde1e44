"""Measures the memory that the CPU allocator of torch hands out, with the profiler of torch."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def allocated_bytes(run: Callable[[], object]) -> list[int]:
    """Returns the allocated bytes after each allocation and release in `run()`, without those from before the call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Ev Idx"], event["args"]) for event in events if is_memory(event))
    totals = [0]
    total = 0
    for _, _, change in changes:
        total += change["Bytes"]
        totals.append(total)
    return totals


def is_memory(event: dict) -> bool:
    return event.get("name") == "[memory]" and event["args"]["Device Type"] == 0


def peak_bytes(run: Callable[[], object]) -> int:
    """Returns the largest number of bytes allocated at one time in `run()`, without those from before the call."""
    return max(allocated_bytes(run))
