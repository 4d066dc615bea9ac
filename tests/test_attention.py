"""Attention: equal to torch's own, under every mask, precision and transformation."""

import checks
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import vmap
from torch_peers import assert_close

from revtrans.attention import causal_mask, padding_mask, scaled_dot_product_attention

SIZES = st.integers(1, 6)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=checks.seeded(seed))


def test_attention_equals_torchs_under_every_mask():
    checks.attention_is_torchs(checks.tiny())


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_precision_hides_exactly_and_stays_finite(dtype):
    """The scores fit into fp16, the products do not."""
    q, k, v = (random(2, 6, 64, seed=seed).to(dtype) for seed in range(3))
    q[0], k[:, 1:3] = 32, torch.tensor([[32.0], [28.0]])
    mask = causal_mask(6) & (torch.arange(6) != 3)
    mask[5] = False
    output, weights = scaled_dot_product_attention(q, k, v, mask)
    exact, _ = scaled_dot_product_attention(q.double(), k.double(), v.double(), mask)
    torch.testing.assert_close(output.double(), exact, rtol=0, atol=torch.finfo(dtype).eps * 32)
    assert output.dtype == weights.dtype == dtype
    assert not weights[:, ~mask].any() and not output[:, 5].any()


def test_vmap_over_attention_with_a_mask_of_each_item(plain):
    """No branch looks into the data; the annotations would, so they are not checked here."""
    attend, x = plain.attention.scaled_dot_product_attention, random(3, 5, 12)
    mask = padding_mask(torch.tensor([[3] * 5, [3, 3, 0, 0, 0], [0] * 5]))[:, 0] & causal_mask(5)
    for ours, expected in zip(vmap(attend)(x, x, x, mask), attend(x, x, x, mask)):
        assert_close(ours, expected)
