"""Every position scheme keeps what the model promises, and each does what its paper says."""

import math

import checks
import pytest
import torch
from torch_peers import assert_close

from revtrans.attention import causal_mask, padding_mask
from revtrans.data import make_batch
from revtrans.schemes import SCHEMES, Local, Scheme

KINDS = ("encoder", "decoder", "cross")
LOCAL = [name for name, scheme in SCHEMES.items() if issubclass(scheme, Local)]


class Loudness(Scheme):
    """A scheme that the library does not know: the farther from the source's end, the fainter."""

    def __init__(self, config, encoder, decoder):
        super().__init__(config, encoder, decoder)
        self.slope = torch.nn.Parameter(torch.ones(config.n_heads, 1, 1))

    def place(self, kind, start, query, key, mask):
        at = torch.arange(start, start + query.shape[2], device=query.device)[:, None]
        keys_at = torch.arange(key.shape[2], device=key.device)
        if kind == "cross":
            keys_at = mask.sum(-1, keepdim=True) - 1 - keys_at
        return query, key, -self.slope * (at - keys_at).abs()


@pytest.fixture(params=[*SCHEMES, "newcomer"])
def model(request, monkeypatch):
    """A small model with each scheme, one from outside the library among them."""
    monkeypatch.setitem(SCHEMES, "newcomer", Loudness)
    return tiny(request.param)


def tiny(name, **changes):
    model = checks.tiny(positions=name, **changes)
    with torch.no_grad():
        for p in model.positions.parameters():  # zeros at first would hide a mistake
            p.copy_(torch.randn(p.shape, generator=checks.seeded(3)))
    return model


def read(kind, n_query, lengths, start=0):
    """Random queries, keys and values, and the mask of this kind of attention."""
    n_key = max(lengths)
    query = torch.randn(len(lengths), 2, n_query, 8, generator=checks.seeded(1))
    key, value = torch.randn(2, len(lengths), 2, n_key, 8, generator=checks.seeded(2))
    mask = (torch.arange(n_key) < torch.tensor(lengths)[:, None])[:, None, None]
    return query, key, value, causal_mask(n_key) if kind == "decoder" else mask


def test_order_is_told_by_all_but_none(model):
    if model.config.positions != "none":
        return checks.order_is_told(model)
    logits = model(torch.tensor([[3, 4, 5, 6], [6, 4, 3, 5]]), torch.tensor([[1, 3, 4]] * 2))
    assert_close(logits[0], logits[1])


def test_neither_padding_nor_the_future_nor_other_strings_matter(model):
    checks.padding_is_ignored(model)
    checks.future_is_hidden(model)
    texts = ["", "a", "bcd", "edcba", "abcdeabc"]
    batch = checks.reversal_batch(model.vocab, texts)
    for text, logits in zip(texts, model(batch.source, batch.decoder_input)):
        alone = checks.reversal_batch(model.vocab, [text])
        expected = model(alone.source, alone.decoder_input)[0]
        assert_close(logits[: len(text) + 1], expected[: len(text) + 1])


def test_one_position_at_a_time_is_the_full_pass(model):
    checks.cache_changes_nothing(model)
    checks.beams_keep_their_past(model)


def test_gradients_reach_all_that_a_scheme_learns(model):
    batch = checks.reversal_batch(model.vocab, ["abc", "", "de"])
    model.train()(batch.source, batch.decoder_input).square().mean().backward()
    for name, p in model.named_parameters():
        assert p.grad.isfinite().all(), name
    for name, p in model.positions.named_parameters():
        slots = p.grad.flatten(1) if name.startswith("slots") else p.grad.flatten()[None]
        assert (slots.abs().sum(1) > 0).all(), name


@pytest.mark.parametrize("texts", [["", "abc"], ["", ""]])
def test_an_empty_source_gives_zeros(model, texts):
    batch = checks.reversal_batch(model.vocab, texts)
    mask, (memory, _) = padding_mask(batch.source), model.encode(batch.source)
    logits, weights = model.decode(batch.decoder_input, memory, mask)
    assert logits.isfinite().all()
    for _, cross in weights:
        spread = model.positions.dense("cross", cross, mask)
        assert spread.shape == (2, 2, batch.decoder_input.shape[1], batch.source.shape[1])
        assert cross.isfinite().all() and not spread[0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_dense_weights_are_those_of_the_keys(model, kind):
    """Spread over the keys, they still give the output: whatever is left out is silence."""
    query, key, value, mask = read(kind, 7, (7, 4))
    output, weights = model.positions.attend(kind, query, key, value, mask)
    real = torch.ones(2, 1, 1, 7, dtype=torch.bool) if kind == "decoder" else mask
    spread = model.positions.dense(kind, weights, real)
    assert_close(spread @ value, output)
    assert (spread.sum(-1) < 1 + 1e-5).all() and not spread.masked_fill(mask, 0).any()


def test_nothing_is_made_on_the_default_device(model):
    batch = checks.reversal_batch(model.vocab, ["abc", "edcba"])
    expected = model(batch.source, batch.decoder_input)
    with torch.device("meta"):
        assert torch.equal(model(batch.source, batch.decoder_input), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_stays_finite(model, kind):
    """Products of 100 · 100 in eight dimensions are above fp16's largest, 65,504."""
    scheme, (*_, mask) = model.positions.half(), read(kind, 7, (7, 4))
    large = torch.full((2, 2, 7, 8), 100, dtype=torch.float16)
    output, weights = scheme.attend(kind, large, large, large, mask)
    assert output.dtype == weights.dtype == torch.float16
    assert output.isfinite().all() and weights.isfinite().all()


def test_schemes_know_no_longest_text(model):
    long = tiny(model.config.positions, max_length=400)
    assert [p.shape for p in model.parameters()] == [p.shape for p in long.parameters()]
    batch = make_batch(model.vocab, ["abcde" * 6], ["edcba" * 6])
    assert_close(*(m(batch.source, batch.decoder_input) for m in (model, long)))


def test_queries_begin_at_0():
    """Whoever asks for nothing reads its own place most, if nearness is all that counts."""
    model = tiny("alibi")
    for p in model.encoder.layers[0].self_attention.query.parameters():
        torch.nn.init.zeros_(p)
    weights = model.encode(torch.arange(3, 8)[None])[1][0]
    assert (weights.argmax(-1) == torch.arange(5)).all()


def test_rotary_turns_by_the_papers_angles():
    query, key = torch.randn(2, 1, 2, 5, 8, generator=checks.seeded())
    turned, keys, bias = tiny("rotary").positions.place("decoder", 3, query, key, None)
    for x, first, found in ((query, 3, turned), (key, 0, keys)):
        pairs = torch.view_as_complex(x.unflatten(-1, (4, 2)).contiguous())
        frequency = 10_000.0 ** (-torch.arange(4) / 4)
        angle = torch.outer(first + torch.arange(5), frequency)
        expected = torch.view_as_real(pairs * torch.polar(torch.ones(5, 4), angle)).flatten(-2)
        assert_close(found, expected)
    assert bias == 0
    with pytest.raises(ValueError, match="d_model / n_heads must be even, not 3"):
        tiny("rotary", d_model=6)


@pytest.mark.parametrize("n_heads, first, last", [(8, 1 / 2, 1 / 256), (4, 1 / 4, 1 / 256)])
def test_alibis_slopes_are_the_papers(n_heads, first, last):
    scheme = tiny("alibi", n_heads=n_heads, d_model=8).positions
    bias = scheme.place(
        "cross", 2, torch.zeros(1, n_heads, 3, 1), torch.zeros(1, n_heads, 9, 1), None
    )[2]
    assert bias[0].tolist() == [[-first * abs(2 + t - j) for j in range(9)] for t in range(3)]
    ratio = (last / first) ** (1 / (n_heads - 1))
    assert_close(bias[1:], ratio * bias[:-1])


def test_buckets_are_t5s():
    """n 16, longest 128, in the words of the paper: one each at first, then logarithmic."""
    scheme = tiny("buckets").positions
    for distance in range(300):
        expected = distance
        if distance >= 8:
            expected = min(15, 8 + int(math.log(distance / 8) / math.log(16) * 8 + 1e-6))
        for offset in {-distance, distance}:
            found = int(scheme.bucket(torch.tensor(offset)))
            assert found == expected + (16 if offset > 0 else 0), offset
    query, key = torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 6, 8)
    bias = scheme.place("cross", 2, query, key, None)[2]
    assert torch.equal(bias[:, 1, 5], scheme.tables["cross"][:, 16 + 2])  # query 3, key 5
    assert torch.equal(bias[:, 2, 0], scheme.tables["cross"][:, 4])


def test_end_aligned_alibi_counts_from_the_sources_end():
    scheme = tiny("end_alibi").positions
    query, key, _, mask = read("cross", 3, (5, 3))
    bias = scheme.place("cross", 1, query, key, mask)[2] / scheme.log_slopes.exp()
    for row, n in zip(bias, (5, 3)):
        assert_close(
            row[0],
            torch.tensor([[-abs(1.0 + t - (n - 1 - j)) for j in range(5)] for t in range(3)]),
        )
    assert_close(scheme.place("cross", 1, query, key, None)[2] / scheme.log_slopes.exp(), bias[0])


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_softmax_slot_by_slot(name, kind):
    """Each slot holds a key or, beyond the ends, silence: a key and a value of zeros."""
    scheme = tiny(name).positions
    if kind not in scheme.lanes:
        return
    query, key, value, mask = read(kind, 7, (7, 4))
    output, weights = scheme.attend(kind, query, key, value, mask)
    for b, n in enumerate((7, 7 if kind == "decoder" else 4)):
        for t in range(7):
            slots = [
                {"start": t + offset, "end": n - 1 - t - offset, "first": 0}[origin]
                for origin, first, last in scheme.lanes[kind]
                for offset in range(first, last + 1)
            ]
            for head in range(2):
                keys, values = (
                    torch.stack([x[b, head, j] if 0 <= j < n else torch.zeros(8) for j in slots])
                    for x in (key, value)
                )
                scores = (keys + scheme.slots[kind][:, head]) @ query[b, head, t] / math.sqrt(8)
                assert_close(weights[b, head, t], scores.softmax(0))
                assert_close(output[b, head, t], scores.softmax(0) @ values)


def test_two_ways_windows_lie_at_both_ends():
    assert SCHEMES["two_way"].lanes["cross"] == [("start", -1, 1), ("end", -1, 1)]
    assert SCHEMES["two_way"].lanes["decoder"] == [("start", -2, 0), ("first", 0, 0)]
