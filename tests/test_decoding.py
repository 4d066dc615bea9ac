"""Greedy and beam search, the caches, and `reverse`."""

import random
from dataclasses import replace
from itertools import product

import checks
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_peers import assert_close

from revtrans import decoding
from revtrans.data import Vocab, make_batch
from revtrans.decoding import CachedState, beam_search, greedy, reverse
from revtrans.model import Transformer

MODEL = checks.tiny()
BATCHES = st.lists(st.text("abcde", max_size=6), min_size=1, max_size=4)


def sources(texts: list[str]) -> torch.Tensor:
    return make_batch(MODEL.vocab, texts, [""] * len(texts)).source


def log_probability(model: Transformer, source: torch.Tensor, written: list[int]) -> float:
    """Of one sequence of ids up to and with its first eos, in one teacher-forced pass."""
    if Vocab.eos in written:
        written = written[: written.index(Vocab.eos) + 1]
    with torch.no_grad():
        read = torch.tensor([[Vocab.bos, *written[:-1]]])
        log_p = checks.full_pass(model, source, read).log_softmax(-1)
    return log_p[0, range(len(written)), written].sum().item()


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
@pytest.mark.parametrize("tied", [True, False])
def test_cached_logits_are_those_of_a_full_pass(positions, tied):
    checks.cache_changes_nothing(checks.tiny(positions=positions, tied=tied))


@given(BATCHES, st.integers(1, 4))
def test_cached_logits_are_those_of_a_full_pass_over_what_decoding_wrote(texts, beam):
    source = sources(texts)
    for ids in (greedy(MODEL, source), beam_search(MODEL, source, beam)[0]):
        bos = torch.full((len(texts), 1), Vocab.bos)
        checks.cache_changes_nothing(MODEL, source, torch.cat([bos, ids[:, :-1]], dim=1))


@given(BATCHES, st.integers(1, 4))
def test_the_cache_changes_no_answer(texts, beam):
    source = sources(texts)
    assert torch.equal(greedy(MODEL, source), greedy(MODEL, source, cache=False))
    with_cache, without = (beam_search(MODEL, source, beam, cache=c) for c in (True, False))
    assert torch.equal(with_cache[0], without[0])
    assert_close(with_cache[1], without[1])


def test_selected_rows_keep_their_past():
    checks.beams_keep_their_past(MODEL)


def test_keys_and_values_are_projected_once(monkeypatch):
    projected = []
    project = decoding.MultiHeadAttention.project

    def counting(self, key, value):
        projected.append(key.shape[1])
        return project(self, key, value)

    state = CachedState(MODEL, sources(["abc"]), 4)
    monkeypatch.setattr(decoding.MultiHeadAttention, "project", counting)
    for _ in range(4):
        state.step(torch.tensor([3]))
    layers = MODEL.config.n_layers
    assert projected == [1, 3] * layers + [1] * 3 * layers


@given(BATCHES)
def test_greedy_takes_the_likeliest_symbol_until_eos(texts):
    for text, row in zip(texts, greedy(MODEL, sources(texts)).tolist()):
        written = []
        while Vocab.eos not in written and len(written) < MODEL.config.max_length + 1:
            logits = MODEL(sources([text]), torch.tensor([[Vocab.bos, *written]]))
            written.append(int(logits[0, -1].argmax()))
        assert row == written + [Vocab.pad] * (len(row) - len(written))


@given(BATCHES)
def test_a_beam_of_one_is_greedy(texts):
    source = sources(texts)
    assert torch.equal(beam_search(MODEL, source, beam=1)[0], greedy(MODEL, source))


@given(BATCHES, st.integers(1, 6))
def test_a_beams_score_is_the_log_probability_of_its_text(texts, beam):
    for text, row, score in zip(texts, *beam_search(MODEL, sources(texts), beam)):
        expected = log_probability(MODEL, sources([text]), row.tolist())
        assert score.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed, greedy_misses_it", [(0, False), (7, True), (17, True), (37, True)])
def test_a_beam_wide_enough_finds_the_best_of_all_texts(seed, greedy_misses_it):
    model = checks.tiny(seed, symbols="ab", max_length=2)
    source = sources(["ab", "b"])
    every = [list(ids) for ids in product(range(len(model.vocab)), repeat=3)]
    ids, scores = beam_search(model, source, beam=len(every))
    greedy_ids = greedy(model, source)
    for row in range(2):
        alone = source[[row], : int((source[row] != Vocab.pad).sum())]
        best = max(every, key=lambda written, alone=alone: log_probability(model, alone, written))
        assert Vocab("ab").decode(ids[row].tolist()) == Vocab("ab").decode(best)
        expected = log_probability(model, alone, best)
        assert scores[row].item() == pytest.approx(expected, abs=1e-4)
        greedily = log_probability(model, alone, greedy_ids[row].tolist())
        assert expected - greedily > 0.1 if greedy_misses_it else expected == greedily


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_no_more_than_the_allowed_steps_are_taken(steps):
    source = sources(["abcde", ""])
    assert greedy(MODEL, source, steps).shape[1] <= steps
    assert torch.equal(greedy(MODEL, source, steps), greedy(MODEL, source)[:, :steps])
    assert beam_search(MODEL, source, 2, steps)[0].shape[1] <= steps


def test_decoding_stops_at_eos(trained):
    checks.decoding_stops(trained)


@pytest.mark.parametrize("beam", [1, 3])
def test_a_trained_model_reverses_each_text_of_a_list_in_its_place(trained, beam):
    texts = ["abc", "", "e", "dcbaa", "", "eeb"]
    assert reverse(trained, texts, beam) == [text[::-1] for text in texts]
    assert reverse(trained, "bade", beam) == "edab"
    assert reverse(trained, tuple(texts), beam) == reverse(trained, texts, beam)


@pytest.mark.parametrize("beam", [1, 2])
def test_nothing_reverses_to_nothing(trained, beam):
    assert reverse(trained, "", beam) == ""
    assert reverse(trained, ["", ""], beam) == ["", ""]
    assert reverse(trained, [], beam) == []


def test_long_lists_are_reversed_in_the_same_way(trained):
    texts = ["".join(letters) for letters in product("abcde", repeat=4)]
    written = reverse(trained, texts)
    assert sum(one == text[::-1] for one, text in zip(written, texts)) >= 0.95 * len(texts)
    assert written[::100] == [reverse(trained, text) for text in texts[::100]]


def test_ten_thousand_texts_in_small_batches_of_one_length_and_in_order(trained, monkeypatch):
    """Equal to one by one, and no batch is larger than it may be, or padded by more than needed."""
    chance, batches, decode = random.Random(0), [], decoding.greedy
    different = ["".join(chance.choices("abcde", k=chance.randint(0, 5))) for _ in range(300)]
    texts = chance.choices(different, k=10_000)
    monkeypatch.setattr(
        decoding, "greedy", lambda model, source: batches.append(source) or decode(model, source)
    )
    written = reverse(trained, texts)
    assert sum(map(len, batches)) == sum(text != "" for text in texts) > 8000
    assert max(map(len, batches)) <= 256
    widths = [(source != Vocab.pad).sum(1) for source in batches]
    assert sum(width.min() < width.max() for width in widths) <= 4, "where one length ends"
    alone = {text: reverse(trained, text) for text in set(texts)}
    assert written == [alone[text] for text in texts]


def test_long_texts_go_in_smaller_batches(monkeypatch):
    model, batches, decode = (
        checks.tiny(max_length=2000, positions="end_window"),
        [],
        decoding.greedy,
    )

    def noting(model, source):
        batches.append(source.shape)
        return decode(model, source, max_steps=2)

    monkeypatch.setattr(decoding, "greedy", noting)
    reverse(model, ["ab" * 1000] * 20 + ["c"] * 300)
    assert all(rows * width <= 2**14 for rows, width in batches) and max(batches)[0] == 256


def test_symbols_are_counted_and_not_code_points():
    model = checks.tiny(symbols="ñao", max_length=3)
    typed_with_a_combining_mark = "n\u0303ao"
    assert reverse(model, typed_with_a_combining_mark) == reverse(model, "ñao")


def test_reversing_is_the_same_in_training_mode_and_leaves_it(trained):
    model = Transformer(replace(trained.config, dropout=0.5))
    model.load_state_dict(trained.state_dict())
    texts = ["abc", "edcba", "dab", "caeb"]
    assert reverse(model.train(), texts) == [text[::-1] for text in texts]
    assert model.training


def test_no_rows_give_no_rows():
    model, source = checks.tiny(), torch.zeros(0, 3).long()
    assert len(greedy(model, source)) == 0
    texts, scores = beam_search(model, source, 3)
    assert len(texts) == len(scores) == 0
