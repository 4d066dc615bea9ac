"""The length study: its strings, its tasks, and what it calls exact."""

import checks
import pytest
import torch

from benchmarks import length
from revtrans.data import Batch, Vocab


def test_right_means_every_symbol_and_the_stop(trained):
    batch = length.strings(100, 5, 5)
    assert length.right(trained, batch).float().mean() > 0.9
    for place in (1, 5, 6):
        other = Batch(batch.source, batch.target.clone())
        other.target[:50, place] = Vocab.n_special + (batch.target[:50, place] - 2) % 5
        assert not length.right(trained, other)[:50].any()
        assert torch.equal(length.right(trained, other)[50:], length.right(trained, batch)[50:])


@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_the_strings_are_what_they_are_called(n):
    batch = length.strings(100, n, 4, seed=1)
    source = batch.source
    assert source.shape == (100, n) and source.min() >= Vocab.n_special and source.max() < 7
    assert (source[:5] == source[:5, :1]).all(), "equal"
    for row in source[5:10]:
        assert any(torch.equal(row[p:], row[:-p]) for p in range(2, min(8, n))) or n < 3, "periodic"
    assert torch.equal(source[10:15], source[10:15].flip(1)), "palindromes"
    assert torch.equal(batch.target[:, 1:-1], source.flip(1))
    assert (batch.target[:, 0] == Vocab.bos).all() and (batch.target[:, -1] == Vocab.eos).all()
    assert not torch.equal(source, length.strings(100, n, 4, seed=2).source)


def test_copy_or_reverse_says_which_and_keeps_the_splits_apart():
    task = length.CopyOrReverse(5)
    batch = task.sample(300, checks.seeded())
    sources = [task.vocab.decode(ids.tolist()) for ids in batch.source]
    answers = [task.vocab.decode(ids.tolist()) for ids in batch.target]
    for source, answer in zip(sources, answers):
        text = source[1:]
        assert answer == {">": text, "<": text[::-1]}[source[0]]
    assert {source[0] for source in sources} == {">", "<"}
    others = task.sample(300, checks.seeded(), "held_out")
    held_out = {task.vocab.decode(ids.tolist())[1:] for ids in others.source}
    assert not held_out & {source[1:] for source in sources}
