"""The Transformer beside recurrent networks: accuracy, time and gradients against length."""

import time
from itertools import product

import torch
from torch import nn

from revtrans.data import Batch, ReversalTask
from revtrans.model import Transformer, TransformerConfig
from revtrans.recurrent import Recurrent, RecurrentConfig
from revtrans.training import exact_match, fit, predict

from .common import interleaved, spread
from .training import held_out, one_step

# What each needs to do its best here; sizes for an equal number of parameters. Sought by hand
# among warm-ups 0.1, 0.4 and more rates and weight decays than `rates` shows.
LSTM = {"lr": 2e-3, "warmup": 0.1, "weight_decay": 0.5, "steps": 4000}
STUDENTS = {"LSTM": LSTM, "LSTM + attention": LSTM, "Transformer": {}}


def student(name: str, max_length: int = 16, seed: int = 0) -> nn.Module:
    if name == "Transformer":
        return Transformer(TransformerConfig(max_length=max_length), seed)
    attention = name.endswith("attention")
    d_model = 112 if attention else 120
    config = RecurrentConfig(max_length=max_length, d_model=d_model, attention=attention)
    return Recurrent(config, seed)


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def accuracy(seeds: int = 3, steps: int | None = None, n_test: int = 10_000) -> list:
    """Exact match on unseen strings: over steps and seconds while training, by length after."""
    test = held_out(n_test)
    few = Batch(test.source[:1000], test.target[:1000])
    rows = []
    for seed in range(seeds):
        for name, options in STUDENTS.items():
            model, curve = student(name, seed=seed), []
            clock = {"seconds": 0.0, "begin": time.perf_counter()}

            def note(step: int, model: nn.Module, curve=curve, clock=clock) -> None:
                if step:  # before the first step everything is made and warmed up
                    clock["seconds"] += time.perf_counter() - clock["begin"]
                share = exact_match(predict(model, few), few.labels)
                curve.append([step, clock["seconds"], share])
                clock["begin"] = time.perf_counter()

            how = {**options, **({"steps": steps} if steps else {})}
            every = {"eval_every": 100, "eval_size": 1}
            fit(model, ReversalTask(), **how, **every, seed=seed, progress=False, callback=note)
            predicted, lengths = predict(model, test), test.source_mask.sum(1)
            by_length = [
                exact_match(predicted[lengths == n], test.labels[lengths == n])
                for n in range(1, 17)
            ]
            row = {"model": name, "seed": seed, "parameters": n_parameters(model)}
            total = exact_match(predicted, test.labels)
            rows.append({**row, "exact": total, "by length": by_length, "curve": curve})
            print(name, seed, f"{total:.4f}", f"{clock['seconds']:.0f} s", flush=True)
    return rows


def bottleneck(steps: tuple = (4000, 12_000), n_test: int = 10_000) -> list:
    """Exact match by length with one state between encoder and decoder, and with attention.

    Both are trained equally long, each time to the end of their schedule. For notebook 01.
    """
    test = held_out(n_test)
    lengths, rows = test.source_mask.sum(1), []
    for n_steps in steps:
        for name in ("LSTM", "LSTM + attention"):
            model, options = student(name), {**STUDENTS[name], "steps": n_steps}
            history = fit(model, ReversalTask(), **options, eval_every=n_steps, progress=False)
            predicted = predict(model, test)
            by_length = [
                exact_match(predicted[lengths == n], test.labels[lengths == n])
                for n in range(1, 17)
            ]
            row = {"model": name, "parameters": n_parameters(model), **options}
            rows.append({**row, "by length": by_length, "seconds": history.seconds})
            print(rows[-1], flush=True)
    return rows


def rates(
    tried: tuple = (
        (1000, (1e-3, 2e-3, 4e-3, 8e-3), (0.5, 1.0)),
        (4000, (1e-3, 2e-3, 4e-3), (0.5,)),
    ),
    n_test: int = 10_000,
) -> list[dict]:
    """The plain LSTM's exact match for steps, peak rates and weight decays. For notebook 01."""
    test = held_out(n_test)
    long, rows = test.source_mask.sum(1) > 12, []
    for steps, peaks, decays in tried:
        for lr, weight_decay in product(peaks, decays):
            model = student("LSTM")
            options = {"steps": steps, "lr": lr, "weight_decay": weight_decay}
            fit(model, ReversalTask(), **{**LSTM, **options}, eval_every=steps, progress=False)
            right = (predict(model, test) == test.labels) | ~test.label_mask
            exact = right.all(1).float()
            options["exact match"] = exact.mean().item()
            rows.append({**options, "of 13 to 16 symbols": exact[long].mean().item()})
            print(rows[-1], flush=True)
    return rows


def step_time(rounds: int = 5, lengths: tuple = (8, 16, 32, 64, 128, 256, 512)) -> list:
    """One training step on 16 strings, all of one length.

    What is too small for an ordinary float32 counts as zero: the LSTM's gradients from afar are so
    small, and some processors take many times longer for such numbers.
    """
    torch.set_flush_denormal(True)
    rows = []
    for length in lengths:
        task = ReversalTask(min_length=length, max_length=length)
        drawn = [task.sample(16, torch.Generator().manual_seed(0))]
        runs = {name: one_step(student(name, length), drawn) for name in STUDENTS}
        for name, seconds in interleaved(runs, rounds).items():
            ms = spread([1000 * s for s in seconds])
            rows.append({"length": length, "model": name, "ms": ms})
        print(rows[-3:], flush=True)
    torch.set_flush_denormal(False)
    return rows


def gradient(seeds: int = 3, lengths: tuple = (8, 16, 32, 64, 128, 256, 512)) -> list:
    """How much of the gradient comes back to the first symbol, which is written last.

    The gradient's norm at the first symbol's vector over its norm at the last symbol's, for the
    logits of the last symbol written; fresh weights, mean of 16 strings, in double precision.
    """
    rows = []
    for length in lengths:
        task = ReversalTask(min_length=length, max_length=length)
        batch = task.sample(16, torch.Generator().manual_seed(0))
        for name in STUDENTS:
            shares = [
                first_over_last(student(name, length, seed).double(), batch)
                for seed in range(seeds)
            ]
            rows.append({"length": length, "model": name, "first over last": spread(shares)})
    return rows


def first_over_last(model: nn.Module, batch: Batch) -> float:
    """The gradient's norm at the first source symbol over that at the last, see `gradient`."""
    embedded = []
    hook = model.embedding.register_forward_hook(lambda *args: embedded.append(args[2]))
    logits = model(batch.source, batch.decoder_input)
    hook.remove()
    chosen = logits[:, -2].gather(1, batch.labels[:, [-2]]).sum()
    gradient = torch.autograd.grad(chosen, embedded[0])[0]
    norms = []
    for at_symbol in (gradient[:, 0], gradient[:, -1]):  # squares of tiny numbers would be zero
        largest = at_symbol.abs().amax(-1, keepdim=True)
        norms.append((at_symbol / largest).norm(dim=-1) * largest.squeeze(-1))
    return (norms[0] / norms[1]).mean().item()
