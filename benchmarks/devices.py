"""Several processes: what they cost and bring, and what is left when one of them is killed."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from revtrans.data import ReversalTask
from revtrans.model import Transformer, TransformerConfig
from revtrans.training import begin

from .common import ratio, spread
from .survival import RUN, _done, _end

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


DEVICE = Path(__file__).resolve().parent.parent / "tests" / "second_device"


def second_device(only: str = "", notebooks: Sequence[str] = ()) -> list[dict]:
    """What was tried on a second device, and how much of it went as on the processor.

    A GPU if there is one; if not, the processor plays one, which wants a C++ compiler and ninja.
    """
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "played"
    tests = ["-m", "pytest", str(DEVICE / "try_it.py"), "-o", "addopts=", "-k", only]
    said = _said(tests)
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|failed|errors?)", said)}
    rows = [{"device": name, "what": "tests", "tried": sum(counts.values())}]
    rows[0]["as on the processor"] = counts.get("passed", 0)
    found = re.findall(r"(?m)^(\w+)\n  (.*)$", _said([str(DEVICE / "notebooks.py"), *notebooks]))
    ok = sum(result == "ok" for _, result in found)
    row = {"device": name, "what": "notebooks", "tried": len(found), "as on the processor": ok}
    return [*rows, row]


def _said(arguments: list[str]) -> str:
    said = subprocess.run([sys.executable, *arguments], capture_output=True, text=True).stdout
    print(said, flush=True)
    return said


def _steps(rank: int, processes: int, place: str, d_model: int, batch: int, steps: int) -> None:
    """Time training steps in one of several processes; the first writes the seconds of one."""
    torch.set_num_threads(1)
    if processes > 1:
        meeting = f"file://{place}/meeting"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    model = Transformer(TransformerConfig(d_model=d_model, d_ff=4 * d_model))
    training = begin(model, ReversalTask(), steps=steps + 3, batch_size=batch)
    for step in range(steps + 3):
        if step == 3:  # what happens once has happened
            start = time.perf_counter()
        training.step()
    if rank == 0:
        seconds = (time.perf_counter() - start) / steps
        Path(place, "seconds").write_text(str(seconds))
    if processes > 1:
        dist.destroy_process_group()


def processes(
    rounds: int = 3, steps: int = 12, sizes: tuple = ((64, 32), (64, 256), (256, 32), (256, 256))
) -> list[dict]:
    """Seconds of a training step with one process and with two, of one thread each."""
    rows = []
    for d_model, batch in sizes:
        seconds = {1: [], 2: []}
        for _ in range(rounds):
            for n, times in seconds.items():
                with tempfile.TemporaryDirectory() as place:
                    given = (n, place, d_model, batch, steps)
                    torch.multiprocessing.spawn(_steps, given, nprocs=n)
                    times.append(float(Path(place, "seconds").read_text()))
        model = Transformer(TransformerConfig(d_model=d_model, d_ff=4 * d_model))
        row = {"d_model": d_model, "batch": batch}
        row["gradients, kB"] = sum(4 * p.numel() for p in model.parameters()) // 1000
        row |= {f"{n}, ms": spread([1000 * s for s in times]) for n, times in seconds.items()}
        row["two over one"] = ratio(seconds[2], seconds[1])
        rows.append(row)
        print(row, flush=True)
    return rows


def _run(folder: Path, steps: int, restarts: int) -> subprocess.Popen:
    options = ["--out", str(folder), "--every", "1", "--device", "cpu", "--steps", str(steps)]
    command = [*TORCHRUN, "2", "--max-restarts", str(restarts), "-m", "revtrans", "train"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *RUN, *options], env=environment, **silent)


def _workers(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def restarts(rounds: int = 20, steps: int = 24, seed: int = 0) -> list[dict]:
    """SIGKILL one of two workers of `torchrun --max-restarts` at a random moment; compare the ends.

    Equal means: all tensors of the last checkpoint, and the bytes of the model, are those of a
    run that nobody disturbed.
    """
    chance, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory() as scratch:
        whole, folder = Path(scratch) / "whole", Path(scratch) / "killed"
        assert _run(whole, steps, restarts=0).wait() == 0
        expected = _end(whole)
        while len(rows) < rounds:
            at, later = chance.randrange(steps - 5), 0.03 * chance.random()
            process = _run(folder, steps, restarts=1)
            while process.poll() is None and _done(folder) < at:
                time.sleep(0.001)
            time.sleep(later)  # anywhere in a step, or in the writing of a file
            workers = _workers(process.pid) if process.poll() is None else []
            if len(workers) == 2:
                victim = chance.randrange(2)
                os.kill(workers[victim], signal.SIGKILL)
                row = {"kill": len(rows), "worker": victim, "after step": at}
                row["exit code"] = process.wait()
                row["equal"] = row["exit code"] == 0 and _end(folder) == expected
                rows.append(row)
                print(row, flush=True)
            process.wait()
            shutil.rmtree(folder)
    return rows
