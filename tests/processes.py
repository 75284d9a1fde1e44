"""Runs a function in two processes that communicate with gloo."""

import multiprocessing
from pathlib import Path

import torch
from torch import distributed
from torch.multiprocessing import start_processes


def _start(rank: int, function, folder: str, arguments: tuple):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(function(rank, *arguments), Path(folder, f"{rank}.pt"))
    distributed.destroy_process_group()


def run_in_two_processes(function, folder: Path, *arguments) -> list:
    """Runs `function(rank, *arguments)` on two ranks and returns both results; a module must define the function."""
    folder.mkdir(parents=True)
    multiprocessing.set_forkserver_preload([function.__module__])  # the server imports torch once for both
    start_processes(_start, (function, str(folder), arguments), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]
