"""All strings: proofs by windows, all short strings, and what a search finds. For notebook 12."""

import torch
from torch import Tensor

from revtrans.data import Batch, ReversalTask, Vocab, reversed_target
from revtrans.model import Transformer, TransformerConfig
from revtrans.proof import every, margins, prove_exact
from revtrans.training import fit

N = 16  # letters of the hard strings


def proofs(seeds: int = 5, wide_seeds: int = 1, **recipe: int) -> list:
    """Certificates of one-layer models, a to z: three symbols read, and with neighbours, five."""
    rows = []
    for positions, count in (("narrow", seeds), ("neighbours", wide_seeds)):
        for seed in range(count):
            model = Transformer(TransformerConfig(n_layers=1, positions=positions), seed)
            fit(model, ReversalTask(), seed=seed, eval_every=1000, progress=False, **recipe)
            rows.append(row_of(positions, seed, prove_exact(model, most=20_000_000)))
            print(rows[-1], flush=True)
    return rows


def row_of(positions: str, seed: int, found) -> dict:
    return {
        "positions": positions,
        "seed": seed,
        "windows": found.windows,
        "margin": found.margin,
        "rounding": found.rounding,
        "proven": found.proven,
    }


def exhaustive(seeds: int = 3, longest: int = 4, steps: tuple = (325, 650)) -> list:
    """The default model on all strings of 1 to `longest` letters a to z."""
    rows = []
    for n_steps in steps:
        for seed in range(seeds):
            model = Transformer(TransformerConfig(), seed)
            fit(model, ReversalTask(), seed=seed, steps=n_steps, progress=False)
            found = torch.cat(
                [margins(model, source) for n in range(1, longest + 1) for source in every(26, n)]
            )
            rows.append(
                {
                    "steps": n_steps,
                    "seed": seed,
                    "strings": len(found),
                    "wrong": int((found <= 0).sum()),
                    "smallest margin": found.min().item(),
                }
            )
            print(rows[-1], flush=True)
    return rows


def few_letters(n: int, count: int, letters: int, draw: torch.Generator, repeat: float) -> Tensor:
    """Strings of `letters` letters; with probability `repeat` a place has the one before it."""
    chosen = Vocab.n_special + torch.rand(count, 26, generator=draw).argsort(1)[:, :letters]
    source = chosen.gather(1, torch.randint(letters, (count, n), generator=draw))
    repeats = torch.rand(count, n, generator=draw) < repeat
    for j in range(1, n):
        source[:, j] = torch.where(repeats[:, j], source[:, j - 1], source[:, j])
    return source


def two_letters(pattern: Tensor, draw: torch.Generator) -> Tensor:
    """Strings of two different letters, the second where the pattern is True."""
    first = torch.randint(26, (len(pattern), 1), generator=draw)
    second = (first + torch.randint(1, 26, first.shape, generator=draw)) % 26
    return Vocab.n_special + torch.where(pattern, second, first)


def families(count: int) -> dict[str, Tensor]:
    """Strings of 16 letters of each kind."""
    draw, place = torch.Generator().manual_seed(1), torch.arange(N)
    one = torch.randint(N, (count, 1), generator=draw)
    return {
        "random": few_letters(N, count, 26, draw, 0.0),
        "8 letters": few_letters(N, count, 8, draw, 0.0),
        "4 letters": few_letters(N, count, 4, draw, 0.0),
        "2 letters": few_letters(N, count, 2, draw, 0.0),
        "4 letters, repeated": few_letters(N, count, 4, draw, 0.5),
        "one other": two_letters(place == one, draw),
        "two runs": two_letters(place >= one, draw),
        "period of two": two_letters((place % 2 == 0).expand(count, N), draw),
    }


class WithRepeats:
    """The usual strings, and a share of each batch from 1 to 6 letters, half of them repeated."""

    def __init__(self, share: float):
        self.usual, self.share = ReversalTask(), share
        self.vocab, self.max_length = self.usual.vocab, self.usual.max_length

    def sample(self, n: int, generator: torch.Generator, split: str = "train") -> Batch:
        source = self.usual.sample(n, generator, split).source.clone()
        for row in source[: int(n * self.share)]:
            letters = int(torch.randint(1, 7, (1,), generator=generator))
            hard = few_letters(len(row), 1, letters, generator, 0.5)[0]
            row.copy_(hard.masked_fill(row == Vocab.pad, Vocab.pad))
        return Batch(source, reversed_target(source, (source != Vocab.pad).sum(1)))


def hard(
    seeds: int = 3, steps: tuple = (325, 650), shares: tuple = (0.0, 0.25), n: int = 2000
) -> list:
    """The default model on hard strings: with more steps, and with hard strings in its batches."""
    rows, tests = [], families(n)
    for n_steps in steps:
        for share in shares:
            for seed in range(seeds):
                model = Transformer(TransformerConfig(), seed)
                fit(model, WithRepeats(share), seed=seed, steps=n_steps, progress=False)
                right = {
                    name: (margins(model, source) > 0).float().mean().item()
                    for name, source in tests.items()
                }
                rows.append({"steps": n_steps, "share": share, "seed": seed, **right})
                print(rows[-1], flush=True)
    return rows
