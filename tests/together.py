"""Run a function in several processes that form a group."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist


def together(processes: int, function: Callable, *given: object) -> list:
    """What `function(*given)` returns in each process; it must be a module's own."""
    with tempfile.TemporaryDirectory() as folder:
        place = (processes, Path(folder), function, given)
        torch.multiprocessing.spawn(_one_of_them, place, nprocs=processes)
        return [
            torch.load(Path(folder) / str(rank), weights_only=True) for rank in range(processes)
        ]


def _one_of_them(rank: int, processes: int, folder: Path, function: Callable, given: tuple) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    try:
        torch.save(function(*given), folder / str(rank))
        dist.barrier()  # a thread of the group may still free tensors: Python must not end yet
    finally:
        dist.destroy_process_group()
