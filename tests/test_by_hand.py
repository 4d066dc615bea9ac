"""The hand-made model is exact wherever it is meant to be, and nothing in it is left to chance."""

import checks
import pytest
import torch

from revtrans.by_hand import hand_made, keep
from revtrans.data import ReversalTask
from revtrans.decoding import beam_search, greedy, reverse
from revtrans.files import load, save
from revtrans.model import Transformer
from revtrans.training import exact_match, predict


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
