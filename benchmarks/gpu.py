"""On a GPU: training steps, decoding, half precision, and seconds against length."""

from collections.abc import Callable
from itertools import product

import torch

from revtrans.data import Batch, ReversalTask, make_batch
from revtrans.decoding import greedy
from revtrans.devices import Forward
from revtrans.model import Transformer, TransformerConfig
from revtrans.training import exact_match, fit, predict

from .claims import STUDENTS, student
from .common import interleaved, ratio, spread
from .peers import Recompute, TorchTransformer, XTransformers
from .speed import random_strings, write
from .training import X_OPTIONS, held_out, one_step

SIZES, BATCHES, LENGTHS = (64, 256, 512), (32, 256, 1024), (16, 128, 1024)


def waiting(run: Callable[[], object], device: str, times: int = 1) -> Callable[[], None]:
    """`run`, so many times, and then wait until the device has done it."""

    def timed() -> None:
        for _ in range(times):
            run()
        if device == "cuda":
            torch.cuda.synchronize()

    return timed


def that_fit(candidates: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """As `interleaved`, without those that the device's memory does not hold."""
    fitting = {}
    for name, run in candidates.items():
        try:
            run()
            fitting[name] = run
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return interleaved(fitting, rounds)


def sized(d_model: int, length: int) -> TransformerConfig:
    return TransformerConfig(max_length=length, d_model=d_model, d_ff=4 * d_model)


def mixed(n: int, length: int) -> Batch:
    """`n` strings of 1 to `length` symbols; the first has them all."""
    task, generator = ReversalTask(max_length=length), torch.Generator().manual_seed(0)
    lengths = [length, *torch.randint(1, length + 1, (n - 1,), generator=generator).tolist()]
    full = random_strings(n, length).tolist()
    texts = [task.vocab.decode(ids[:size]) for ids, size in zip(full, lengths)]
    return make_batch(task.vocab, texts, [text[::-1] for text in texts])


def step(
    rounds: int = 4,
    sizes: tuple = SIZES,
    batches: tuple = BATCHES,
    lengths: tuple = LENGTHS,
    compiled: bool = True,
    device: str = "cuda",
) -> list[dict]:
    """One training step on strings of mixed lengths; the peers with PyTorch's fused attention.

    If `compiled`, PyTorch's own model is timed compiled for each size, too.
    """
    rows = []
    for d_model, precision, length, n in product(sizes, ("fp32", "bf16"), lengths, batches):
        if n * length > 2**18:
            continue
        config, batch = sized(d_model, length), mixed(n, length).to(device)
        made = {
            "revtrans": Transformer(config, 0),
            "nn.Transformer": TorchTransformer(config, 0),
            "x-transformers": XTransformers(config, 0, attn_flash=True, **X_OPTIONS),
        }
        forwards = {name: model.to(device) for name, model in made.items()}
        if compiled:
            torch.compiler.reset()
            made["nn.Transformer, compiled"] = TorchTransformer(config, 0).to(device)
            forwards["nn.Transformer, compiled"] = torch.compile(made["nn.Transformer, compiled"])
        runs, steps = {}, 5 if n * length <= 2**15 else 1
        for name, model in made.items():
            run = one_step(model, [batch], Forward(forwards[name], precision))
            runs[name] = waiting(run, device, steps)
        times = that_fit(runs, rounds)
        if "revtrans" not in times:
            continue
        ours = times.pop("revtrans")
        row = {"d_model": d_model, "batch": n, "length": length, "precision": precision}
        row["ms"] = spread([1000 * s / steps for s in ours])
        for name in ("nn.Transformer", "nn.Transformer, compiled", "x-transformers"):
            row[name] = ratio(ours, times[name]) if name in times else None
        rows.append(row)
        print(row, flush=True)
    return rows


def decoding(
    rounds: int = 4,
    sizes: tuple = SIZES,
    batches: tuple = BATCHES,
    lengths: tuple = LENGTHS,
    device: str = "cuda",
) -> list[dict]:
    """Greedy decoding of strings of `length` symbols, untrained, with weights of either precision.

    x-transformers' positions stay float32; so do its weights, which are cast where they are used.
    """
    kinds = product(sizes, ("fp32", "bf16"), lengths, batches)
    return [
        _decoding(rounds, d_model, precision, length, n, device)
        for d_model, precision, length, n in kinds
        if n * length <= 2**15
    ]


@torch.no_grad()
def _decoding(
    rounds: int, d_model: int, precision: str, length: int, n: int, device: str
) -> dict[str, object]:
    config, source = sized(d_model, length), random_strings(n, length).to(device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    ours, theirs = (
        make(config, 0).to(device, dtype).eval() for make in (Transformer, TorchTransformer)
    )
    x = XTransformers(config, 0, **X_OPTIONS).to(device).eval()
    assert greedy(ours, source, length).shape[1] == length, "must not stop early"

    def generate() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            x.generate(source, length)

    runs = {"revtrans": lambda: greedy(ours, source, length), "x-transformers": generate}
    if length <= 128:
        runs["nn.Transformer"] = lambda: write(Recompute(theirs, source), source, length)
    times = that_fit({name: waiting(run, device) for name, run in runs.items()}, rounds)
    mine = times.pop("revtrans")
    row = {"d_model": d_model, "batch": n, "length": length, "precision": precision}
    row["ms per symbol"] = spread([1000 * s / length for s in mine])
    for name in ("x-transformers", "nn.Transformer"):
        found = ratio(times[name], mine) if name in times else None
        row[f"{name}, times slower"] = found
    print(row, flush=True)
    return row


def step_time(
    rounds: int = 5, lengths: tuple = tuple(2**k for k in range(3, 13)), device: str = "cuda"
) -> list[dict]:
    """One training step on 16 strings, all of one length: LSTMs and Transformer."""
    rows = []
    for length in lengths:
        task = ReversalTask(min_length=length, max_length=length)
        drawn = [task.sample(16, torch.Generator().manual_seed(0)).to(device)]
        runs = {
            name: waiting(one_step(student(name, length).to(device), drawn), device)
            for name in STUDENTS
        }
        for name, seconds in interleaved(runs, rounds, warmup=3).items():
            ms = spread([1000 * s for s in seconds])
            rows.append({"length": length, "model": name, "ms": ms})
        print(rows[-3:], flush=True)
    return rows


def precision(
    seeds: int = 3, steps: int = 325, n_test: int = 10_000, device: str = "cuda"
) -> list[dict]:
    """The default training in float32 and in bfloat16: exact match on unseen strings, seconds."""
    test, runs = held_out(n_test), {"fp32": [], "bf16": []}
    for seed in range(seeds):
        for kind, found in runs.items():
            model = Transformer(TransformerConfig(), seed).to(device)
            how = {"steps": steps, "eval_every": steps, "seed": seed, "progress": False}
            history = fit(model, ReversalTask(), precision=kind, **how)
            found.append((exact_match(predict(model, test), test.labels), history.seconds))
            print(kind, seed, found[-1], flush=True)
    rows = []
    for kind, found in runs.items():
        exact, seconds = (list(values) for values in zip(*found))
        rows.append({"precision": kind, "exact match": spread(exact), "seconds": spread(seconds)})
    return rows
