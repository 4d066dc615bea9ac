"""The blocks and the whole against torch's own; what a Transformer may and may not see."""

import copy
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial

import checks
import pytest
import torch
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

from revtrans.attention import MultiHeadAttention, causal_mask, padding_mask
from revtrans.model import DecoderLayer, EncoderLayer, Transformer, TransformerConfig
from revtrans.schemes import SCHEMES
from revtrans.training import cross_entropy

CONFIG = TransformerConfig(symbols="abcde", max_length=8, d_model=12, n_heads=3, d_ff=20)
MODEL = checks.tiny()
TEXTS = st.text("abcde", max_size=6)
ALL_POSITIONS = ["sinusoidal", "learned", *SCHEMES]


def tokens(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, n, CONFIG.d_model, generator=checks.seeded(n + seed))


def flat(parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The output and each head's weights, as one tensor."""
    return torch.cat([part.flatten() for part in parts])


BLOCKS = {  # ours, and how ours and torch's are asked: torch's masks say what is hidden
    "heads": (
        lambda: MultiHeadAttention(CONFIG.d_model, CONFIG.n_heads),
        lambda ours, mask, q, k, v: flat(ours(q, k, v, mask)),
        lambda its, mask, q, k, v: flat(its(q, k, v, attn_mask=mask, average_attn_weights=False)),
    ),
    "encoder": (
        lambda: EncoderLayer(CONFIG),
        lambda ours, mask, x, *_: ours(x, mask)[0],
        lambda its, mask, x, *_: its(x, mask),
    ),
    "decoder": (
        lambda: DecoderLayer(CONFIG),
        lambda ours, mask, x, memory, _: ours(x, memory, causal_mask(x.shape[1]), mask)[0],
        lambda its, mask, x, memory, _: its(x, memory, ~causal_mask(x.shape[1]), mask),
    ),
}
CASES = [(block, *case) for block in BLOCKS for case in MASKS]


@pytest.mark.parametrize(
    "block, kind, n_query, n_key", [c for c in CASES if c[0] != "encoder" or c[2] == c[3]]
)
def test_a_block_equals_torchs_under_every_mask(block, kind, n_query, n_key):
    make, ask_ours, ask_theirs = BLOCKS[block]
    ours = make()
    theirs, mask = peer(ours, CONFIG), make_mask(kind, n_query, n_key, checks.seeded())
    assert_same_function(
        partial(ask_ours, ours, mask),
        partial(ask_theirs, theirs, torch_mask(mask, n_query, CONFIG.n_heads)),
        [tokens(n_query), tokens(n_key, 1), tokens(n_key, 2)],
    )
    assert_same_weight_gradients(ours, theirs)


def test_the_model_equals_torchs():
    ours = Transformer(CONFIG)
    theirs, batch = peer(ours, CONFIG), checks.reversal_batch(ours.vocab, ["abcde", "ba"])
    logits = ours(batch.source, batch.decoder_input)
    expected = theirs(
        *(ours.embed(batch.source), ours.embed(batch.decoder_input)),
        src_key_padding_mask=~batch.source_mask,
        memory_key_padding_mask=~batch.source_mask,
        tgt_mask=~causal_mask(batch.decoder_input.shape[1]),
    )
    found, gradients = (logits, expected @ ours.embedding.weight.T), []
    for out in found:
        ours.embedding.zero_grad()
        out[batch.label_mask].square().mean().backward()
        gradients.append(ours.embedding.weight.grad)
    assert_close(*(out[batch.label_mask] for out in found))
    assert_close(*gradients)
    assert_same_weight_gradients(ours, theirs)


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_a_string_has_the_same_logits_alone_and_in_a_batch(texts):
    together = checks.reversal_batch(MODEL.vocab, texts)
    logits = MODEL(together.source, together.decoder_input)
    for text, row in zip(texts, logits):
        alone = checks.reversal_batch(MODEL.vocab, [text])
        assert_close(row[: len(text) + 1], MODEL(alone.source, alone.decoder_input)[0])


@given(st.text("abcde", min_size=2, max_size=6), st.data())
def test_the_future_changes_no_earlier_logit(text, data):
    checks.future_is_hidden(MODEL, text, data.draw(st.integers(1, len(text))))


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
@pytest.mark.parametrize("texts", [["abc", ""], ["", ""]])
def test_an_empty_string_leaves_loss_and_gradients_finite(texts, positions):
    model = checks.tiny(positions=positions)
    batch = checks.reversal_batch(model.vocab, texts)
    loss = cross_entropy(model(batch.source, batch.decoder_input), batch.labels)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_tied_model_has_one_matrix_and_an_untied_one_two():
    tied, untied = checks.tiny(tied=True), checks.tiny(tied=False)
    names = set(dict(untied.named_parameters())) - set(dict(tied.named_parameters()))
    assert names == {"unembedding.weight"}
    assert untied.unembedding.weight.shape == tied.embedding.weight.shape
    batch = checks.reversal_batch(untied.vocab, ["abc"])
    memory, _ = untied.encode(batch.source)
    hidden = untied.embed(batch.decoder_input), memory, causal_mask(4), padding_mask(batch.source)
    expected = untied.unembedding(untied.decoder(*hidden)[0])
    assert_close(untied(batch.source, batch.decoder_input), expected)


def test_symbols_grow_by_root_d():
    for d_model, root in ((16, 4), (36, 6)):
        model = checks.tiny(positions="none", d_model=d_model)
        ids = torch.arange(len(model.vocab))[None]
        assert_close(model.embed(ids)[0], model.embedding.weight * root)


def test_dropout_acts_in_training_on_embeddings_and_on_the_output_of_every_sublayer():
    model, x = Transformer(replace(CONFIG, dropout=0.99)), tokens(5)
    for training in (True, False):
        model.train(training)
        embedded, read = model.embed(torch.full((2, 5), 3)), model.encoder.layers[0](x)[0]
        written = model.decoder.layers[0](x, x, causal_mask(5))[0]
        for found, dropped in ((embedded, 0), (read, x), (written, x)):
            share = (found == dropped).float().mean()
            assert share > 0.9 if training else share < 0.1


def test_the_seed_sets_the_weights_and_leaves_the_global_state():
    state = torch.get_rng_state()
    first = checks.weights(checks.tiny(0))
    torch.rand(1)
    same, other = (checks.weights(checks.tiny(seed)) for seed in (0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    torch.set_rng_state(state)
    checks.tiny(2)
    assert torch.equal(torch.get_rng_state(), state)


def test_layers_start_different():
    for stack in (MODEL.encoder, MODEL.decoder):
        one, other = (dict(layer.named_parameters()) for layer in stack.layers)
        assert not any(torch.equal(p, other[name]) for name, p in one.items() if p.dim() > 1)


# What PyTorch does to modules: it works as long as no line looks into the data.


@pytest.fixture
def layers(plain):
    """Both kinds of layer, each with its inputs and masks for a batch of 2."""
    config, x, memory = plain.model.TransformerConfig(d_model=12, n_heads=3), tokens(5), tokens(7)
    memory_mask = torch.arange(7) < torch.tensor([7, 4])[:, None, None, None]
    return [
        (plain.model.EncoderLayer(config), (memory, memory_mask)),
        (plain.model.DecoderLayer(config), (x, memory, causal_mask(5), memory_mask)),
    ]


def test_layers_can_be_exported_and_compiled_whole(layers):
    for layer, inputs in layers:
        expected = layer(*inputs)[0]
        assert_close(torch.export.export(layer, inputs).module()(*inputs)[0], expected)
        torch.compiler.reset()
        assert_close(torch.compile(layer, fullgraph=True, backend="eager")(*inputs)[0], expected)


def test_layers_can_be_mapped_over_inputs_and_masks(layers):
    for layer, inputs in layers:
        rows = [part if part.dim() == 2 else part.unsqueeze(1) for part in inputs]
        places = tuple(None if part.dim() == 2 else 0 for part in inputs)
        mapped = torch.vmap(lambda *row, layer=layer: layer(*row)[0], places)(*rows)
        assert_close(mapped.squeeze(1), layer(*inputs)[0])


def test_gradients_of_each_sample(plain):
    model = plain.model.Transformer(plain.model.TransformerConfig("abcde", 8, 12, 3, 20))
    batch = checks.reversal_batch(MODEL.vocab, ["abcde", "ba", ""])

    def loss(parameters, source, target):
        inputs = source[None], target[None, :-1]
        logits = torch.func.functional_call(model, parameters, inputs)
        return plain.training.cross_entropy(logits, target[None, 1:])

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    each = torch.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, batch.source, batch.target)
    for i, (source, target) in enumerate(zip(batch.source, batch.target)):
        alone = torch.func.grad(loss)(parameters, source, target)
        for name, gradient in alone.items():
            assert_close(each[name][i], gradient)


@pytest.mark.parametrize("positions", ALL_POSITIONS)
def test_a_model_from_the_meta_device_a_copy_and_a_pickle_are_the_model(positions):
    model = checks.tiny(positions=positions)
    batch = checks.reversal_batch(model.vocab, ["abcde", "ba", ""])
    expected = model(batch.source, batch.decoder_input)
    with torch.device("meta"):
        empty = Transformer(model.config).eval()
    shapes = empty(batch.source.to("meta"), batch.decoder_input.to("meta"))
    assert shapes.is_meta and shapes.shape == expected.shape
    empty.to_empty(device="cpu").load_state_dict(model.state_dict(), strict=True)
    for other in (empty, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(batch.source, batch.decoder_input), expected)
        for block in other.modules():  # a copy attends with the copy's scheme
            attend = getattr(block, "attend", None)
            assert not hasattr(attend, "func") or attend.func.__self__ is other.positions


def test_a_model_loads_whatever_was_imported_before(tmp_path):
    batch = checks.reversal_batch(MODEL.vocab, ["abcde", "ba"])
    inputs = batch.source, batch.decoder_input
    models = [checks.tiny(positions=name) for name in ALL_POSITIONS]
    with torch.no_grad():
        expected = [model(*inputs) for model in models]
    (tmp_path / "models").write_bytes(pickle.dumps((models, inputs, expected)))
    code = """
import pickle, sys, torch
from revtrans.model import Transformer, TransformerConfig
Transformer(TransformerConfig())
assert "revtrans.schemes" not in sys.modules
models, inputs, expected = pickle.load(open("models", "rb"))
for model, logits in zip(models, expected):
    torch.testing.assert_close(model(*inputs), logits)
    Transformer(model.config).load_state_dict(model.state_dict())
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
