"""Exact match far past the trained length, for every position scheme, on four tracks."""

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import ascii_lowercase, digits

import torch
from torch import Tensor

from revtrans.data import Batch, ReversalTask, Task, Vocab
from revtrans.decoding import greedy
from revtrans.model import Transformer, TransformerConfig
from revtrans.training import exact_match, fit, predict

from .common import RESULTS, ratio, spread
from .speed import peak
from .training import Recipe, held_out, linear, report_rows, summary, train_until_right

PARTIAL = RESULTS / "length.partial.jsonl"  # what an unfinished study has done; git ignores it
SPECIAL = ("equal", "periodic", "palindrome")  # 5 % of the strings of one length each


class CopyOrReverse:
    """Copy the string after '>', reverse the one after '<': the source says which, row by row."""

    def __init__(self, max_length: int = 20):
        self.strings = ReversalTask(max_length=max_length)
        self.vocab, self.max_length = Vocab(ascii_lowercase + "<>"), max_length + 1

    def sample(self, n: int, generator: torch.Generator, split: str = "train") -> Batch:
        """`n` random examples of a split, 'train' or 'held_out'."""
        strings = self.strings.sample(n, generator, split)
        return self.told(strings, torch.rand(n, generator=generator) < 0.5)

    def told(self, strings: Batch, copied: Tensor) -> Batch:
        """The strings after the symbol of their task, and the target that it asks for."""
        sign = torch.where(copied, *self.vocab.encode("><"))[:, None]
        forwards = strings.target.clone()
        forwards[:, 1:-1] = strings.source
        forwards.scatter_(1, strings.source_mask.sum(1, keepdim=True) + 1, Vocab.eos)
        target = torch.where(copied[:, None], forwards, strings.target)
        return Batch(torch.cat([sign, strings.source], dim=1), target)


def strings(n: int, length: int, symbols: int = 26, seed: int = 0) -> Batch:
    """`n` strings of one length to reverse: equal symbols, periods, palindromes, then random."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + length)
    shape = (n, length)
    source = torch.randint(symbols, shape, generator=generator) + Vocab.n_special
    few, half = n // 20, length // 2
    source[:few] = source[:few, :1]
    for row in range(few, 2 * few):
        period = min(length, int(torch.randint(2, 8, (1,), generator=generator)))
        source[row] = source[row, torch.arange(length) % period]
    source[2 * few : 3 * few, length - half :] = source[2 * few : 3 * few, :half].flip(1)
    ends = [torch.full((n, 1), i) for i in (Vocab.bos, Vocab.eos)]
    return Batch(source, torch.cat([ends[0], source.flip(1), ends[1]], dim=1))


def right(model: Transformer, batch: Batch) -> Tensor:
    """Which strings are written exactly, eos included, from one teacher-forced pass."""
    found, length = [], batch.source.shape[1]
    linear = model.config.positions in ("end_window", "two_way")
    rows = max(1, 4000 // length if linear else 2**20 // length**2)  # so few fit the cache
    for source, target in zip(batch.source.split(rows), batch.target.split(rows)):
        part = Batch(source, target)
        agrees = predict(model, part) == part.labels
        found.append((agrees | ~part.label_mask).all(1))
    return torch.cat(found)


def tokens(model: Transformer, batch: Batch, exact: Tensor) -> float:
    """The share of symbols (and eos) that are right when the model goes on from its own symbols.

    Strings that are `exact` under teacher forcing are so in free running, too; the others are
    decoded.
    """
    agrees = batch.label_mask.clone()
    if not exact.all():
        source, labels = batch.source[~exact], batch.labels[~exact]
        written = greedy(model, source, labels.shape[1])
        wide = torch.full_like(labels, Vocab.pad)
        wide[:, : written.shape[1]] = written
        agrees[~exact] &= wide == labels
    return (agrees.sum() / batch.label_mask.sum()).item()


@dataclass(frozen=True)
class Track:
    """What is trained, and at which lengths it is tested."""

    symbols: str
    trained: tuple[int, int]
    lengths: tuple[int, ...]
    n: int = 1000
    free_running: bool = False
    further: dict[str, tuple[int, ...]] = field(default_factory=dict)  # more, for some schemes
    schemes: tuple[str, ...] = ("sinusoidal", "end_alibi", "end_window")


HOUSE = (1, 2, 5, 10, 15, 20, 21, 25, 30, 40, 60, 100, 200, 500, 1000, 2000)
ALL = (
    *("none", "sinusoidal", "learned", "rotary", "alibi", "buckets", "local"),
    *("end_alibi", "end_window", "two_way"),
)
TRACKS = {
    "house": Track(
        ascii_lowercase, (1, 20), HOUSE, schemes=ALL, further={"end_window": (5000, 10_000)}
    ),
    "copy or reverse": Track(ascii_lowercase, (1, 20), HOUSE, schemes=("sinusoidal", "two_way")),
    "Universal Transformer": Track(digits, (1, 40), (400,), free_running=True),
    "location attention": Track(digits, (5, 10), (15, 20, 25, 30, 50, 100)),
    "DeepMind": Track(
        "01",
        (1, 40),
        tuple(range(41, 501)),
        n=200,  # of its own for each seed: 1,000 for each length in five
        free_running=True,
        schemes=("sinusoidal", "end_window"),
    ),
}
# Found by hand on the trained lengths, with a linear fall; those that do not get near 1 there have
# LONG. They are older than the default recipe of `fit`, so all that they need is said here.
ALL_HAVE = {"warmup": 0.15, "weight_decay": 0.7, "schedule": linear}
RECIPES = {
    "sinusoidal": {"steps": 1000},
    "learned": {"steps": 1000},
    "end_alibi": {"steps": 600},
    "end_window": {"steps": 600},
    "two_way": {"steps": 1000},
}
LONG = {"steps": 3000, "weight_decay": 0.1}
UP_TO_40 = {"sinusoidal": {"steps": 3000}, "end_alibi": {"steps": 1500}}


def train(track: str, scheme: str, seed: int, steps: int | None = None) -> tuple[Transformer, Task]:
    """A model trained on the track's short strings; the last weights, nothing is chosen."""
    of = TRACKS[track]
    both = track == "copy or reverse"
    longest = max((*of.lengths, *of.further.get(scheme, ()), of.trained[1])) + both
    low, high = of.trained
    task = CopyOrReverse(high) if both else ReversalTask(of.symbols, low, high)
    config = TransformerConfig(task.vocab.symbols, longest, positions=scheme)
    model, recipe = Transformer(config, seed), RECIPES.get(scheme, LONG)
    if high > 20:
        recipe = UP_TO_40.get(scheme, recipe)
    recipe = {**ALL_HAVE, **recipe, **({"steps": steps} if steps else {})}
    fit(model, task, **recipe, seed=seed, progress=False, eval_size=1, eval_every=10_000)
    return model, task


def run(job: tuple[str, str, int, int | None, int | None, tuple[int, ...] | None]) -> dict:
    """Train and test one model; one row of the results."""
    track, scheme, seed, steps, n, lengths = job
    torch.set_num_threads(1)
    begin, of = time.perf_counter(), TRACKS[track]
    model, task = train(track, scheme, seed, steps)
    trained = task.sample(n or 1000, torch.Generator().manual_seed(seed), "held_out")
    row = {"track": track, "scheme": scheme, "seed": seed, "tests": []}
    row["trained lengths"] = exact_match(predict(model, trained), trained.labels)
    row["training seconds"], hopeless = time.perf_counter() - begin, False
    for length in lengths or (*of.lengths, *of.further.get(scheme, ())):
        costly = length > 200 or of.free_running
        count = min(n or of.n, 20 if hopeless and costly else of.n)
        for name, batch in _tests(track, task, length, count, seed):
            test = {"what": name, "length": length, **_test(model, batch, of.free_running)}
            row["tests"].append(test)
            hopeless = hopeless or not test["exact"]
    row["seconds"] = time.perf_counter() - begin
    return row


def _tests(track: str, task: Task, length: int, n: int, seed: int) -> Iterator[tuple[str, Batch]]:
    batch = strings(n, length, len(TRACKS[track].symbols), seed)
    if track == "copy or reverse":
        yield "copy", task.told(batch, torch.ones(n, dtype=torch.bool))
        yield "reverse", task.told(batch, torch.zeros(n, dtype=torch.bool))
        return
    yield "reverse", batch
    if track == "Universal Transformer":
        mixed = ReversalTask(task.vocab.symbols, 1, length)
        yield "uniform", mixed.sample(n, torch.Generator().manual_seed(seed), "held_out")


def _test(model: Transformer, batch: Batch, free_running: bool) -> dict:
    exact, few = right(model, batch), len(batch) // 20
    parts = {name: exact[i * few : (i + 1) * few] for i, name in enumerate(SPECIAL)}
    wrong = {name: int((~part).sum()) for name, part in parts.items()}
    test = {"n": len(batch), "exact": int(exact.sum()), "wrong": wrong}
    return test | ({"tokens": tokens(model, batch, exact)} if free_running else {})


def study(
    seeds: int = 5,
    steps: int | None = None,
    n: int | None = None,
    lengths: tuple[int, ...] | None = None,
    only: tuple[str, ...] = tuple(TRACKS),
    partial: Path | None = PARTIAL,
    workers: int = 2,
) -> list[dict]:
    """All tracks, schemes and seeds, `workers` at a time; goes on where it was stopped."""
    rows = (
        [json.loads(line) for line in partial.read_text().splitlines()]
        if (partial and partial.is_file())
        else []
    )
    done = {(row["track"], row["scheme"], row["seed"]) for row in rows}
    jobs = [
        (track, scheme, seed, steps, n, lengths)
        for track in only
        for seed in range(seeds)
        for scheme in TRACKS[track].schemes
        if (track, scheme, seed) not in done
    ]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for row in pool.imap_unordered(run, jobs):
            rows.append(row)
            if partial:
                with partial.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            shares = [f"{t['length']}: {t['exact'] / t['n']:.3g}" for t in row["tests"][-4:]]
            where = f"{row['track']}, {row['scheme']}, seed {row['seed']}"
            print(f"{where}: {row['seconds']:.0f} s; …", *shares, flush=True)
    places = list(TRACKS), list(ALL)
    rows.sort(key=lambda r: (places[0].index(r["track"]), places[1].index(r["scheme"]), r["seed"]))
    for row in rows:
        row["tests"] = {key: [test[key] for test in row["tests"]] for key in row["tests"][0]}
    return rows


FAST = Recipe(steps=100, lr=1e-2)  # with an end-aligned window there is little to learn


def seconds(seeds: int = 5, steps: int | None = None, n_test: int = 10_000) -> list[dict]:
    """Training until 99.9 % of strings of 1 to 16 letters are exact; interleaved."""
    recipes = {"sinusoidal": Recipe(), "end_alibi": Recipe(), "end_window": FAST}
    test, runs = held_out(n_test, seed=2000), {name: [] for name in recipes}
    for seed in range(seeds):
        for name, recipe in recipes.items():
            recipe = replace(recipe, steps=steps) if steps else recipe
            model = Transformer(TransformerConfig(positions=name), seed)
            runs[name].append(train_until_right(model, recipe, seed, test))
            print(name, seed, runs[name][-1], flush=True)
    rows = [summary(name, runs[name], {}) for name in recipes]
    times = [[run["seconds"] for run in row["runs"]] for row in rows]
    for row, mine in zip(rows, times):
        row["over sinusoidal"] = ratio(mine, times[0])
    return report_rows(rows)


def memory(
    rounds: int = 3, lengths: tuple[int, ...] = (500, 1000, 2000, 4000), batch: int = 8
) -> list[dict]:
    """Peak memory of one pass over source and target, over what the process held before (Linux)."""
    schemes = ("sinusoidal", "end_alibi", "end_window", "two_way")
    kinds = [(s, n) for s in schemes for n in lengths if n <= 2000 or s in schemes[2:]]
    peaks = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for (scheme, n), found in peaks.items():
            found.append(peak("benchmarks.length.one_pass", scheme, n, batch))
    rows = []
    for (scheme, n), found in peaks.items():
        shorter = peaks.get((scheme, n // 2))
        growth = ratio(found, shorter) if shorter else None
        row = {"scheme": scheme, "length": n, "batch": batch, "MiB": spread(found)}
        rows.append({**row, "over half the length": growth})
    return rows


def one_pass(scheme: str, length: int, batch: int) -> Callable[[], None]:
    """A function that runs an untrained model once over a batch of strings of one length."""
    config = TransformerConfig(max_length=length, positions=scheme)
    model, data = Transformer(config, 0).eval(), strings(batch, length)

    @torch.no_grad()
    def run() -> None:
        model(data.source, data.decoder_input)

    return run
