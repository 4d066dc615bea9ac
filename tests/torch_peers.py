"""PyTorch's own modules with the weights of ours, and the comparison of the two."""

import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from revtrans.attention import MultiHeadAttention, causal_mask
from revtrans.model import DecoderLayer, EncoderLayer, Transformer, TransformerConfig

RENAMED = {
    "self_attention.": "self_attn.",
    "cross_attention.": "multihead_attn.",
    "feed_forward.up.": "linear1.",
    "feed_forward.down.": "linear2.",
    "output.": "out_proj.",
}


def torch_names(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Our tensors by torch's names; it stacks the projections of query, key and value."""
    found = {}
    for name, tensor in tensors:
        for ours, theirs in RENAMED.items():
            name = name.replace(ours, theirs)
        name = re.sub(r"(query|key|value)\.(weight|bias)$", r"in_proj_\2", name)
        found[name] = torch.cat([found[name], tensor]) if name in found else tensor
    return found


def peer(ours: nn.Module, config: TransformerConfig) -> nn.Module:
    """Torch's module that should compute the same as `ours`."""
    sizes = {"d_model": config.d_model, "nhead": config.n_heads, "dim_feedforward": config.d_ff}
    options = {"dropout": 0.0, "batch_first": True, "norm_first": True}
    if isinstance(ours, MultiHeadAttention):
        theirs = nn.MultiheadAttention(config.d_model, config.n_heads, batch_first=True)
    elif isinstance(ours, EncoderLayer):
        theirs = nn.TransformerEncoderLayer(**sizes, **options)
    elif isinstance(ours, DecoderLayer):
        theirs = nn.TransformerDecoderLayer(**sizes, **options)
    elif isinstance(ours, Transformer):
        # Its own encoder would warn that pre-norm rules out nested tensors: hand it one without.
        layer, norm = nn.TransformerEncoderLayer(**sizes, **options), nn.LayerNorm(config.d_model)
        encoder = nn.TransformerEncoder(layer, config.n_layers, norm, enable_nested_tensor=False)
        layers = {"num_decoder_layers": config.n_layers, "custom_encoder": encoder}
        theirs = nn.Transformer(**sizes, **options, **layers)
    theirs.load_state_dict(torch_names(_blocks(ours.state_dict().items())))
    return theirs


def _blocks(tensors: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Without the parts that nn.Transformer leaves to its user."""
    return [pair for pair in tensors if not re.match("embedding|unembedding|positions", pair[0])]


def torch_mask(mask: Tensor | None, n_query: int, n_heads: int) -> Tensor | None:
    """The mask for a batch of 2 as torch's heads want it: True = hidden, one for each head."""
    if mask is None:
        return None
    return ~mask.expand(2, n_heads, n_query, -1).flatten(0, 1)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def assert_same_function(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], inputs: list[Tensor]
) -> None:
    """Equal outputs, equal gradients of the inputs and, of modules' methods, of the weights."""
    outputs, gradients = [], []
    for function in (ours, theirs):
        leaves = [x.clone().requires_grad_() for x in inputs]
        outputs.append(function(*leaves))
        # the mean of squares: a gradient that differs from place to place, and is not large
        outputs[-1].square().mean().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for one, other in zip([outputs[0], *gradients[0]], [outputs[1], *gradients[1]]):
        assert_close(one, other)


def assert_same_weight_gradients(ours: nn.Module, theirs: nn.Module) -> None:
    expected = dict(theirs.named_parameters())
    found = torch_names((name, p.grad) for name, p in _blocks(ours.named_parameters()))
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert_close(gradient, expected[name].grad)


MASKS = [
    (kind, n_query, n_key)
    for n_query, n_key in [(5, 5), (3, 7), (7, 3), (1, 4)]
    for kind in ("none", "padding", "causal", "both", "random")
    if n_query == n_key or kind not in ("causal", "both")
]


def make_mask(kind: str, n_query: int, n_key: int, generator: torch.Generator) -> Tensor | None:
    """A mask for a batch of 2 in which no query is left without a key (torch gives NaN there).

    As our pieces take it: it fits "batch heads query key".
    """
    padding = (torch.arange(n_key) < torch.tensor([[n_key], [n_key - 2]]))[:, None, None]
    if kind == "none":
        return None
    if kind == "padding":
        return padding
    if kind == "causal":
        return causal_mask(n_query)
    if kind == "both":
        return causal_mask(n_query) & padding
    chosen = torch.rand(2, 1, n_query, n_key, generator=generator) < 0.5
    chosen[..., 0] = True
    return chosen
