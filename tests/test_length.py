"""The length study: its strings, its tasks, and what it calls exact."""

import checks
import pytest
import torch

from benchmarks import length
from revtrans.data import ReversalTask, Vocab
from revtrans.decoding import greedy
from revtrans.model import Transformer, TransformerConfig
from revtrans.training import fit


@pytest.fixture(scope="module", params=["sinusoidal", "end_window", "two_way"])
def half_trained(request):
    """A model that is right for some strings and wrong for others."""
    sizes = {"max_length": 40, "d_model": 32, "n_heads": 2, "d_ff": 64}
    model = Transformer(TransformerConfig("abcd", **sizes, positions=request.param), 0)
    steps = {"sinusoidal": 300, "end_window": 40, "two_way": 60}[request.param]
    fit(model, ReversalTask("abcd", 1, 8), steps=steps, eval_every=steps, progress=False)
    return model


def test_teacher_forced_exactness_is_that_of_greedy_decoding(half_trained):
    """String by string, at trained lengths and beyond: both right, or both wrong."""
    seen = {True: 0, False: 0}
    for n in (1, 2, 5, 8, 9, 12, 20, 35):
        batch = length.strings(100, n, 4, seed=n)
        exact = length.right(half_trained, batch)
        written = greedy(half_trained, batch.source, n + 1)
        wide = torch.full_like(batch.labels, Vocab.pad)
        wide[:, : written.shape[1]] = written
        assert torch.equal((wide == batch.labels).all(1), exact)
        assert (length.tokens(half_trained, batch, exact) == 1) == bool(exact.all())
        for verdict in seen:
            seen[verdict] += int((exact == verdict).sum())
    assert min(seen.values()) > 50, "the models must be right and wrong often enough"


def test_right_means_every_symbol_and_the_stop(monkeypatch):
    batch = length.strings(20, 6, 4)
    model = checks.tiny()
    for wrong_at in (None, 0, 5, 6):
        predicted = batch.labels.clone()
        if wrong_at is not None:
            predicted[3, wrong_at] += 1
        monkeypatch.setattr(length, "predict", lambda *_, p=predicted: p)
        exact = length.right(model, batch)
        assert exact.sum() == 20 - (wrong_at is not None)
        assert bool(exact[3]) == (wrong_at is None)


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


def test_the_study_goes_on_where_it_was_stopped(tmp_path, capsys):
    small = {"seeds": 1, "steps": 2, "n": 20, "lengths": (3,), "only": ("location attention",)}
    partial = tmp_path / "partial.jsonl"
    rows = length.study(**small, partial=partial, workers=1)
    lines = partial.read_text().splitlines()
    assert [row["scheme"] for row in rows] == ["sinusoidal", "end_alibi", "end_window"]
    assert rows[0]["tests"]["length"] == [3]
    partial.write_text("\n".join(lines[1:]) + "\n")
    capsys.readouterr()
    again = length.study(**small, partial=partial, workers=1)
    assert capsys.readouterr().out.count("seed 0") == 1, "only the lost one is done again"
    for row, other in zip(rows, again):
        assert row["tests"] == other["tests"]
