"""The blocks and the whole against torch's own; what a Transformer may and may not see."""

import copy
import pickle
import subprocess
import sys
from dataclasses import replace

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

from revtrans.attention import causal_mask, padding_mask
from revtrans.model import DecoderLayer, EncoderLayer, Transformer, TransformerConfig
from revtrans.schemes import SCHEMES
from revtrans.training import cross_entropy

CONFIG = TransformerConfig(symbols="abcde", max_length=8, d_model=12, n_heads=3, d_ff=20)
MODEL = checks.tiny()
TEXTS = st.text("abcde", max_size=6)
ALL_POSITIONS = ["sinusoidal", "learned", *SCHEMES]


def tokens(n: int) -> torch.Tensor:
    return torch.randn(2, n, CONFIG.d_model, generator=checks.seeded(n))


@pytest.mark.parametrize("kind", ["none", "padding", "causal", "both", "random"])
def test_an_encoder_layer_equals_torchs(kind):
    ours = EncoderLayer(CONFIG)
    theirs = peer(ours, CONFIG)
    mask = make_mask(kind, 5, 5, checks.seeded())
    hidden = torch_mask(mask, 5, CONFIG.n_heads)
    assert_same_function(lambda x: ours(x, mask)[0], lambda x: theirs(x, hidden), [tokens(5)])
    assert_same_weight_gradients(ours, theirs)


@pytest.mark.parametrize("kind, n_target, n_source", MASKS)
def test_a_decoder_layer_equals_torchs(kind, n_target, n_source):
    ours = DecoderLayer(CONFIG)
    theirs = peer(ours, CONFIG)
    self_mask = causal_mask(n_target)
    mask = make_mask(kind, n_target, n_source, checks.seeded())
    hidden = torch_mask(mask, n_target, CONFIG.n_heads)
    assert_same_function(
        lambda x, memory: ours(x, memory, self_mask, mask)[0],
        lambda x, memory: theirs(x, memory, ~self_mask, hidden),
        [tokens(n_target), tokens(n_source)],
    )
    assert_same_weight_gradients(ours, theirs)


@pytest.fixture
def both_stacks():
    """Our model, torch's with the same blocks, a padded batch, and the masks as torch has them."""
    ours = Transformer(CONFIG)
    batch = checks.reversal_batch(ours.vocab, ["abcde", "ba"])
    hidden = {
        "src_key_padding_mask": ~batch.source_mask,
        "memory_key_padding_mask": ~batch.source_mask,
        "tgt_mask": ~causal_mask(batch.decoder_input.shape[1]),
    }
    return ours, peer(ours, CONFIG), batch, hidden


def test_the_stacks_equal_torchs(both_stacks):
    ours, theirs, batch, hidden = both_stacks
    mask, causal = padding_mask(batch.source), ~hidden["tgt_mask"]

    def forward(x, y):
        return ours.decoder(y, ours.encoder(x, mask)[0], causal, mask)[0]

    inputs = [tokens(5), tokens(6)]
    assert_same_function(forward, lambda x, y: theirs(x, y, **hidden), inputs)
    assert_same_weight_gradients(ours, theirs)


def test_the_logits_equal_torchs(both_stacks):
    ours, theirs, batch, hidden = both_stacks

    def their_logits():
        x, y = ours.embed(batch.source), ours.embed(batch.decoder_input)
        return theirs(x, y, **hidden) @ ours.embedding.weight.T

    logits, expected = ours(batch.source, batch.decoder_input), their_logits()
    real = batch.label_mask
    assert_close(logits[real], expected[real])
    gradients = [
        torch.autograd.grad(out[real].square().mean(), ours.embedding.weight)[0]
        for out in (logits, expected)
    ]
    assert_close(*gradients)


@given(TEXTS, st.integers(1, 2))
def test_padding_changes_no_real_logit(text, columns):
    checks.padding_is_ignored(MODEL, text, columns)


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


@given(st.permutations(["abc", "", "eeeee", "da"]))
def test_permuting_the_batch_permutes_the_logits(texts):
    order = sorted(range(4), key=texts.__getitem__)
    batch = checks.reversal_batch(MODEL.vocab, texts)
    logits = MODEL(batch.source, batch.decoder_input)
    assert_close(MODEL(batch.source[order], batch.decoder_input[order]), logits[order])


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
@pytest.mark.parametrize("texts", [["abc", ""], ["", ""]])
def test_an_empty_string_leaves_loss_and_gradients_finite(texts, positions):
    model = checks.tiny(positions=positions)
    batch = checks.reversal_batch(model.vocab, texts)
    loss = cross_entropy(model(batch.source, batch.decoder_input), batch.labels)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_every_layer_returns_its_weights():
    batch = checks.reversal_batch(MODEL.vocab, ["abcd", "a"])
    memory, encoder = MODEL.encode(batch.source)
    logits, pairs = MODEL.decode(batch.decoder_input, memory, padding_mask(batch.source))
    assert logits.shape == (2, 5, len(MODEL.vocab))
    assert [tuple(weights.shape) for weights in encoder] == [(2, 2, 4, 4)] * 2
    shapes = [(tuple(own.shape), tuple(cross.shape)) for own, cross in pairs]
    assert shapes == [((2, 2, 5, 5), (2, 2, 5, 4))] * 2
    assert (encoder[0][1, ..., 1:] == 0).all() and (pairs[0][1][1, ..., 1:] == 0).all()
    assert (pairs[0][0].triu(1) == 0).all()


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


def test_symbols_begin_at_three_tenths_of_unit_scale():
    model = checks.tiny(positions="none", d_model=64)
    ids = torch.arange(len(model.vocab))[None]
    assert model.embed(ids).square().mean().sqrt().item() == pytest.approx(0.3, abs=0.03)
    assert_close(model.embed(ids)[0], model.embedding.weight * 8)


def test_dropout_acts_on_embeddings_and_on_the_output_of_every_sublayer():
    config, x, causal = replace(CONFIG, dropout=0.99), tokens(5), causal_mask(5)
    model = Transformer(config)  # in training mode, so that next to nothing is left
    assert (model.embed(torch.full((2, 5), 3)) == 0).float().mean() > 0.9
    assert (model.encoder.layers[0](x)[0] == x).float().mean() > 0.9
    assert (model.decoder.layers[0](x, x, causal)[0] == x).float().mean() > 0.9


def test_dropout_acts_in_training_only():
    model = checks.tiny(dropout=0.5)
    batch = checks.reversal_batch(model.vocab, ["abc"])
    still, again = (model(batch.source, batch.decoder_input) for _ in range(2))
    model.train()
    noisy, other = (model(batch.source, batch.decoder_input) for _ in range(2))
    assert torch.equal(still, again)
    assert not torch.allclose(still, noisy) and not torch.allclose(noisy, other)


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
    config, memory_mask = (
        plain.model.TransformerConfig(d_model=12, n_heads=3),
        torch.ones(2, 1, 1, 7),
    )
    memory_mask = memory_mask.cumsum(-1) <= torch.tensor([7, 4])[:, None, None, None]
    x, memory = tokens(5), tokens(7)
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
