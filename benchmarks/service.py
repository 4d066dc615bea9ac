"""Used as a program that serves many would use it: from threads, and with a high `max_length`."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from revtrans.data import ReversalTask
from revtrans.decoding import reverse
from revtrans.model import Transformer, TransformerConfig
from revtrans.training import fit

from .common import interleaved, ratio, spread
from .speed import peak


def trained(max_length: int = 16, dropout: float = 0.0) -> Transformer:
    """A model that reverses short strings."""
    model = Transformer(TransformerConfig(max_length=max_length, dropout=dropout))
    fit(model, ReversalTask(max_length=4), steps=100, progress=False)
    return model


def ask_from_threads(n_threads: int, seconds: float) -> None:
    """Print how many answers the threads got, and how many were not those of one thread."""
    model, chance = trained(dropout=0.1), random.Random(0)
    texts = ["".join(chance.choices("abcdefgh", k=chance.randint(1, 8))) for _ in range(100)]
    alone, counts = reverse(model, texts), []
    end = time.perf_counter() + seconds
    model.train()  # so that each call has to switch the dropout off, and on again

    def ask(seed: int) -> None:
        chance, answers, others = random.Random(seed), 0, 0
        while time.perf_counter() < end:
            chosen = chance.sample(range(len(texts)), 5)
            given = reverse(model, [texts[i] for i in chosen])
            answers += 1
            others += given != [alone[i] for i in chosen]
        counts.append((answers, others))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(module.training for module in model.modules())
    print(*map(sum, zip(*counts)))


def threads(n_threads: int = 8, seconds: float = 60.0) -> list[dict]:
    """Threads that ask one model at once, for a time; a process that does not end has hung."""
    code = (
        "import torch; torch.set_num_threads(1)\n"  # with two, training crawls on a busy machine
        f"from benchmarks import service; service.ask_from_threads({n_threads}, {seconds})"
    )
    try:
        command = [sys.executable, "-c", code]
        limit = 2 * seconds + 60
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return [{"threads": n_threads, "seconds": seconds, "calls": 0, "wrong": 0, "hangs": 1}]
    calls, wrong = map(int, done.stdout.split()[-2:])
    return [{"threads": n_threads, "seconds": seconds, "calls": calls, "wrong": wrong, "hangs": 0}]


def write_short(kind: str, length: int, batch: int) -> Callable[[], object]:
    """Write `batch` texts of three letters with a model that could read `length`."""
    model = trained(length)
    return lambda: reverse(model, ["abc"] * batch, int(kind))


def text_memory(rounds: int = 5, lengths: tuple = (16, 2000), batch: int = 256) -> list[dict]:
    """Seconds and peak memory of short texts, with a beam of 4, for models that read long ones."""
    runs = {str(length): write_short("4", length, batch) for length in lengths}
    seconds = interleaved(runs, rounds)
    rows = []
    for length in lengths:
        sizes = [peak("benchmarks.service.write_short", "4", length, batch) for _ in range(rounds)]
        rows.append({"max_length": length, "seconds": seconds[str(length)], "MiB": sizes})
    for row in rows:
        row["seconds over the first"] = ratio(row["seconds"], rows[0]["seconds"])
        row["MiB over the first"] = ratio(row["MiB"], rows[0]["MiB"])
    return [
        {name: spread(value) if isinstance(value, list) else value for name, value in row.items()}
        for row in rows
    ]
