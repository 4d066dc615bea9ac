"""The LSTM encoder-decoder: the loop, padding, and the interface that all models share."""

import checks
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch_peers import assert_close

from revtrans.data import ReversalTask, Vocab, make_batch
from revtrans.decoding import beam_search, greedy, reverse
from revtrans.recurrent import Recurrent, RecurrentConfig
from revtrans.training import fit

MODELS = [
    Recurrent(RecurrentConfig("abcde", 8, d_model=16, attention=attention)).eval()
    for attention in (True, False)
]
TEXTS = st.lists(st.text("abcde", max_size=6), min_size=1, max_size=4)
models = pytest.mark.parametrize("model", MODELS, ids=["attention", "plain"])


@models
@given(TEXTS)
def test_a_string_has_the_same_logits_alone_and_in_a_batch(model, texts):
    together = checks.reversal_batch(model.vocab, texts)
    for text, row in zip(texts, model(together.source, together.decoder_input)):
        alone = checks.reversal_batch(model.vocab, [text])
        expected = model(alone.source, alone.decoder_input)[0]
        assert_close(row[: len(text) + 1], expected)


@models
@given(TEXTS)
def test_step_by_step_is_the_fused_pass(model, texts):
    batch = checks.reversal_batch(model.vocab, texts)
    state = model.start(batch.source)
    stepwise = torch.stack([state.step(ids) for ids in batch.decoder_input.T], dim=1)
    assert_close(stepwise, model(batch.source, batch.decoder_input))


@models
def test_selected_rows_keep_their_past(model):
    source, rows = checks.reversal_batch(model.vocab, ["abcd", "e", "ba"]).source, [2, 2, 0]
    chosen, alone = model.start(source), model.start(source[rows])
    first = torch.tensor([3, 4, 5])
    chosen.step(first)
    alone.step(first[rows])
    chosen.select(torch.tensor(rows))
    assert_close(chosen.step(first), alone.step(first))


@models
def test_the_encoder_is_a_loop_of_cells_over_the_real_symbols(model):
    source = checks.reversal_batch(model.vocab, ["abc", "e", ""]).source
    _, _, (h, c) = model.encode(source)
    cell = torch.nn.LSTMCell(16, 16)
    weights = model.encoder.state_dict()
    cell.load_state_dict({name.removesuffix("_l0"): w for name, w in weights.items()})
    for row in range(3):
        state = (torch.zeros(1, 16), torch.zeros(1, 16))
        for i in source[row][source[row] != Vocab.pad]:
            state = cell(model.embed(i.view(1, 1))[0], state)
        assert_close(torch.stack([h[0, row], c[0, row]]), torch.cat(state))


@models
def test_the_decoder_is_torchs_lstm_attention_and_tanh_of_scaled_vectors(model):
    batch = checks.reversal_batch(model.vocab, ["abc", "ed", "e"])
    memory, real, state = model.encode(batch.source)
    vectors = model.embedding.weight
    h, _ = model.decoder(4.0 * vectors[batch.decoder_input], state)  # √16
    if model.config.attention:
        attended = F.scaled_dot_product_attention(h, memory, memory, real[:, None])
        h = torch.tanh(torch.cat([attended, h], dim=-1) @ model.combine.weight.T)
    assert_close(model(batch.source, batch.decoder_input), h @ vectors.T)


def test_vectors_have_about_the_size_that_the_lstm_expects():
    vectors = Recurrent(RecurrentConfig(d_model=64)).embed(torch.arange(29)[None])
    assert 0.9 < vectors.std() < 1.1


def test_attention_sees_no_padding_and_sums_to_one():
    model = MODELS[0]
    batch = checks.reversal_batch(model.vocab, ["abc", "e", ""])
    memory, real, state = model.encode(batch.source)
    weights = model.decode(batch.decoder_input, memory, real, state)[1]
    assert (weights.masked_select(~real[:, None]) == 0).all()
    assert_close(weights[:2].sum(-1), torch.ones(2, 4))
    assert (weights[2] == 0).all()


@models
def test_greedy_and_beam_search_run_on_it(model):
    source = make_batch(model.vocab, ["abc", "e"], ["", ""]).source
    with torch.no_grad():
        assert torch.equal(greedy(model, source), beam_search(model, source, 1)[0])
    assert reverse(model, ["", "abc"])[0] == ""


def test_it_learns_with_the_same_fit():
    task = ReversalTask("abcde", max_length=3)
    model = Recurrent(RecurrentConfig("abcde", 3, d_model=32))
    recipe = {"steps": 300, "lr": 0.01, "warmup": 0.1, "weight_decay": 0.01, "eval_every": 300}
    history = fit(model, task, progress=False, **recipe)
    assert history.loss[0] > 1.5 and sum(history.loss[-20:]) / 20 < 0.3


@pytest.mark.parametrize("field, value", [("max_length", 0), ("d_model", -1), ("d_model", 2.5)])
def test_a_size_out_of_range_is_named(plain, field, value):
    with pytest.raises(ValueError, match=rf"{field} must be a whole number .*{value}"):
        plain.recurrent.RecurrentConfig(**{field: value})
