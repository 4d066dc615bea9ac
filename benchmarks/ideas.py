"""What was tried to make a step of training, or decoding, take less time: each idea alone."""

from collections.abc import Callable
from contextlib import nullcontext
from unittest.mock import patch

import torch
from torch import Tensor, nn

from revtrans import decoding
from revtrans import packed as fast
from revtrans.attention import merge_heads
from revtrans.data import ReversalTask, Vocab
from revtrans.decoding import greedy, start
from revtrans.devices import evaluating
from revtrans.model import FeedForward, Transformer, TransformerConfig
from revtrans.training import fit

from .common import interleaved, ratio, spread
from .training import one_step


class ToHeads(torch.autograd.Function):
    """Query, key and value by one product, back in the grid; its gradient written by hand."""

    @staticmethod
    def forward(ctx, x: Tensor, packing: fast.Packing, n_heads: int, *parameters: Tensor):
        weight, bias = torch.cat(parameters[:3]), torch.cat(parameters[3:])
        ctx.save_for_backward(x, weight)
        ctx.packing = packing
        grid = packing.unpack(nn.functional.linear(x, weight, bias))
        return grid.unflatten(2, (3, n_heads, -1)).permute(2, 0, 3, 1, 4).unbind()

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        x, weight = ctx.saved_tensors
        parts = [ctx.packing.pack(merge_heads(gradient)) for gradient in gradients]
        joined = torch.cat(parts, dim=1)
        of_weights, of_biases = (joined.T @ x).chunk(3), joined.sum(0).chunk(3)
        return joined @ weight, None, None, *of_weights, *of_biases


def by_hand(x: Tensor, packing: fast.Packing, n_heads: int, layers: list) -> tuple[Tensor, ...]:
    return ToHeads.apply(
        x, packing, n_heads, *[p.weight for p in layers], *[p.bias for p in layers]
    )


def by_cat(x: Tensor, packing: fast.Packing, n_heads: int, layers: list) -> tuple[Tensor, ...]:
    weight, bias = (torch.cat([getattr(p, name) for p in layers]) for name in ("weight", "bias"))
    grid = packing.unpack(nn.functional.linear(x, weight, bias))
    return grid.unflatten(2, (3, n_heads, -1)).permute(2, 0, 3, 1, 4).unbind()


def fused(to_heads: Callable) -> Callable:
    """`attend_packed` with self-attention's three projections in one."""
    usual = fast.attend_packed

    def attend(attention, h, memory, mask, of_query, of_key):
        if h is not memory:
            return usual(attention, h, memory, mask, of_query, of_key)
        layers = [attention.query, attention.key, attention.value]
        parts = to_heads(h, of_query, attention.n_heads, layers)
        attended = fast.mean_of_values(attention, *parts, mask)
        return attention.output(of_query.pack(merge_heads(attended)))

    return attend


_unembed = Transformer.unembed


def unembed_the_grid(model: Transformer, x: Tensor) -> Tensor:
    """Logits for as many rows as the grid has: about twice the real symbols."""
    return _unembed(model, torch.cat([x, torch.zeros_like(x)]))[: len(x)]


def with_bias(attention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The mask as numbers to add, kept with it."""
    if not hasattr(mask, "bias"):
        mask.bias = fast.hiding(mask, query)
    return nn.functional.scaled_dot_product_attention(query, key, value, mask.bias)


def relu_in_place(layer: FeedForward, x: Tensor) -> Tensor:
    return layer.down(layer.up(x).relu_())


# What takes which place, and with what: one change for each idea.
TRAINING = {
    "projections fused, by torch.cat": (fast, "attend_packed", fused(by_cat)),
    "projections fused, gradient by hand": (fast, "attend_packed", fused(by_hand)),
    "logits of padding, too": (Transformer, "unembed", unembed_the_grid),
    "attention that returns its weights": (
        fast,
        "mean_of_values",
        lambda attention, *given: attention.attend(*given)[0],
    ),
    "masks as a bias, made once a batch": (fast, "mean_of_values", with_bias),
    "ReLU in place": (FeedForward, "forward", relu_in_place),
}


def inside(change: tuple | None, run: Callable[[], object]) -> Callable[[], object]:
    """`run` with the change in its place, where the library does not look for what is replaced."""

    def timed() -> object:
        unseen = patch.dict(fast.USED, clear=True)
        with unseen, patch.object(*change) if change else nullcontext():
            return run()

    return timed


def without_inference_mode(state: fast.FastState, ids: Tensor) -> Tensor:
    x = state.model.embed(ids[:, None], state.length)[:, 0]
    state.length += 1
    return state.logits(x)


DECODING = {
    "without inference_mode": (fast.FastState, "step", without_inference_mode),
    "nothing laid out: notebook 06's cache": (decoding, "FastState", decoding.CachedState),
    "nothing kept: all computed again": (decoding, "FastState", decoding.PlainState),
}


def greedy_that_sheds(model: Transformer, source: Tensor) -> None:
    """Greedy decoding, in which strings leave the batch once they have ended."""
    with evaluating(model):
        state, ids = start(model, source, True), source.new_full((len(source),), Vocab.bos)
        for _ in range(model.config.max_length + 1):
            ids = state.step(ids).argmax(-1)
            going_on = (ids != Vocab.eos).nonzero()[:, 0]
            if not len(going_on):
                break
            if len(going_on) < len(ids):
                state.select(going_on)
                ids = ids[going_on]


def rows_of(what: str, times: dict[str, list[float]]) -> list[dict]:
    present = times["as it is"]
    return [
        {
            "what": what,
            "idea": name,
            "ms": spread([1000 * second for second in found]),
            "over as it is": ratio(found, present),
        }
        for name, found in times.items()
    ]


def ideas(rounds: int = 30, steps: int = 325) -> list[dict]:
    """Each idea against what is there, interleaved: training, decoding, strings that end early."""
    task, generator = ReversalTask(), torch.Generator().manual_seed(0)
    drawn = [task.sample(32, generator) for _ in range(2)]
    runs = {
        name: inside(change, one_step(Transformer(TransformerConfig()), drawn))
        for name, change in {"as it is": None, **TRAINING}.items()
    }
    rows = rows_of("training step", interleaved(runs, rounds))
    model = Transformer(TransformerConfig(max_length=64))
    source = ReversalTask(min_length=64, max_length=64).sample(64, generator).source
    runs = {
        name: inside(change, lambda: greedy(model, source, 64))
        for name, change in {"as it is": None, **DECODING}.items()
    }
    rows += rows_of("decoding 64 strings of 64", interleaved(runs, max(rounds // 3, 1)))
    model = Transformer(TransformerConfig())
    fit(model, task, steps=steps, progress=False)
    source = task.sample(256, generator).source
    runs = {
        "as it is": lambda: greedy(model, source),
        "ended strings leave the batch": lambda: greedy_that_sheds(model, source),
    }
    return rows + rows_of("decoding 256 strings of 1 to 16", interleaved(runs, rounds))
