"""A training step, decoding, growth with length, memory, and where the time goes."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from revtrans.data import Batch, ReversalTask, Vocab
from revtrans.decoding import PlainState, beam_search, greedy
from revtrans.model import Transformer, TransformerConfig
from revtrans.packed import FastState

from .common import interleaved, ratio, spread
from .peers import Recompute, TorchTransformer, Tutorial, XTransformers
from .training import X_OPTIONS, one_step


def models(config: TransformerConfig) -> list[torch.nn.Module]:
    """Ours and the peers, untrained."""
    plain = [make(config, 0) for make in (Transformer, TorchTransformer, Tutorial)]
    return [*plain, XTransformers(config, 0, **X_OPTIONS)]


def step(rounds: int = 8, sizes: tuple = (64, 128, 256), lengths: tuple = (16, 32, 64)) -> list:
    """One training step on batches of 32 strings, on mixed lengths and on full ones."""
    rows = []
    for d_model in sizes:
        for length in lengths:
            config = TransformerConfig(max_length=length, d_model=d_model, d_ff=4 * d_model)
            for strings, shortest in (("1 to length", 1), ("all of length", length)):
                task = ReversalTask(min_length=shortest, max_length=length)
                generator = torch.Generator().manual_seed(0)
                drawn = [task.sample(32, generator) for _ in range(2)]
                steps = {type(m).__name__: one_step(m, drawn) for m in models(config)}
                times = interleaved(steps, rounds)
                ours = times.pop("Transformer")
                rows.append(
                    {
                        "d_model": d_model,
                        "length": length,
                        "strings": strings,
                        "padding": sum(map(_padding, drawn)) / len(drawn),
                        "ms": spread([1000 * s / len(drawn) for s in ours]),
                        **{name: ratio(ours, theirs) for name, theirs in times.items()},
                    }
                )
                print(rows[-1], flush=True)
    return rows


def _padding(batch: Batch) -> float:
    return (batch.source == Vocab.pad).float().mean().item()


def write(state, source: torch.Tensor, steps: int) -> None:
    """Let a decoder state write so many symbols for each string of `source`, whatever they are."""
    ids = source.new_full((len(source),), Vocab.bos)
    for _ in range(steps):
        ids = state.step(ids).argmax(-1)


def random_strings(n: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(Vocab.n_special, 29, (n, length), generator=generator)


def decoding(rounds: int = 5, lengths: tuple = (64, 128), batch: int = 64) -> list:
    """Greedy decoding of strings of `length` symbols, untrained: every model writes them all."""
    return [_decoding(rounds, length, batch) for length in lengths]


@torch.no_grad()
def _decoding(rounds: int, length: int, batch: int) -> dict:
    config, source = TransformerConfig(max_length=length), random_strings(batch, length)
    ours, theirs, early, x = (model.eval() for model in models(config))
    assert greedy(ours, source, length).shape[1] == length, "must not stop early"
    assert beam_search(ours, source, 4, length)[0].shape[1] == length
    read = torch.zeros(2**22)  # 16 MiB
    plain = torch.empty_like(read)
    times = interleaved(
        {
            "revtrans": lambda: greedy(ours, source, length),
            "torch.nn.Transformer": lambda: write(Recompute(theirs, source), source, length),
            "tutorial": lambda: write(Recompute(early, source), source, length),
            "x-transformers": lambda: x.generate(source, length),
            "beam": lambda: beam_search(ours, source, 4, length),
            "copy": lambda: [plain.copy_(read) for _ in range(50)],
        },
        rounds,
    )
    mine, beam, copy = (times.pop(name) for name in ("revtrans", "beam", "copy"))
    row = {"length": length, "batch": batch, "ms": spread([1000 * s for s in mine])}
    row |= {f"{name}, times slower": ratio(theirs, mine) for name, theirs in times.items()}
    row["beam 4 over 4 greedy"] = ratio(beam, [4 * s for s in mine])
    # A copy reads and writes; decoding would do if it only read what it must, as fast.
    row["share of a copy's speed"] = ratio(
        [s / 50 / 2 / read.nbytes for s in copy],
        [s / _must_read(ours, batch, length) for s in mine],
    )
    print(row, flush=True)
    return row


def _must_read(model: Transformer, batch: int, length: int) -> int:
    """Bytes of weights and caches that `length` steps of decoding read, each step all of them."""
    weights = sum(p.nbytes for p in (*model.decoder.parameters(), model.embedding.weight))
    for layer in model.decoder.layers:  # the keys and values of the source are made once
        once = (layer.cross_attention.key, layer.cross_attention.value)
        weights -= sum(p.nbytes for part in once for p in part.parameters())
    of_place = 2 * 4 * batch * model.config.d_model * model.config.n_layers  # key and value
    growing, of_source = of_place * length * (length + 1) // 2, of_place * length * length
    return length * weights + growing + of_source


@torch.no_grad()
def growth(rounds: int = 5, lengths: tuple = (16, 32, 64, 128, 256, 512, 1024)) -> list:
    """Seconds for each decoded symbol, 16 strings at a time, source as long as the target."""
    states = {}
    for length in lengths:
        model = Transformer(TransformerConfig(max_length=length), 0).eval()
        source = random_strings(16, length)
        states[length] = lambda m=model, s=source, n=length: write(FastState(m, s), s, n)
    times = interleaved(states, rounds)
    first = times[lengths[0]]
    return [
        {
            "length": n,
            "ms per symbol": spread([1000 * s / n for s in times[n]]),
            "over the shortest": ratio([s / n for s in times[n]], [s / lengths[0] for s in first]),
            "longer by": n // lengths[0],
        }
        for n in lengths
    ]


_PEAK = """
import importlib, re, sys, torch
from pathlib import Path
module, name = sys.argv[1].rsplit(".", 1)
make = getattr(importlib.import_module(module), name)
torch.set_num_threads(1)
def status(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
run = make(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
run()
print(status("VmHWM") - before)
"""


def decode_once(kind: str, length: int, batch: int) -> Callable[[], None]:
    """Encode, and decode `length` symbols; without a cache only the last of the steps.

    The last step recomputes all that is written, so it is the one with the highest peak.
    """
    config, source = TransformerConfig(max_length=length), random_strings(batch, length)
    theirs = kind.startswith("torch")
    model = (TorchTransformer if theirs else Transformer)(config, 0).eval()

    @torch.no_grad()
    def run() -> None:
        if kind == "cached":
            return write(FastState(model, source), source, length)
        state = Recompute(model, source) if theirs else PlainState(model, source)
        state.written = source[:, 1:]
        state.step(source[:, 0])

    return run


def peak(maker: str, kind: str, length: int, batch: int) -> float:
    """MiB that `run = MAKER(kind, length, batch); run()` takes at most, in a process of its own.

    What is freed goes back to the system at once (glibc's allocator keeps it otherwise, more or
    less of it from run to run).
    """
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-W", "ignore", "-c", _PEAK, maker, kind, str(length), str(batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return float(done.stdout)


def memory(rounds: int = 5, length: int = 1024, batch: int = 16) -> list:
    """Peak memory of decoding, each in a process of its own, over what it held before (Linux)."""
    kinds = ("cached", "recomputing", "torch.nn.Transformer, recomputing")
    peaks = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, found in peaks.items():
            found.append(peak("benchmarks.speed.decode_once", kind, length, batch))
    rows = []
    for kind, found in peaks.items():
        over = ratio(peaks["cached"], found)
        sizes = {"length": length, "batch": batch}
        rows.append({"kind": kind, **sizes, "MiB": spread(found), "cached over it": over})
    return rows


def data(rounds: int = 20, batches: int = 50) -> list:
    """The share of a training step of the default recipe that goes into making its batch."""
    task, generator = ReversalTask(), torch.Generator().manual_seed(0)
    model = Transformer(TransformerConfig(), 0)
    run = one_step(model, [task.sample(32, generator) for _ in range(batches)])

    def make() -> None:
        for _ in range(batches):
            task.sample(32, generator)

    times = interleaved({"make": make, "step": run}, rounds)
    share = spread([m / (m + s) for m, s in zip(times["make"], times["step"], strict=True)])
    return [{"batch": 32, "share of a step": share}]


def imports(rounds: int = 10) -> list:
    """`import revtrans`, and all of its modules, over `import torch`; a process each."""
    every = ", ".join(f"revtrans.{name}" for name in ("data", "model", "training", "decoding"))
    statements = {
        "import torch": "import torch",
        "import torch, revtrans": "import torch, revtrans",
        f"import {every}": f"import {every}",
        "import torch, matplotlib.pyplot": "import torch, matplotlib.pyplot",
        "import revtrans.plotting": "import revtrans.plotting",
    }
    times = interleaved({name: lambda c=code: _run(c) for name, code in statements.items()}, rounds)
    alone = times["import torch"]
    return [
        {"statement": name, "seconds": spread(t), "over torch alone": ratio(t, alone)}
        for name, t in times.items()
    ]


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def demo(rounds: int = 5) -> list:
    """`revtrans demo` over the imports that it cannot do without and its own training steps."""
    with tempfile.TemporaryDirectory() as folder:
        command = "from revtrans.cli import main; main(['demo', '--out', {!r}])"
        names = iter(range(rounds + 1))
        times = interleaved(
            {
                "demo": lambda: _run(command.format(f"{folder}/{next(names)}")),
                "least": lambda: _run(_STEPS),
            },
            rounds,
        )
    over = ratio(times["demo"], times["least"])
    return [{"seconds": spread(times["demo"]), "over imports and training steps": over}]


_STEPS = """
import torch, matplotlib.pyplot
from revtrans.data import ReversalTask
from revtrans.model import Transformer, TransformerConfig
from revtrans.training import begin
training = begin(Transformer(TransformerConfig()), ReversalTask())
for _ in range(training.steps):
    training.step()
"""


def limit(rounds: int = 20) -> list:
    """The core's peak at matrix products, the step's share of it, and where the rest goes."""
    products = {n: (torch.randn(n, n), torch.randn(n, n)) for n in (256, 512, 1024, 2048)}
    rows = []
    for d_model, length in ((64, 16), (128, 32), (256, 64)):
        config = TransformerConfig(max_length=length, d_model=d_model, d_ff=4 * d_model)
        model, task = Transformer(config, 0), ReversalTask(max_length=length)
        run = one_step(model, [task.sample(32, torch.Generator().manual_seed(0))])
        runs = {n: lambda a=a, b=b: a @ b for n, (a, b) in products.items()}
        times = interleaved({**runs, "step": run}, rounds)
        with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiler:
            begin = time.perf_counter()
            run()
            wall = time.perf_counter() - begin
        events = profiler.key_averages()
        flops, total = sum(e.flops for e in events), sum(e.self_cpu_time_total for e in events)
        speeds = [max(2 * n**3 / s for n, s in zip(runs, r)) for r in zip(*map(times.get, runs))]
        reached = [flops / s for s in times["step"]]
        shares = {name: 0.0 for name in _PARTS.values()}
        for event in events:
            shares[_part(event.key)] += event.self_cpu_time_total / total
        row = {"d_model": d_model, "length": length}
        row["peak GFLOP/s"] = spread([s / 1e9 for s in speeds])
        row["in operators"] = total / 1e6 / wall
        row["step GFLOP/s"] = spread([s / 1e9 for s in reached])
        rows.append({**row, "share of peak": ratio(reached, speeds), **shares})
        print(rows[-1], flush=True)
    return rows


_PARTS = {
    "aten::mm aten::addmm aten::bmm": "matrix products",
    "aten::copy_ aten::index_select aten::index_copy aten::index_add_ aten::cat": "copies",
    "aten::_softmax aten::_softmax_backward_data": "softmax",
    "aten::native_layer_norm aten::native_layer_norm_backward": "norms",
    "aten::_fused_adamw_ aten::linalg_vector_norm aten::_foreach_norm aten::mul_": "optimiser",
    "": "other operators",
}


def _part(operation: str) -> str:
    return next(name for keys, name in _PARTS.items() if operation in keys.split() or not keys)
