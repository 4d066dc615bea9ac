"""Sinusoids, tables, and schemes that join from outside without a change to the model."""

import math

import checks
import pytest
import torch
from torch import nn
from torch_peers import assert_close

from revtrans import decoding
from revtrans.data import make_batch
from revtrans.positions import SCHEMES, Learned, Positions, Sinusoidal, sinusoids


@pytest.mark.parametrize("length, d_model", [(1, 2), (7, 6), (50, 16)])
def test_sinusoids_follow_the_papers_formula(length, d_model):
    table = sinusoids(length, d_model)
    for pos in range(length):
        for i in range(d_model // 2):
            angle = pos / 10000 ** (2 * i / d_model)
            assert table[pos, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[pos, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.parametrize("scheme", [Sinusoidal, Learned])
def test_a_table_is_added_from_the_start_position_on(scheme):
    positions = scheme(9, 8, 2)
    x = torch.randn(2, 9, 8, generator=checks.seeded())
    told = positions.embed(x)
    assert_close(told - x, positions.table.expand(2, 9, 8))
    assert torch.equal(positions.embed(x[:, 4:], start=4), told[:, 4:])


@pytest.mark.parametrize("scheme", [Sinusoidal, Learned])
@pytest.mark.parametrize("start, length", [(0, 10), (9, 1), (5, 5)])
def test_a_table_ends(scheme, start, length):
    with pytest.raises(ValueError, match="10 positions, but the position table holds 9"):
        scheme(9, 8, 2).embed(torch.zeros(1, length, 8), start)


def test_only_the_learned_table_is_trained_and_saved():
    assert [name for name, _ in Learned(9, 8, 2).named_parameters()] == ["table"]
    assert not Sinusoidal(9, 8, 2).state_dict() and not list(Sinusoidal(9, 8, 2).parameters())


def test_without_positions_everything_passes_unchanged():
    none, x = Positions(9, 8, 2), torch.randn(1, 30, 8)
    queries, keys = torch.randn(2, 1, 2, 3, 4)
    assert none.embed(x, start=7) is x
    assert none.place("cross", 5, None, queries, keys) == (queries, keys, None)


@pytest.mark.parametrize("scheme", ["sinusoidal", "learned"])
def test_a_model_with_positions_tells_order(scheme):
    checks.order_is_told(checks.tiny(positions=scheme))


def test_a_model_without_positions_reads_a_bag_of_letters():
    model = checks.tiny(positions="none")
    logits = model(torch.tensor([[3, 4, 5, 6], [6, 4, 3, 5]]), torch.tensor([[1, 3, 4]] * 2))
    assert_close(logits[0], logits[1])


class Rotary(Positions):
    """Turns each pair of query and key dimensions by an angle that grows with the position."""

    def place(self, kind, start, mask, queries, keys):
        return self.turn(queries, start), self.turn(keys, 0), None

    def turn(self, x, start):
        half = x.shape[-1] // 2
        speed = 10.0 ** -torch.arange(half)
        angle = torch.arange(start, start + x.shape[2])[:, None] * speed
        a, b = x[..., :half], x[..., half:]
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Distance(Positions):
    """A learned penalty on distance; cross-attention counts the source from its end."""

    def __init__(self, max_length, d_model, n_heads):
        super().__init__(max_length, d_model, n_heads)
        kinds = ("encoder", "decoder", "cross")
        slopes = {kind: nn.Parameter(torch.rand(n_heads, 1, 1)) for kind in kinds}
        self.slopes = nn.ParameterDict(slopes)

    def place(self, kind, start, mask, queries, keys):
        i = torch.arange(start, start + queries.shape[2])[:, None]
        j = torch.arange(keys.shape[2])
        if kind == "cross":
            j = mask.sum(-1)[..., None, None] - 1 - j
        return queries, keys, -self.slopes[kind] * (i - j).abs()


@pytest.fixture(params=[Rotary, Distance])
def newcomer(request, monkeypatch):
    """A model whose positions are told by a scheme that the library does not know."""
    monkeypatch.setitem(SCHEMES, "newcomer", request.param)
    return checks.tiny(positions="newcomer")


def test_a_new_scheme_takes_part(newcomer):
    checks.order_is_told(newcomer)
    without = checks.tiny(positions="none")
    without.load_state_dict(newcomer.state_dict(), strict=False)
    source, decoder_input = torch.tensor([[3, 4, 5]]), torch.tensor([[1, 4]])
    assert not torch.allclose(newcomer(source, decoder_input), without(source, decoder_input))


def test_a_new_scheme_respects_padding_and_the_future(newcomer):
    checks.padding_is_ignored(newcomer)
    checks.future_is_hidden(newcomer)


def test_a_new_scheme_decodes_with_a_cache(newcomer):
    checks.cache_changes_nothing(newcomer)
    source = make_batch(newcomer.vocab, ["abc", "edcba"], ["", ""]).source
    for search in (decoding.greedy, lambda *a, **k: decoding.beam_search(*a, beam=3, **k)[0]):
        assert torch.equal(search(newcomer, source), search(newcomer, source, cache=False))


def test_a_new_scheme_is_trained(newcomer):
    batch = checks.reversal_batch(newcomer.vocab, ["abc", "de"])
    newcomer(batch.source, batch.decoder_input).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in newcomer.positions.parameters())
