"""Serious tries to refute the proofs, and that a proof of something untrue fails."""

import copy
import random
from itertools import product

import pytest
import torch
from torch import nn

from revtrans import proof, schemes
from revtrans.data import ReversalTask, Vocab, make_batch, pad_rows
from revtrans.decoding import reverse
from revtrans.model import Transformer, TransformerConfig
from revtrans.proof import Ball, every, margins, prove_exact, window_of
from revtrans.training import fit

SMALL = {"d_model": 16, "n_heads": 2, "d_ff": 32}


def untrained(positions: str, symbols: str = "abcd", n_layers: int = 1, **sizes) -> Transformer:
    config = TransformerConfig(symbols, 300, n_layers=n_layers, positions=positions, **sizes)
    return Transformer(config).eval()


def shaken(model: Transformer) -> Transformer:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) * 0.3)
    return model


def learn(positions: str, symbols: str, steps: int) -> Transformer:
    model = untrained(positions, symbols)
    fit(model, ReversalTask(symbols), steps=steps, eval_every=steps, progress=False)
    return model


@pytest.fixture(scope="module")
def narrow() -> Transformer:
    return learn("narrow", "abcd", 100)


@pytest.fixture(scope="module")
def neighbours() -> Transformer:
    return learn("neighbours", "abc", 120)


def cut(text: str, t: int, window: tuple[int, int]) -> tuple[str, int]:
    begin, n = max(0, t + window[0]), len(text)
    end = min(n, t + window[1] + 1)
    return text[n - end : n - begin], t - begin


@torch.no_grad()
def logits_at(model: Transformer, text: str, t: int, beside: str = "a") -> torch.Tensor:
    batch = make_batch(model.vocab, [text, beside], [text[::-1], beside[::-1]])
    return model(batch.source, batch.decoder_input)[0, t]


@torch.no_grad()
def bounds_at(model: Transformer, text: str, t: int) -> tuple[torch.Tensor, torch.Tensor]:
    batch = make_batch(model.vocab, [text], [text[::-1]])
    logits, off = proof.bounded_logits(model, batch.source, batch.decoder_input)
    return logits[0, t], off[0, t]


# Margins


def test_a_margin_above_zero_is_a_string_that_greedy_decoding_reverses(trained):
    texts = ["".join(t) for n in (1, 2, 3, 5) for t in product("abcde", repeat=n)][::3]
    found = margins(trained, pad_rows([trained.vocab.encode(text) for text in texts])) > 0
    assert found.tolist() == [w == t[::-1] for w, t in zip(reverse(trained, texts), texts)]
    assert 0 < found.float().mean()
    broken = shaken(untrained("narrow"))
    texts = ["abc", "dd", "a"]
    assert (
        margins(broken, pad_rows([broken.vocab.encode(text) for text in texts])) > 0
    ).tolist() == [reverse(broken, text) == text[::-1] for text in texts]


# Balls


def moved_inside(ball: Ball, draw: torch.Generator) -> torch.Tensor:
    aside = torch.randn(ball.centre.shape, generator=draw, dtype=torch.float64)
    aside /= aside.norm(dim=-1, keepdim=True)
    return (ball.centre + aside * ball.radius[..., None]).float()


def used_up(bound: Ball, found: torch.Tensor) -> float:
    return ((found.double() - bound.centre).norm(dim=-1) / bound.radius).max().item()


def attack(radius: float) -> dict[str, float]:
    """The share of each bound that float32 uses up, with sums in a random order."""
    draw = torch.Generator().manual_seed(0)
    layer, norm = nn.Linear(64, 48), nn.LayerNorm(64)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(64, generator=draw))
    ball = Ball(torch.randn(500, 64, generator=draw).double(), torch.full((500,), radius).double())
    x, order = moved_inside(ball, draw), torch.randperm(64, generator=draw)
    with torch.no_grad():
        in_order = x[:, order] @ layer.weight[:, order].T + layer.bias
        return {
            "linear": used_up(proof.linear(ball, layer.weight, layer.bias), in_order),
            "norm": used_up(proof.norm(ball, norm), norm(x)),
        }


@pytest.mark.parametrize("radius", [0.0, 1e-4, 0.05])
def test_float32_stays_in_the_ball(radius):
    used = attack(radius)
    assert max(used.values()) < 1 and min(used.values()) > (0.1 if radius else 0)


def test_a_bound_that_forgets_rounding_is_refuted(monkeypatch):
    monkeypatch.setattr(proof, "gamma", lambda n: 1e-12)
    assert min(attack(0.0).values()) > 1


def test_a_bound_that_forgets_the_gain_is_refuted(monkeypatch):
    norm = torch.linalg.matrix_norm
    monkeypatch.setattr(torch.linalg, "matrix_norm", lambda w, p: norm(w, p) / 4)
    assert attack(0.05)["linear"] > 1


def test_attention_stays_in_its_ball():
    draw = torch.Generator().manual_seed(0)
    for sharpness, radius in ((1.0, 0.0), (1.0, 0.01), (30.0, 0.0), (30.0, 1e-3)):
        sizes = torch.full((200, 5), radius).double()
        query = Ball(sharpness * torch.randn(200, 1, 8, generator=draw).double(), sizes[:, :1])
        key, value = (Ball(torch.randn(200, 5, 8, generator=draw).double(), sizes) for _ in "kv")
        weights, off = proof.weights_of(query, key)
        read = proof.mean_of(weights, off, value)
        q, k, v = (moved_inside(ball, draw) for ball in (query, key, value))
        found = (q * k).sum(-1).softmax(-1)
        assert ((found.double() - weights).abs() <= off).all()
        assert used_up(read, (found[..., None] * v).sum(-2)) <= 1


# The window


@pytest.fixture
def scheme(monkeypatch):
    """A function that makes a model with lanes of its own."""

    def make(encoder, decoder, cross, n_layers: int = 1) -> Transformer:
        lanes = {"encoder": encoder, "decoder": decoder, "cross": cross}
        kind = type("Own", (schemes.Local,), {"lanes": lanes})
        monkeypatch.setitem(schemes.SCHEMES, "own", kind)
        return shaken(untrained("own", n_layers=n_layers, **SMALL))

    return make


def reads(model: Transformer, text: str, t: int) -> set[int]:
    """The places, counted from the end, with a gradient at the logits of step t."""
    batch, seen = make_batch(model.vocab, [text], [text[::-1]]), []
    hook = model.embedding.register_forward_hook(lambda *call: seen.append(call[2]))
    logits = model(batch.source, batch.decoder_input)[0, t]
    hook.remove()
    chosen = logits @ torch.randn(len(logits), generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad(chosen, seen)
    of_source, of_input = (g[0].abs().sum(-1).nonzero()[:, 0].tolist() for g in grads)
    return {len(text) - 1 - j for j in of_source} | {i - 1 for i in of_input if i}


@pytest.mark.parametrize("trial", range(25))
def test_gradients_are_exactly_zero_outside_the_window(scheme, trial):
    draw = random.Random(trial)
    back, ahead, steps = -draw.randint(0, 2), draw.randint(0, 2), -draw.randint(0, 2)
    first = draw.randint(-2, 1)
    cross = [("end", first, draw.randint(max(first, 0), 2))]
    model = scheme([("start", back, ahead)], [("start", steps, 0)], cross, draw.randint(1, 2))
    begin, end = window_of(model)
    text, t = "".join(draw.choices("abcd", k=30)), 14
    found = reads(model, text, t)
    assert min(found) == t + begin and found <= set(range(t + begin, t + end + 1))
    assert max(found) == t + end or cross[0][2] + (-back) == 0


def test_every_string_comes_once():
    found = torch.cat([*every(3, 4, rows=7)])
    assert len(found) == len(found.unique(dim=0)) == 81
    assert found.min() == Vocab.n_special and found.max() == Vocab.n_special + 2


# Certificates


def test_a_proven_model_withstands_attacks(narrow):
    found = prove_exact(narrow)
    assert found.proven and found.counterexample is None and found.windows == 4 * 2 + 2 * 16 + 64
    short = ["".join(t) for n in range(1, 6) for t in product("abcd", repeat=n)]
    draw = random.Random(0)
    long = ["".join(draw.choices("abcd", k=draw.randint(1, 100))) for _ in range(20)]
    long += ["a" * 300, "ab" * 50, "a" * 50 + "b" * 50, "a" * 99 + "d", "d" + "a" * 99]
    assert reverse(narrow, short + long) == [text[::-1] for text in short + long]
    rows = pad_rows([narrow.vocab.encode(text) for text in short + long])
    assert margins(narrow, rows).min() > found.margin - found.rounding


def test_float32_keeps_to_the_bound_in_long_strings_and_padded_batches(neighbours):
    window, draw = window_of(neighbours), random.Random(0)
    for _ in range(40):
        n = draw.choice((1, 2, 5, 100))
        text, beside = ("".join(draw.choices("abc", k=k)) for k in (n, draw.randint(1, 150)))
        t = draw.randint(0, n)
        logits, off = bounds_at(neighbours, *cut(text, t, window))
        assert ((logits_at(neighbours, text, t, beside) - logits).abs() <= off).all()


def test_one_number_can_undo_a_proof(narrow):
    broken = untrained("narrow")
    broken.load_state_dict(narrow.state_dict())
    with torch.no_grad():  # 'c' has more of what 'd' is told by
        c, d = (broken.embedding.weight[Vocab.n_special + i] for i in (2, 3))
        c.copy_(2 * d)
    found = prove_exact(broken)
    text = found.counterexample
    assert not found.proven and reverse(broken, text) != text[::-1]


def test_what_is_right_by_less_than_rounding_is_not_proven(narrow):
    nearly = untrained("narrow")
    nearly.load_state_dict(narrow.state_dict())
    with torch.no_grad():  # 'c' and 'd' are all but equal
        c, d = (nearly.embedding.weight[Vocab.n_special + i] for i in (2, 3))
        c.copy_(d + 1e-4 * (c - d))
    found = prove_exact(nearly)
    assert abs(found.margin) < found.rounding and not found.proven


def test_a_proof_changes_nothing_of_the_model(narrow):
    before, state = [p.clone() for p in narrow.parameters()], torch.get_rng_state()
    narrow.train()
    prove_exact(narrow)
    assert narrow.training and torch.equal(state, torch.get_rng_state())
    narrow.eval()
    assert all(map(torch.equal, before, narrow.parameters()))


# Refusals


@pytest.mark.parametrize(
    "refused, part",
    [
        ("sinusoidal", "the positions are 'sinusoidal'"),
        ("learned", "the positions are 'learned'"),
        ("rotary", "the positions are 'rotary'"),
        ("local", "cross attention reads every symbol"),
        ("end_alibi", "cross attention reads every symbol"),
        ("two_way", "decoder attention counts from 'first'"),
        (("start", (-1, 1), "end"), "not written yet"),
        (("start", (0, 0), "start"), "cross attention counts from"),
        (("end", (0, 0), "end"), "encoder attention counts from"),
    ],
)
def test_what_has_no_window_is_refused_with_the_reason(scheme, refused, part):
    if isinstance(refused, str):
        model = untrained(refused)
    else:
        encoder, decoder, cross = refused
        model = scheme([(encoder, 0, 0)], [("start", *decoder)], [(cross, 0, 0)])
    with pytest.raises(proof.InputValueError, match=part):
        prove_exact(model)


TAMPERED = {
    "carries a hook": lambda model: model.decoder.register_forward_hook(lambda *_: None),
    "_slots of the positions": lambda model: setattr(model.positions, "_slots", lambda *_: None),
    "float32": lambda model: model.double(),
}


@pytest.mark.parametrize("part", TAMPERED)
def test_a_model_that_was_tampered_with_is_refused(narrow, part):
    model = copy.deepcopy(narrow)
    TAMPERED[part](model)
    with pytest.raises(proof.InputValueError, match=part):
        prove_exact(model)


def test_what_computes_something_else_is_refused(narrow, monkeypatch):
    usual = nn.functional.layer_norm
    monkeypatch.setattr(nn.functional, "layer_norm", lambda *given: 2 * usual(*given))
    with pytest.raises(proof.InputValueError, match="something else than its layers say"):
        prove_exact(narrow)


def test_too_many_windows_are_refused_and_counted(narrow):
    with pytest.raises(proof.InputValueError, match="104 windows, and at most 103"):
        prove_exact(narrow, most=103)
    assert prove_exact(narrow, most=104).windows == 104
