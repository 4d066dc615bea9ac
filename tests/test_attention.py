"""Attention against torch's own, masks, heads."""

import checks
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch_peers import (
    MASKS,
    assert_close,
    assert_same_function,
    assert_same_weight_gradients,
    make_mask,
    peer,
    torch_mask,
)

from revtrans.attention import (
    MultiHeadAttention,
    causal_mask,
    merge_heads,
    padding_mask,
    scaled_dot_product_attention,
    split_heads,
)
from revtrans.model import TransformerConfig

CONFIG = TransformerConfig(d_model=12, n_heads=3)
SIZES = st.integers(1, 6)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=checks.seeded(seed))


def test_attention_equals_torchs_under_every_mask():
    checks.attention_is_torchs(checks.tiny())


@pytest.mark.parametrize("kind, n_query, n_key", MASKS)
def test_heads_equal_torchs_with_the_mask_inverted(kind, n_query, n_key):
    ours = MultiHeadAttention(CONFIG.d_model, CONFIG.n_heads)
    theirs = peer(ours, CONFIG)
    mask = make_mask(kind, n_query, n_key, checks.seeded())
    hidden = torch_mask(mask, n_query, CONFIG.n_heads)
    inputs = [random(2, n, CONFIG.d_model, seed=n) for n in (n_query, n_key)]

    def both(parts):
        """The output and each head's weights, as one tensor."""
        return torch.cat([part.flatten() for part in parts])

    options = {"attn_mask": hidden, "average_attn_weights": False}
    assert_same_function(
        lambda query, memory: both(ours(query, memory, memory, mask)),
        lambda query, memory: both(theirs(query, memory, memory, **options)),
        inputs,
    )
    assert_same_weight_gradients(ours, theirs)


def test_self_attention_equals_torchs():
    checks.heads_are_torchs(checks.tiny())


def test_a_bias_is_added_to_the_logits():
    q, k, v, bias = random(2, 3, 4), random(2, 5, 4), random(2, 5, 4), random(2, 3, 5)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    assert_close(scaled_dot_product_attention(q, k, v, bias=bias)[0], expected)


@given(SIZES, SIZES, st.integers(0, 1000))
def test_weights_are_shares_of_the_visible_keys_and_nothing_gives_zeros(n_query, n_key, seed):
    mask = torch.rand(n_query, n_key, generator=checks.seeded(seed)) < 0.4
    inputs = [random(n, 4, seed=seed + n).requires_grad_() for n in (n_query, n_key, n_key)]
    output, weights = scaled_dot_product_attention(*inputs, mask)
    assert (weights[~mask] == 0).all()
    assert_close(weights.sum(-1), mask.any(-1).float())
    assert (output[~mask.any(-1)] == 0).all()
    output.square().sum().backward()
    assert all(x.grad.isfinite().all() for x in inputs)


def test_a_query_that_sees_nothing_leaves_heads_finite():
    attention = MultiHeadAttention(CONFIG.d_model, CONFIG.n_heads)
    x = random(2, 4, CONFIG.d_model).requires_grad_()
    mask = torch.tensor([True, False])[:, None, None]
    output, weights = attention(x, x, x, mask)
    assert (weights[1] == 0).all()
    assert_close(output[1], attention.output.bias.expand_as(output[1]))
    output.square().sum().backward()
    assert all(t.grad.isfinite().all() for t in (x, *attention.parameters()))


@pytest.mark.parametrize("scale", [1e4, 1e18])
def test_huge_logits_do_not_overflow(scale):
    q, k, v = random(3, 4) * scale, random(5, 4) * scale, random(5, 4)
    output, weights = scaled_dot_product_attention(q, k, v, causal_mask(3, 5))
    assert output.isfinite().all()
    assert_close(weights.sum(-1), torch.ones(3))


def test_weights_are_returned_as_they_were_before_dropout():
    q, k, v = random(2, 3, 4), random(2, 5, 4, seed=1), random(2, 5, 4, seed=2)
    plain, weights = scaled_dot_product_attention(q, k, v)
    dropped, same_weights = scaled_dot_product_attention(q, k, v, dropout=0.5)
    assert torch.equal(weights, same_weights)
    assert not torch.allclose(plain, dropped)


def test_dropout_acts_in_training_only():
    attention, x = MultiHeadAttention(12, 3, dropout=0.5), random(1, 5, 12)
    noisy, weights = attention(x, x, x)
    still, same_weights = attention.eval()(x, x, x)
    assert torch.equal(weights, same_weights) and not torch.allclose(noisy, still)
    assert torch.equal(still, attention(x, x, x)[0])


@given(SIZES, st.integers(0, 5))
def test_the_causal_mask_ends_with_the_last_query_seeing_all(n_query, more):
    mask = causal_mask(n_query, n_query + more)
    expected = [[j <= i + more for j in range(n_query + more)] for i in range(n_query)]
    assert mask.tolist() == expected


def test_the_padding_mask_shows_real_symbols_to_every_query():
    assert padding_mask(torch.tensor([[3, 4, 0], [0, 0, 0]])).int().tolist() == [
        [[1, 1, 0]],
        [[0, 0, 0]],
    ]


@given(st.integers(1, 3), SIZES, st.integers(1, 4), st.integers(1, 4))
def test_each_head_is_a_slice_of_every_position(batch, length, heads, d_head):
    x = random(batch, length, heads * d_head)
    parts = split_heads(x, heads)
    for head in range(heads):
        assert torch.equal(parts[:, head], x[..., head * d_head : (head + 1) * d_head])
    assert torch.equal(merge_heads(parts), x)


@given(SIZES, SIZES, st.randoms(use_true_random=False))
def test_attention_alone_is_blind_to_the_order_of_the_keys(n_query, n_key, shuffler):
    q, k, v = random(n_query, 4), random(n_key, 4, seed=1), random(n_key, 4, seed=2)
    order = shuffler.sample(range(n_key), n_key)
    expected = scaled_dot_product_attention(q, k, v)[0]
    assert_close(scaled_dot_product_attention(q, k[order], v[order])[0], expected)
