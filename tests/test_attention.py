"""Attention and heads: equal to torch's own, under every mask, precision and transformation."""

import checks
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call, grad, vmap
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
    masked_softmax,
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
    inputs = [random(2, n, CONFIG.d_model, seed=i) for i, n in enumerate((n_query, n_key, n_key))]

    def both(parts):
        """The output and each head's weights, as one tensor."""
        return torch.cat([part.flatten() for part in parts])

    options = {"attn_mask": hidden, "average_attn_weights": False}
    assert_same_function(
        lambda query, key, value: both(ours(query, key, value, mask)),
        lambda query, key, value: both(theirs(query, key, value, **options)),
        inputs,
    )
    assert_same_weight_gradients(ours, theirs)


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
    output, weights = attention(x, x, x, torch.tensor([True, False])[:, None, None, None])
    assert (weights[1] == 0).all()
    assert_close(output[1], attention.output.bias.expand_as(output[1]))
    output.square().sum().backward()
    assert all(t.grad.isfinite().all() for t in (x, *attention.parameters()))


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


@pytest.mark.parametrize("score", [torch.inf, torch.nan])
def test_a_filled_mask_hides_any_score(score):
    scores = torch.tensor([[-6e4, score]], dtype=torch.float16)
    assert masked_softmax(scores, torch.tensor([True, False])).tolist() == [[1, 0]]


@given(SIZES)
def test_the_causal_mask_shows_what_was_there_before(length):
    assert causal_mask(length).tolist() == [[j <= i for j in range(length)] for i in range(length)]


def test_the_padding_mask_shows_real_symbols_to_every_head_and_query():
    mask = padding_mask(torch.tensor([[1, 3, 2, 0], [0, 0, 0, 0]]))
    assert mask.int().tolist() == [[[[1, 1, 1, 0]]], [[[0, 0, 0, 0]]]]


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


# No branch looks into the data, so that all that transforms a program can transform this one.


@pytest.fixture
def case(plain):
    """Heads without the checks of their annotations, three sequences, and a mask of each."""
    heads, x = plain.attention.MultiHeadAttention(12, 3).eval(), random(3, 5, 12)
    mask = padding_mask(torch.tensor([[3] * 5, [3, 3, 0, 0, 0], [0] * 5])) & causal_mask(5)
    return heads, x, mask


def test_vmap_over_attention_with_a_mask_of_each_item(case):
    _, x, mask = case
    found = vmap(scaled_dot_product_attention)(x, x, x, mask[:, 0])
    for ours, expected in zip(found, scaled_dot_product_attention(x, x, x, mask[:, 0])):
        assert_close(ours, expected)


def test_the_gradients_of_each_sample(case):
    heads, x, mask = case
    parameters = dict(heads.named_parameters())

    def loss(parameters, x, mask):
        x = x[None]
        return functional_call(heads, parameters, (x, x, x, mask[None]))[0].square().sum()

    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, mask)
    for i in range(len(x)):
        heads.zero_grad()
        loss(parameters, x[i], mask[i]).backward()
        for name, parameter in parameters.items():
            assert_close(found[name][i], parameter.grad)


def test_export_and_compile_as_one_graph(case):
    heads, x, mask = case
    inputs = (x, x, x, mask)
    exported = torch.export.export(heads, inputs).module()
    compiled = torch.compile(heads, fullgraph=True, backend="aot_eager")
    for transformed in (exported, compiled):
        for ours, expected in zip(transformed(*inputs), heads(*inputs)):
            assert_close(ours, expected)


def test_shapes_alone_on_the_meta_device():
    with torch.device("meta"):
        heads, x = MultiHeadAttention(12, 3), torch.empty(2, 5, 12)
    mask = causal_mask(5, "meta") & padding_mask(torch.ones(2, 5, device="meta").long())
    output, weights = heads(x, x, x, mask)
    assert (output.shape, weights.shape) == ((2, 5, 12), (2, 3, 5, 5))
    assert causal_mask(5, "meta").is_meta and output.is_meta and weights.is_meta
