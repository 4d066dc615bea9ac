"""The LSTM encoder-decoder: the loop, padding, and the interface that all models share."""

import checks
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch_peers import assert_close

from revtrans.recurrent import Recurrent, RecurrentConfig

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
def test_selected_rows_keep_their_past(model):
    source, rows = checks.reversal_batch(model.vocab, ["abcd", "e", "ba"]).source, [2, 2, 0]
    chosen, alone = model.start(source), model.start(source[rows])
    first = torch.tensor([3, 4, 5])
    chosen.step(first)
    alone.step(first[rows])
    chosen.select(torch.tensor(rows))
    assert_close(chosen.step(first), alone.step(first))


def test_it_is_torchs_lstm():
    """And attention, and tanh; vectors begin as large as an LSTM expects, and are scaled by √d."""
    for model in MODELS:
        batch = checks.reversal_batch(model.vocab, ["abc", "ed", ""])
        memory, real, state = model.encode(batch.source)
        vectors = model.embedding.weight
        assert 0.8 < 4 * vectors.std() < 1.2
        h, _ = model.decoder(4 * vectors[batch.decoder_input], state)
        if model.config.attention:
            attended = F.scaled_dot_product_attention(h, memory, memory, real[:, None])
            h = torch.tanh(torch.cat([attended, h], dim=-1) @ model.combine.weight.T)
        assert_close(model(batch.source, batch.decoder_input)[:2], (h @ vectors.T)[:2])
        assert not state[0][0, 2].any() and not state[1][0, 2].any(), "nothing was read"


def test_attention_sees_no_padding_and_sums_to_one():
    model = MODELS[0]
    batch = checks.reversal_batch(model.vocab, ["abc", "e", ""])
    memory, real, state = model.encode(batch.source)
    weights = model.decode(batch.decoder_input, memory, real, state)[1]
    assert (weights.masked_select(~real[:, None]) == 0).all()
    assert_close(weights[:2].sum(-1), torch.ones(2, 4))
    assert (weights[2] == 0).all()
