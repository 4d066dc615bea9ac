"""The packed pass and the fast state compute what the model computes, and go around nobody."""

import checks
import pytest
import torch
from torch import nn
from torch_peers import assert_close

from revtrans import attention
from revtrans import model as library
from revtrans.decoding import CachedState, PlainState, start
from revtrans.model import DecoderLayer, Transformer
from revtrans.packed import FastState, Packed, as_written, hiding, look, packed
from revtrans.schemes import SCHEMES
from revtrans.training import cross_entropy

TEXTS = [["abcde", "", "ba"], ["abc", "cab"], ["", ""], ["a"]]


def told(positions: str, **changes) -> nn.Module:
    """A model whose scheme has learned something: zeros would hide a mistake."""
    model = checks.tiny(positions=positions, **changes)
    with torch.no_grad():
        for p in model.positions.parameters():
            p.copy_(torch.randn(p.shape, generator=checks.seeded(3)))
    return model


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", *SCHEMES])
@pytest.mark.parametrize("texts", TEXTS)
def test_logits_and_gradients_are_the_models(positions, texts):
    model = told(positions, tied=positions != "learned")
    batch = checks.reversal_batch(model.vocab, texts)
    found = []
    for forward in (model, packed(model)):
        logits = forward(batch.source, batch.decoder_input)
        loss, weights = cross_entropy(logits, batch.labels), list(model.parameters())
        gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        found.append([logits[batch.label_mask], *gradients])
    assert isinstance(forward, Packed)
    for one, other in zip(*found):
        assert_close(one, other)
    assert (logits[~batch.label_mask] == 0).all()


def test_dropout_falls_where_it_falls_in_the_model():
    model = checks.tiny(dropout=0.5).train()
    batch = checks.reversal_batch(model.vocab, ["abc", "cab"])  # full: the same draws fit
    found = []
    for forward in (model, packed(model), packed(model)):
        found.append(forward(batch.source, batch.decoder_input))
        if len(found) < 2:
            torch.manual_seed(0)
    assert_close(found[0], found[1])
    assert not torch.allclose(found[1], found[2])


TOUCHES = [  # a block of the model, and what is hung on it or replaced in it
    ("encoder.layers.0", "register_forward_hook"),
    ("decoder", "register_forward_pre_hook"),
    ("decoder.layers.0", "register_full_backward_hook"),
    ("encoder.layers.0", "register_full_backward_pre_hook"),
    ("decoder.layers.0.cross_attention", "attend"),
    ("encoder.layers.1", "forward"),
    ("", "encode"),
    ("decoder.layers.1.feed_forward", "__class__"),
]


def noting(function, called):
    """The same function, with a note of each call."""
    return lambda *given: called.append("called") or function(*given)


@pytest.mark.parametrize("path, name", TOUCHES)
def test_a_readers_own_piece_is_called(path, name):
    model, called = checks.tiny(), []
    batch = checks.reversal_batch(model.vocab, ["abc", "de"])
    expected = model(batch.source, batch.decoder_input)
    block = model.get_submodule(path)
    theirs = getattr(block, name)
    if name.startswith("register"):
        theirs(noting(lambda *_: None, called))
    elif name == "__class__":
        block.__class__ = type("Mine", (theirs,), {"forward": noting(theirs.forward, called)})
    else:
        setattr(block, name, noting(theirs, called))
    assert not as_written(model) and packed(model) is model
    logits = packed(model)(batch.source, batch.decoder_input)
    assert_close(logits, expected)
    logits.sum().backward()
    assert called
    assert isinstance(start(model, batch.source, cache=True), PlainState)


@pytest.mark.parametrize(
    "place, name",
    [
        (DecoderLayer, "forward"),
        (Transformer, "embed"),
        (attention, "masked_softmax"),
        (library, "causal_mask"),
    ],
)
def test_what_is_replaced_in_the_library_is_called(monkeypatch, place, name):
    model, called = checks.tiny(), []
    batch = checks.reversal_batch(model.vocab, ["abc", "de"])
    monkeypatch.setattr(place, name, noting(getattr(place, name), called))
    assert packed(model) is model
    assert isinstance(start(model, batch.source, cache=True), PlainState)
    packed(model)(batch.source, batch.decoder_input)
    assert called
    monkeypatch.undo()
    assert as_written(model)


@pytest.mark.filterwarnings("ignore:Full backward hook")  # of the embedding: ids have no gradient
@pytest.mark.parametrize("when", ["forward", "full_backward"])
@pytest.mark.parametrize("kind", ["hook", "pre_hook"])
def test_a_hook_of_all_modules_is_called(when, kind):
    model, called = checks.tiny(), []
    batch = checks.reversal_batch(model.vocab, ["abc", "de"])
    register = getattr(nn.modules.module, f"register_module_{when}_{kind}")
    hook = register(lambda *given: called.append(given[0]))
    try:
        packed(model)(batch.source, batch.decoder_input).sum().backward()
    finally:
        hook.remove()
    assert model.encoder.layers[0] in called
    assert as_written(model)


def test_who_is_packed_and_who_is_cached():
    source = checks.reversal_batch(checks.tiny().vocab, ["abc"]).source
    for positions in ("sinusoidal", "learned"):
        model = checks.tiny(positions=positions)
        assert isinstance(start(model, source, True), FastState)
        state = start(model, source, False)
        assert isinstance(state, PlainState)
        model.start = lambda source, state=state: state
        assert start(model, source, True) is start(model, source, False) is state
    for positions in SCHEMES:
        model = checks.tiny(positions=positions)
        assert as_written(model) and isinstance(start(model, source, True), CachedState)
    assert packed(nn.Linear(2, 2)).__class__ is nn.Linear
    strange, other = checks.tiny(positions="rotary"), checks.tiny(positions="rotary")
    strange.positions = other.positions  # the attentions still follow the scheme that was there
    assert not as_written(strange)


def test_a_scheme_that_nobody_knows_is_called_and_packed():
    class Louder(nn.Module):
        def forward(self, x, start=0):
            return 2 * x

    model = checks.tiny()
    model.positions = Louder()
    batch = checks.reversal_batch(model.vocab, ["abc", ""])
    expected = model(batch.source, batch.decoder_input)[batch.label_mask]
    assert isinstance(packed(model), Packed)
    assert_close(packed(model)(batch.source, batch.decoder_input)[batch.label_mask], expected)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize("texts", [["abcde", "", "ba"], ["", "", ""]])
def test_the_fast_state_is_the_full_pass(positions, texts):
    model = checks.tiny(positions=positions, max_length=40, tied=positions == "learned")
    model.decoder.layers.append(DecoderLayer(model.config))  # a reader's model may grow
    source = checks.reversal_batch(model.vocab, texts).source
    written = torch.randint(1, len(model.vocab), (3, 36), generator=checks.seeded())
    fast, plain = FastState(model, source), PlainState(model, source)
    logits = torch.stack([fast.step(ids) for ids in written[:, :34].T], dim=1)  # twice a room
    assert_close(logits, checks.full_pass(model, source, written[:, :34]))
    for ids in written[:, :34].T:
        plain.step(ids)
    for ids in written[:, 34:].T:
        for state in (fast, plain):
            state.select(torch.tensor([2, 0, 2]))
        assert_close(fast.step(ids), plain.step(ids))


@torch.no_grad()
def test_candidates_of_a_string_share_what_is_kept_for_it():
    model, generator = checks.tiny(max_length=60), checks.seeded()
    source = checks.reversal_batch(model.vocab, ["abcde", "", "ba"]).source
    fast, plain = FastState(model, source), PlainState(model, source)
    kept = fast.cross[0][0].data_ptr()
    candidates, ids = 1, torch.ones(3, dtype=torch.long)
    for width in [4] * 25 + [2] * 25:
        assert_close(fast.step(ids), plain.step(ids))
        chosen = torch.randint(candidates, (3, width), generator=generator)
        rows = (chosen + candidates * torch.arange(3)[:, None]).flatten()
        fast.select(rows), plain.select(rows)
        candidates, ids = width, torch.randint(3, len(model.vocab), rows.shape, generator=generator)
    fast.step(ids).fill_(0.0)  # logits may be changed in place
    assert fast.cross[0][0].data_ptr() == kept
    assert fast.room.length < 100  # 150 columns were written
    fast.select(rows[:0])
    assert fast.step(ids[:0]).shape == (0, len(model.vocab))


@torch.no_grad()
def test_what_is_hidden_from_the_quick_decoder_gets_no_weight_in_half_precision():
    query, keys = torch.ones(1, 1, 1, 1), torch.tensor([[[[-60_000.0, 60_000.0]]]])
    values, mask = torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[[[True, False]]]])
    seen = look(query.half(), keys.half(), values.half(), hiding(mask, query.half()))
    assert seen.tolist() == [[1.0]]
    model = checks.tiny()
    source = checks.reversal_batch(model.vocab, ["abc", ""]).source
    with torch.autocast("cpu", torch.float16):
        assert FastState(model, source).step(torch.tensor([1, 1])).isfinite().all()
