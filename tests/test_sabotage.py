"""Each sabotage of the series breaks one piece, and the check that guards the piece notices."""

import checks
import pytest
import torch
from matplotlib.axes import Axes
from torch import Tensor

from revtrans import attention, decoding, plotting
from revtrans import model as model_module
from revtrans.data import Batch, Vocab
from revtrans.positions import Sinusoidal


def wrap(monkeypatch, owner, name, broken):
    """Replace `owner.name` with `broken`, which gets the original as its first argument."""
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **options: broken(original, *args, **options))


def invert_the_mask(monkeypatch):
    def inverted(mask):
        return None if mask is None else ~mask

    def broken(original, query, key, value, mask=None, *rest):
        return original(query, key, value, inverted(mask), *rest)

    def broken_heads(original, layer, query, key, value, mask=None, *rest):
        return original(layer, query, key, value, inverted(mask), *rest)

    wrap(monkeypatch, attention, "scaled_dot_product_attention", broken)
    wrap(monkeypatch, attention.MultiHeadAttention, "forward", broken_heads)


def forget_the_scale(monkeypatch):
    def broken(original, query, *rest):
        return original(query * query.shape[-1] ** 0.5, *rest)

    wrap(monkeypatch, attention, "scaled_dot_product_attention", broken)


def softmax_over_the_queries(monkeypatch):
    wrap(monkeypatch, Tensor, "softmax", lambda original, logits, dim: original(logits, -2))


def mask_after_the_softmax(monkeypatch):
    wrap(monkeypatch, Tensor, "masked_fill", lambda original, x, mask, value: (
        original(x, mask, value) if value == 0 else x))  # fmt: skip


def forget_the_causal_mask(monkeypatch):
    wrap(monkeypatch, model_module, "causal_mask", lambda original, *a: original(*a) | True)


def forget_the_padding_mask(monkeypatch):
    wrap(monkeypatch, model_module, "padding_mask", lambda original, ids: original(ids) | True)


def split_heads_without_transposing(monkeypatch):
    def broken(original, x, n_heads):
        return x.reshape(len(x), n_heads, x.shape[1], -1)

    wrap(monkeypatch, attention, "split_heads", broken)


def forget_the_shift(monkeypatch):
    monkeypatch.setattr(Batch, "labels", property(lambda batch: batch.decoder_input))


def count_padding_in_the_loss(monkeypatch):
    def broken(original, *args, ignore_index, **options):
        return original(*args, **options)

    wrap(monkeypatch, torch.nn.functional, "cross_entropy", broken)


def embed_each_step_as_if_it_were_the_first(monkeypatch):
    def broken(original, model, ids, start=0):
        return original(model, ids)

    wrap(monkeypatch, model_module.Transformer, "embed", broken)


def forget_the_first_key(monkeypatch):
    def broken(original, state, attention, x, keys, *rest):
        return original(state, attention, x, torch.cat([keys[:, :, -1:], keys[:, :, 1:]], 2), *rest)

    wrap(monkeypatch, decoding.CachedState, "attend", broken)


def cache_keys_that_do_not_follow_their_beam(monkeypatch):
    def broken(original, state, rows):
        own = list(state.own)
        original(state, rows)
        state.own = own

    wrap(monkeypatch, decoding.CachedState, "select", broken)


def never_stop_at_eos(monkeypatch):
    class Endless(Vocab):
        eos = -1

    monkeypatch.setattr(decoding, "Vocab", Endless)


def forget_the_positions(monkeypatch):
    monkeypatch.setattr(Sinusoidal, "forward", lambda positions, x, start=0: x)


def flip_the_map(monkeypatch):
    def broken(original, weights):
        return original(weights[..., :-1, :].flip(-2))  # the last step writes eos

    wrap(monkeypatch, plotting, "antidiagonal_score", broken)


def draw_upside_down(monkeypatch):
    def broken(original, *args, origin, **options):
        return original(*args, origin="lower", **options)

    wrap(monkeypatch, Axes, "imshow", broken)


SABOTAGES = [
    (invert_the_mask, checks.attention_is_torchs),
    (forget_the_scale, checks.attention_is_torchs),
    (softmax_over_the_queries, checks.attention_is_torchs),
    (mask_after_the_softmax, checks.attention_is_torchs),
    (invert_the_mask, checks.heads_are_torchs),
    (split_heads_without_transposing, checks.heads_are_torchs),
    (invert_the_mask, checks.future_is_hidden),
    (forget_the_causal_mask, checks.future_is_hidden),
    (invert_the_mask, checks.padding_is_ignored),
    (forget_the_padding_mask, checks.padding_is_ignored),
    (forget_the_shift, checks.labels_are_one_ahead),
    (count_padding_in_the_loss, checks.loss_ignores_padding),
    (embed_each_step_as_if_it_were_the_first, checks.cache_changes_nothing),
    (forget_the_first_key, checks.cache_changes_nothing),
    (cache_keys_that_do_not_follow_their_beam, checks.beams_keep_their_past),
    (never_stop_at_eos, checks.decoding_stops),
    (forget_the_positions, checks.order_is_told),
    (flip_the_map, checks.best_head_reads_backwards),
    (draw_upside_down, checks.picture_is_upright),
]


@pytest.mark.parametrize(
    "sabotage, check", SABOTAGES, ids=[f"{s.__name__}-{c.__name__}" for s, c in SABOTAGES]
)
def test_the_check_notices(trained, monkeypatch, sabotage, check):
    check(trained)
    sabotage(monkeypatch)
    with pytest.raises(AssertionError):
        check(trained)
