"""The hand-made model is exact wherever it is meant to be, and nothing in it is left to chance."""

import itertools

import checks
import pytest
import torch

from revtrans.by_hand import blocks, hand_made, keep
from revtrans.data import ReversalTask
from revtrans.decoding import beam_search, greedy, reverse
from revtrans.files import load, save
from revtrans.model import Transformer
from revtrans.training import exact_match, predict


def test_every_string_of_a_small_alphabet_is_reversed():
    texts = ["".join(t) for n in range(1, 7) for t in itertools.product("abc", repeat=n)]
    assert reverse(hand_made("abc", 6), texts) == [text[::-1] for text in texts]


@pytest.mark.parametrize("max_length", [1, 2, 16, 40])
def test_the_longest_strings_are_reversed_too(max_length):
    model = hand_made("abcde", max_length)
    texts = ["a" * max_length, "b" + "a" * (max_length - 1), ("abcde" * max_length)[:max_length]]
    assert reverse(model, texts) == [text[::-1] for text in texts]


def test_it_is_exact_by_every_way_of_decoding():
    model, task = hand_made("abcde", 8), ReversalTask("abcde", max_length=8)
    batch = task.sample(200, checks.seeded(), "held_out")
    assert exact_match(predict(model, batch), batch.labels) == 1
    for found in (
        greedy(model, batch.source, cache=True),
        greedy(model, batch.source, cache=False),
        beam_search(model, batch.source, 3)[0],
    ):
        assert torch.equal(found[:, : batch.labels.shape[1]], batch.labels)


def test_it_is_a_transformer_like_any_other_and_not_random(tmp_path):
    state, model = torch.get_rng_state(), hand_made("abc", 4)
    assert torch.equal(state, torch.get_rng_state())
    assert type(model) is Transformer and not model.training
    save(model, tmp_path / "m")
    assert torch.equal(checks.weights(load(tmp_path / "m")), checks.weights(hand_made("abc", 4)))


@pytest.mark.parametrize(
    "rule, expected",
    [(lambda n, t: t, "abca"), (lambda n, t: (t + 1) % n, "bcaa"), (lambda n, t: 0, "aaaa")],
)
def test_the_rule_says_which_position_is_copied(rule, expected):
    assert reverse(hand_made("abc", 5, wanted=rule), "abca") == expected


@pytest.mark.parametrize("ones", [1, 2, 5])
def test_the_norm_gives_back_what_has_that_many_ones_and_nothing_else(ones):
    norm = torch.nn.LayerNorm(12)
    with torch.no_grad():
        keep(norm, ones)
    x = torch.zeros(12)
    x[:ones] = 1
    torch.testing.assert_close(norm(x), x)
    x[ones] = 1
    assert (norm(x) - x).abs().max() > 0.01


def test_the_blocks_fill_the_vector_without_a_gap():
    parts = list(blocks(29, 16).values())
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == hand_made("abcdefghijklmnopqrstuvwxyz", 16).config.d_model


@pytest.mark.parametrize(
    "typed, parts",
    [
        ("hand_made('abc', 0)", ["max_length", "at least 1", "0"]),
        ("hand_made('abc', 10**6)", ["max_length", "at most 400"]),
        ("hand_made('', 3)", ["alphabet is empty"]),
        ("hand_made('abc', 3, sharpness=0)", ["sharpness", "above 0", "0"]),
        ("hand_made('abc', 3, wanted=5)", ["wanted", "function", "5"]),
        ("hand_made('abc', 3, wanted=lambda n, t: n)", ["wanted(1, 0) is 1", "0 to 0"]),
        ("hand_made('abc', 3, wanted=lambda n, t: 0.5)", ["wanted(1, 0) is 0.5"]),
        ("hand_made('abc', 3, wanted=lambda n, t: (n - 1 - t) / 1)", ["wanted(1, 0) is 0.0"]),
    ],
)
def test_bad_input_is_named(plain, typed, parts):
    with pytest.raises(plain.errors.RevtransError) as caught:
        eval(typed, vars(plain.by_hand))
    assert all(part in str(caught.value) for part in parts), caught.value
