"""What the suite claims about a model, each claim as one function that raises AssertionError.

The property tests run them on the library; test_sabotage.py shows that each notices its sabotage.
"""

import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from torch import Tensor
from torch_peers import MASKS, assert_close, assert_same_function, make_mask, peer, torch_mask

from revtrans import attention, decoding, plotting, training
from revtrans.attention import padding_mask
from revtrans.data import Batch, Vocab, make_batch
from revtrans.model import Transformer, TransformerConfig


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(seed: int = 0, **changes) -> Transformer:
    """An untrained model that reads up to 8 of the letters a to e, in eval mode."""
    sizes = {"d_model": 16, "n_heads": 2, "d_ff": 32, "n_layers": 2}
    config = TransformerConfig(**{"symbols": "abcde", "max_length": 8, **sizes, **changes})
    return Transformer(config, seed).eval()


def weights(model: Transformer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def reversal_batch(vocab: Vocab, texts: list[str]) -> Batch:
    return make_batch(vocab, texts, [text[::-1] for text in texts])


def full_pass(model: Transformer, source: Tensor, written: Tensor) -> Tensor:
    """The logits of all positions, padding included (a model may write it, too)."""
    return model.decode(written, model.encode(source)[0], padding_mask(source))[0]


def attention_is_torchs(model: Transformer) -> None:
    """Scaled dot-product attention equals torch's, gradients too, under every kind of mask."""
    d_head = model.config.d_model // model.config.n_heads
    for kind, n_query, n_key in MASKS:
        generator = seeded()
        mask = make_mask(kind, n_query, n_key, generator)
        lengths = (n_query, n_key, n_key)
        inputs = [torch.randn(2, 3, n, d_head, generator=generator) for n in lengths]
        assert_same_function(
            lambda q, k, v, mask=mask: attention.scaled_dot_product_attention(q, k, v, mask)[0],
            lambda q, k, v, mask=mask: F.scaled_dot_product_attention(q, k, v, mask),
            inputs,
        )


def heads_are_torchs(model: Transformer) -> None:
    """The model's first attention equals nn.MultiheadAttention with the same weights."""
    ours, config = model.encoder.layers[0].self_attention, model.config
    theirs = peer(ours, config)
    x = torch.randn(2, 5, config.d_model, generator=seeded())
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    expected = theirs(x, x, x, attn_mask=torch_mask(mask, 5, config.n_heads))[0]
    assert_close(ours(x, x, x, mask)[0], expected)


def padding_is_ignored(model: Transformer, text: str = "abc", columns: int = 2) -> None:
    """More padding, on either side, changes no logit of a real position."""
    batch = reversal_batch(model.vocab, [text])
    alone = model(batch.source, batch.decoder_input)
    padded = model(F.pad(batch.source, (0, columns)), F.pad(batch.decoder_input, (0, columns)))
    assert_close(padded[:, : alone.shape[1]], alone)


def future_is_hidden(model: Transformer, text: str = "abcd", seen: int = 2) -> None:
    """Another future of the decoder's input changes no earlier logit."""
    batch = reversal_batch(model.vocab, [text])
    changed = batch.decoder_input.clone()
    changed[:, seen:] = Vocab.n_special + (changed[:, seen:] + 1) % len(model.vocab.symbols)
    logits, other = model(batch.source, batch.decoder_input), model(batch.source, changed)
    assert_close(other[:, :seen], logits[:, :seen])


def order_is_told(model: Transformer) -> None:
    """Two orders of the same letters give different logits."""
    source = torch.tensor([model.vocab.encode("abcd"), model.vocab.encode("dbca")])
    first, second = model(source, torch.full((2, 1), Vocab.bos))
    assert (first - second).abs().max() > 1e-3


def labels_are_one_ahead(model: Transformer) -> None:
    """At each place the decoder has read what came before its label, and not the label."""
    batch = reversal_batch(model.vocab, ["abc", "", "e"])
    for read, label, mask in zip(batch.decoder_input, batch.labels, batch.label_mask):
        assert [Vocab.bos, *label[mask].tolist()] == [*read[mask].tolist(), Vocab.eos]


def loss_ignores_padding(model: Transformer) -> None:
    """The loss is the mean over real labels; logits at padding change nothing."""
    batch = reversal_batch(model.vocab, ["abcde", "a"])
    logits = torch.randn(*batch.labels.shape, len(model.vocab), generator=seeded())
    real = logits.log_softmax(-1)[batch.label_mask]
    expected = -real.gather(1, batch.labels[batch.label_mask][:, None]).mean()
    assert_close(training.cross_entropy(logits, batch.labels), expected)
    logits[~batch.label_mask] += torch.randn(len(model.vocab), generator=seeded(1))
    assert_close(training.cross_entropy(logits, batch.labels), expected)


def cache_changes_nothing(
    model: Transformer, source: Tensor | None = None, written: Tensor | None = None
) -> None:
    """Step by step with a cache, the logits are those of one pass over everything written."""
    if source is None:
        batch = reversal_batch(model.vocab, ["abcd", "e", "ba"])
        source, written = batch.source, batch.decoder_input
    cached = decoding.CachedState(model, source)
    with torch.no_grad():
        one_by_one = torch.stack([cached.step(ids) for ids in written.T], dim=1)
        assert_close(one_by_one, full_pass(model, source, written))


def beams_keep_their_past(model: Transformer) -> None:
    """After a selection of rows, the state with a cache goes on like the one without."""
    source, rows = reversal_batch(model.vocab, ["abcd", "e", "ba"]).source, torch.tensor([2, 2, 0])
    states = [kind(model, source) for kind in (decoding.CachedState, decoding.PlainState)]
    with torch.no_grad():
        for state in states:
            state.step(torch.full((3,), Vocab.bos))
            state.step(torch.tensor([3, 4, 5]))
            state.select(rows)
        assert_close(*(state.step(torch.tensor([6, 7, 3])) for state in states))


def decoding_stops(model: Transformer) -> None:
    """After eos there is only padding, and nobody waits longer than the longest answer."""
    source = reversal_batch(model.vocab, ["abc", "d"]).source
    for ids in (decoding.greedy(model, source), decoding.beam_search(model, source, beam=2)[0]):
        assert ids.shape == (2, 4)
        assert ids[0, 3] == Vocab.eos
        assert ids[1, 1:].tolist() == [Vocab.eos, Vocab.pad, Vocab.pad]


def best_head_reads_backwards(model: Transformer) -> None:
    """The best cross-attention head of a trained model lies on the anti-diagonal."""
    maps = plotting.attention_maps(model, "abcde")
    assert plotting.antidiagonal_score(maps.cross).max() > 0.5


def picture_is_upright(model: Transformer) -> None:
    """The first query is the top row and the first key the left column, as seen on screen."""
    ax = plotting.plot_attention(torch.eye(3)[:2], ["x", "y"], ["a", "b", "c"])
    corner = ax.transData.transform((0, 0))
    below, right = ax.transData.transform((0, 1)), ax.transData.transform((1, 0))
    plt.close(ax.figure)
    assert below[1] < corner[1] and right[0] > corner[0]
