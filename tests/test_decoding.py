"""Greedy, sampling and beam search, the caches, and `reverse`."""

import random
from itertools import product

import checks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_peers import assert_close

from revtrans import decoding
from revtrans.data import Vocab, make_batch
from revtrans.decoding import beam_search, greedy, reverse
from revtrans.model import Transformer
from revtrans.schemes import SCHEMES

MODEL = checks.tiny(tied=False)
BATCHES = st.lists(st.text("abcde", max_size=6), min_size=1, max_size=4)
POSITIONS = ["sinusoidal", "learned", *SCHEMES]


def sources(texts: list[str]) -> torch.Tensor:
    return make_batch(MODEL.vocab, texts, [""] * len(texts)).source


def one_by_one(model: Transformer, text: str) -> list[int]:
    """Greedy decoding by the model's own forward pass, for one text."""
    written = []
    while Vocab.eos not in written and len(written) < model.config.max_length + 1:
        logits = model(sources([text]), torch.tensor([[Vocab.bos, *written]]))
        written.append(int(logits[0, -1].argmax()))
    return written


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_cache_changes_no_answer(positions):
    model, source = checks.tiny(positions=positions, tied=False), sources(["abcd", "", "ea"])
    assert torch.equal(greedy(model, source), greedy(model, source, cache=False))
    with_cache, without = (beam_search(model, source, 3, cache=c) for c in (True, False))
    assert torch.equal(with_cache[0], without[0])
    assert_close(with_cache[1], without[1])


# Greedy and sampling.


@settings(max_examples=8)
@given(BATCHES)
def test_greedy_takes_the_likeliest_symbol_until_eos_then_padding(texts):
    for text, row in zip(texts, greedy(MODEL, sources(texts)).tolist()):
        written = one_by_one(MODEL, text)
        assert row == written + [Vocab.pad] * (len(row) - len(written))


def test_decoding_stops_at_eos(trained):
    checks.decoding_stops(trained)


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_no_more_than_the_allowed_steps_are_taken(steps):
    source = sources(["abcde", ""])
    assert torch.equal(greedy(MODEL, source, steps), greedy(MODEL, source)[:, :steps])
    assert beam_search(MODEL, source, 2, steps)[0].shape[1] <= steps


def test_sampling_follows_the_seed_and_a_temperature_of_0_is_greedy(trained):
    source = sources(["abcde"] * 50 + ["ab"])
    draws = [
        greedy(trained, source, temperature=3.0, generator=checks.seeded(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert len(set(map(tuple, draws[0][:50].tolist()))) > 25
    assert torch.equal(greedy(trained, source, temperature=0.0), greedy(trained, source))
    for row in draws[0].tolist():
        ended = row.index(Vocab.eos) + 1 if Vocab.eos in row else len(row)
        assert set(row[ended:]) <= {Vocab.pad}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_symbols_are_drawn_as_often_as_the_model_says(temperature):
    source = sources(["abc"])
    with torch.no_grad():
        logits = MODEL(source, torch.tensor([[Vocab.bos]]))[0, 0]
    many, generator = source.expand(20_000, -1), checks.seeded()
    drawn = greedy(MODEL, many, 1, temperature=temperature, generator=generator)[:, 0]
    shares = drawn.bincount(minlength=len(logits)) / len(drawn)
    assert (shares - (logits / temperature).softmax(-1)).abs().max() < 0.015


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_answers_lie_where_the_source_lies_whatever_the_model_is(dtype, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no such device here")
    model, source = checks.tiny().to(device, dtype), sources(["abc", "d"])
    for cache in (True, False):
        ids, scores = beam_search(model, source, 2, cache=cache)
        drawn = greedy(model, source, cache=cache, temperature=1.0, generator=checks.seeded())
        assert {x.device.type for x in (greedy(model, source), ids, scores, drawn)} == {"cpu"}
        assert scores.isfinite().all()


# Beam search.


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", [7, 38, 54])
def test_a_beam_wide_enough_finds_the_best_of_all_texts(seed, length_penalty):
    model = checks.tiny(seed, symbols="ab", max_length=2, tied=False)
    source, lengths = sources(["ab", "b"]), []
    every = torch.tensor(list(product(range(len(model.vocab)), repeat=3)))
    ids, scores = beam_search(model, source, len(every), length_penalty=length_penalty)
    for row, text in enumerate(["ab", "b"]):
        ended = (every == Vocab.eos).cumsum(1) - (every == Vocab.eos).long() > 0  # after eos
        read = torch.cat([torch.full((len(every), 1), Vocab.bos), every[:, :-1]], dim=1)
        with torch.no_grad():
            logits = checks.full_pass(model, sources([text]).expand(len(every), -1), read)
        log_p = logits.log_softmax(-1).gather(2, every[..., None])[..., 0].masked_fill(ended, 0)
        best = (log_p.sum(1) / (~ended).sum(1) ** length_penalty).argmax()
        expected = every[best].masked_fill(ended[best], Vocab.pad).tolist()
        assert ids[row].tolist() == expected[: ids.shape[1]]
        assert_close(scores[row], log_p[best].sum())
        lengths.append(int((~ended[best]).sum()))
    if length_penalty in (0.0, 1.0):
        assert (max(lengths) > 1) == (length_penalty == 1.0 or seed == 54), "a penalty tells"


@given(BATCHES, st.integers(1, 6))
def test_each_row_is_searched_as_if_it_were_alone(texts, beam):
    together, scores = beam_search(MODEL, sources(texts), beam)
    for text, row, score in zip(texts, together.tolist(), scores):
        alone, its_score = beam_search(MODEL, sources([text]), beam)
        alone = alone[0].tolist()
        assert row[: len(alone)] == alone and not any(row[len(alone) :])
        assert_close(score, its_score[0])


# Text in, text out.


@pytest.mark.parametrize("beam", [1, 3])
def test_a_trained_model_reverses_each_text_of_a_list_in_its_place(trained, beam):
    texts = ["abc", "", "e", "dcbaa", "", "eeb"]
    assert reverse(trained, texts, beam) == [text[::-1] for text in texts]
    assert reverse(trained, "bade", beam) == "edab"
    assert reverse(trained, tuple(texts), beam) == reverse(trained, texts, beam)
    assert reverse(trained, "", beam) == "" and reverse(trained, [], beam) == []


def test_many_texts_go_in_small_batches_of_about_one_length_and_in_order(trained, monkeypatch):
    chance, widths, decode = random.Random(0), [], decoding.greedy
    lengths = chance.choices([0, 1, 2, 2, 3], k=4000)
    texts = ["".join(chance.choices("abcde", k=k)) for k in lengths]

    def noting(model, source):
        widths.append((source != Vocab.pad).sum(1))
        return decode(model, source)

    alone = {text: reverse(trained, text) for text in set(texts)}
    monkeypatch.setattr(decoding, "greedy", noting)
    assert reverse(trained, texts) == [alone[text] for text in texts]
    assert sum(map(len, widths)) == sum(text != "" for text in texts)
    assert max(map(len, widths)) <= 256
    assert sum(width.min() < width.max() for width in widths) <= 2, "where one length ends"


def test_long_texts_go_in_smaller_batches(monkeypatch):
    model, shapes = checks.tiny(max_length=2000), []

    def noting(model, source):
        shapes.append(source.shape)
        return source

    monkeypatch.setattr(decoding, "greedy", noting)
    assert reverse(model, ["ab" * 1000] * 20 + ["c"] * 300)[-1] == "c"
    assert all(rows * width <= 2**14 for rows, width in shapes) and max(shapes)[0] == 256


def test_a_text_may_have_as_many_symbols_as_the_model_reads_and_no_more(trained):
    assert reverse(trained, "abcde") == "edcba"
    with pytest.raises(ValueError, match="'abcdea' has 6 symbols; this model reads at most 5"):
        reverse(trained, ["a", "abcdea"])
    model = checks.tiny(symbols="ñao", max_length=3)
    assert reverse(model, "n\u0303ao") == reverse(model, "ñao"), "four code points"


def test_no_rows_give_no_rows():
    source = torch.zeros(0, 3).long()
    assert len(greedy(MODEL, source)) == 0
    assert [len(found) for found in beam_search(MODEL, source, 3)] == [0, 0]
