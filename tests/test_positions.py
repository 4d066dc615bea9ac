"""Sinusoids, tables, distances and windows; every scheme keeps what the model promises."""

import math

import checks
import pytest
import torch
from torch_peers import assert_close

from revtrans import decoding
from revtrans.attention import padding_mask
from revtrans.data import make_batch
from revtrans.positions import (
    SCHEMES,
    Buckets,
    EndALiBi,
    EndWindow,
    Learned,
    Local,
    Positions,
    Rotary,
    Sinusoidal,
    TwoWay,
    sinusoids,
)

ADDED = ("sinusoidal", "learned", "randomised")  # the others act within attention
LOCAL = [name for name, scheme in SCHEMES.items() if issubclass(scheme, Local)]


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
    query, key = torch.randn(2, 1, 2, 3, 4)
    assert none.embed(x, start=7) is x
    assert none.place("cross", 5, query, key, None) == (query, key, None)


def test_a_model_without_positions_reads_a_bag_of_letters():
    model = checks.tiny(positions="none")
    logits = model(torch.tensor([[3, 4, 5, 6], [6, 4, 3, 5]]), torch.tensor([[1, 3, 4]] * 2))
    assert_close(logits[0], logits[1])


class Loudness(Positions):
    """A scheme that the library does not know: the farther from the source's end, the fainter."""

    def __init__(self, max_length, d_model, n_heads):
        super().__init__(max_length, d_model, n_heads)
        self.slope = torch.nn.Parameter(torch.ones(n_heads, 1, 1))

    def place(self, kind, start, query, key, mask):
        at = torch.arange(start, start + query.shape[2])[:, None]
        keys_at = torch.arange(key.shape[2])
        if kind == "cross":
            keys_at = mask.sum(-1, keepdim=True) - 1 - keys_at
        return query, key, -self.slope * (at - keys_at).abs()


@pytest.fixture(params=[name for name in SCHEMES if name != "none"] + ["newcomer"])
def model(request, monkeypatch):
    """A small model with each scheme, one from outside the library among them."""
    monkeypatch.setitem(SCHEMES, "newcomer", Loudness)
    model = checks.tiny(positions=request.param)
    generator = checks.seeded(3)
    with torch.no_grad():
        for p in model.positions.parameters():  # zeros at first would hide a mistake
            p.copy_(torch.randn(p.shape, generator=generator))
    return model


def test_a_scheme_tells_order(model):
    checks.order_is_told(model)


def test_a_scheme_respects_padding_and_the_future(model):
    checks.padding_is_ignored(model)
    checks.future_is_hidden(model)


def test_a_scheme_gives_each_string_of_a_batch_what_it_gives_it_alone(model):
    texts = ["", "a", "bcd", "edcba", "abcdeabc"]
    batch = checks.reversal_batch(model.vocab, texts)
    together = model(batch.source, batch.decoder_input)
    assert together.isfinite().all()
    for text, logits in zip(texts, together):
        alone = checks.reversal_batch(model.vocab, [text])
        expected = model(alone.source, alone.decoder_input)[0]
        assert_close(logits[: len(text) + 1], expected[: len(text) + 1])


def test_a_scheme_decodes_with_a_cache(model):
    checks.cache_changes_nothing(model)
    checks.beams_keep_their_past(model)
    source = make_batch(model.vocab, ["abc", "edcba", "d"], [""] * 3).source
    for search in (decoding.greedy, lambda *a, **k: decoding.beam_search(*a, beam=3, **k)[0]):
        assert torch.equal(search(model, source), search(model, source, cache=False))


def test_a_scheme_is_trained(model):
    batch = checks.reversal_batch(model.vocab, ["abc", "de"])
    model.train()(batch.source, batch.decoder_input).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all()
        if name.startswith("positions."):
            assert parameter.grad.abs().sum() > 0, name


def test_a_scheme_gives_zeros_where_there_is_nothing_to_read(model):
    """The empty source in a batch of others, and a batch of empty sources alone."""
    for texts in (["", "abc"], ["", ""]):
        batch = checks.reversal_batch(model.vocab, texts)
        memory, _ = model.encode(batch.source)
        mask = padding_mask(batch.source)
        _, weights = model.decode(batch.decoder_input, memory, mask)
        for _, cross in weights:
            read = model.positions.dense("cross", cross, mask)
            assert read.shape[-1] == batch.source.shape[1]
            assert not read[0].any() and cross.isfinite().all()


def test_weights_of_all_schemes_can_be_drawn(model):
    from revtrans.plotting import attention_maps

    maps = attention_maps(model, ["abc", "edcba"], ["cba", "abcde"])
    assert [m.cross.shape for m in maps] == [(2, 2, 4, 3), (2, 2, 6, 5)]
    assert [m.encoder.shape for m in maps] == [(2, 2, 3, 3), (2, 2, 5, 5)]
    for m in maps:
        for weights in (m.encoder, m.decoder, m.cross):
            assert (weights.sum(-1) < 1 + 1e-5).all()
        assert not m.decoder.triu(1).any()


@pytest.mark.parametrize("name", [name for name in SCHEMES if name not in ADDED])
def test_schemes_within_attention_know_no_longest_text(name):
    """Beyond max_length they go on, and their parameters do not depend on it."""
    short, long = (SCHEMES[name](n, 8, 2) for n in (4, 400))
    assert [p.shape for p in short.parameters()] == [p.shape for p in long.parameters()]
    x = torch.randn(1, 30, 8)
    assert short.embed(x).shape == x.shape
    query = torch.randn(1, 2, 30, 4)
    mask = torch.ones(1, 1, 1, 30, dtype=torch.bool)
    assert short.attend("cross", 0, query, query, query, mask)[0].isfinite().all()


def test_rotary_turns_by_the_papers_angles():
    query, key = torch.randn(2, 1, 1, 5, 6, generator=checks.seeded())
    turned, keys, bias = Rotary(9, 6, 1).place("decoder", 3, query, key, None)
    assert bias is None
    for i in range(3):
        pair = torch.view_as_complex(query[0, 0, :, 2 * i : 2 * i + 2].contiguous())
        angle = (3 + torch.arange(5)) / 10000 ** (2 * i / 6)
        expected = torch.view_as_real(pair * torch.polar(torch.ones(5), angle))
        assert_close(turned[0, 0, :, 2 * i : 2 * i + 2], expected)
    assert_close(keys[0, 0, 0], key[0, 0, 0])
    with pytest.raises(ValueError, match="d_model / n_heads must be even, not 3"):
        Rotary(9, 6, 2)


def test_buckets_are_t5s():
    """n 16, longest 128, in the words of the paper: one each at first, then logarithmic."""
    buckets = Buckets(9, 8, 2)
    for distance in range(300):
        expected = distance
        if distance >= 8:
            expected = min(15, 8 + int(math.log(distance / 8) / math.log(16) * 8 + 1e-6))
        for offset in {-distance, distance}:
            found = int(buckets.bucket(torch.tensor(offset)))
            assert found == expected + (16 if offset > 0 else 0), offset


@pytest.mark.parametrize("name", ["sinusoidal", "randomised"])
def test_randomised_positions_come_from_the_whole_table_in_order(name):
    positions = SCHEMES[name](40, 8, 2).train()
    mask = torch.ones(200, 1, 5, dtype=torch.bool)
    told = positions.embed(torch.zeros(200, 5, 8), 0, mask)
    rows = torch.cdist(told, positions.table).argmin(-1)
    assert (rows.diff() > 0).all()
    assert (rows.max() > 30) == (name == "randomised")
    assert (len(rows.unique(dim=0)) > 100) == (name == "randomised")


def test_randomised_positions_are_shared_by_source_and_target():
    positions, mask = SCHEMES["randomised"](40, 8, 2), torch.ones(9, 1, 5, dtype=torch.bool)
    for mode in (True, False):
        positions.train(mode)
        source = positions.embed(torch.zeros(9, 5, 8), 0, mask)
        target = positions.embed(torch.zeros(9, 6, 8), 0, mask, "decoder")
        assert torch.equal(target[:, :5], source)
        again = positions.embed(torch.zeros(9, 5, 8), 0, mask)
        assert torch.equal(again, source) != mode


def test_randomised_positions_need_the_sources_length():
    with pytest.raises(ValueError, match="need the source's mask"):
        SCHEMES["randomised"](9, 8, 2).embed(torch.zeros(1, 3, 8))


@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
@pytest.mark.parametrize("scheme", [EndWindow, TwoWay])
def test_windows_equal_dense_attention_with_everything_else_masked(scheme, kind):
    """Slot by slot against a softmax over all keys and one silent key per empty slot."""
    positions, generator = scheme(20, 8, 2), checks.seeded(1)
    with torch.no_grad():
        positions.slots[kind].copy_(torch.randn(positions.slots[kind].shape, generator=generator))
    query, key, value = torch.randn(3, 2, 2, 7, 4, generator=generator)
    lengths = torch.tensor([7, 4])
    mask = (torch.arange(7) < lengths[:, None])[:, None, None]
    output, weights = positions.attend(kind, 0, query, key, value, mask)
    for b, n in enumerate(lengths.tolist()):
        for t in range(7):
            slots = []
            for origin, first, last in positions.lanes[kind]:
                for offset in range(first, last + 1):
                    at = {"start": t + offset, "end": n - 1 - t - offset, "first": 0}[origin]
                    slots.append(at)
            for head in range(2):
                zero = torch.zeros(4)
                keys = torch.stack([key[b, head, j] if 0 <= j < n else zero for j in slots])
                values = torch.stack([value[b, head, j] if 0 <= j < n else zero for j in slots])
                logits = (keys + positions.slots[kind][:, head]) @ query[b, head, t] / 2
                assert_close(weights[b, head, t], logits.softmax(0))
                assert_close(output[b, head, t], logits.softmax(0) @ values)


@pytest.mark.parametrize("name", LOCAL)
def test_local_schemes_use_dropout_in_training_only(name):
    model = checks.tiny(positions=name, dropout=0.5)
    batch = checks.reversal_batch(model.vocab, ["abcd"])
    logits = [model(batch.source, batch.decoder_input) for _ in range(2)]
    assert torch.equal(*logits)
    query = torch.randn(1, 2, 6, 8)
    dropped = [model.positions.attend("encoder", 0, *[query] * 3, dropout=0.5)[0] for _ in "ab"]
    assert not torch.equal(*dropped)


def test_end_aligned_alibi_counts_from_the_sources_end():
    positions = EndALiBi(9, 8, 2)
    query, key = torch.zeros(2, 2, 3, 4), torch.zeros(2, 2, 5, 4)
    mask = (torch.arange(5) < torch.tensor([[5], [3]]))[:, None, None]
    bias = positions.place("cross", 1, query, key, mask)[2]
    for b, n in enumerate((5, 3)):
        for t in range(3):
            for j in range(5):
                assert bias[b, 0, t, j] == -abs(1 + t - (n - 1 - j))
    whole = positions.place("cross", 1, query, key, None)[2]
    assert torch.equal(whole[0], bias[0, 0])
