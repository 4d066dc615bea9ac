"""Everything public on a second device: `pytest tests/second_device/try_it.py`, from .ci/full."""

import device
import pytest
import torch

device.begin()  # before the library is read

from revtrans.by_hand import hand_made
from revtrans.data import ReversalTask
from revtrans.decoding import beam_search, greedy, reverse
from revtrans.files import load, resumable_fit, save
from revtrans.model import Transformer, TransformerConfig, more_schemes
from revtrans.page import write_page
from revtrans.pairs import PairsTask
from revtrans.plotting import (
    antidiagonal_score,
    attention_maps,
    plot_batch,
    plot_heads,
    plot_history,
    show_attention,
)
from revtrans.proof import prove_exact
from revtrans.recurrent import Recurrent, RecurrentConfig
from revtrans.training import exact_match, fit, predict, token_accuracy

TASK = ReversalTask("abcde", max_length=5)
SIZES = {"symbols": "abcde", "max_length": 5, "d_model": 16, "n_heads": 2, "d_ff": 32}
NAMES = ["sinusoidal", "learned", *more_schemes()]
OPTIONS = {"steps": 6, "batch_size": 8, "eval_every": 3, "eval_size": 8, "progress": False}


def test_the_device_does_not_mix_and_counts_rightly():
    x = torch.arange(6.0).view(2, 3)
    there = x.to(device.NAME)
    assert there.device.type == device.NAME and torch.equal((there @ there.mT).cpu(), x @ x.mT)
    with pytest.raises(RuntimeError, match=r"on the same device|on 'second' and on the cpu"):
        there + x
    assert torch.equal(there[torch.tensor([1])].cpu(), x[1:])


def pair(name: str) -> tuple[Transformer, Transformer]:
    made = [Transformer(TransformerConfig(**SIZES, positions=name)) for _ in range(2)]
    return made[0], made[1].to(device.NAME)


@pytest.mark.parametrize("name", NAMES)
def test_each_scheme_trains_and_answers_there_as_on_the_processor(name, tmp_path):
    here, there = pair(name)
    histories = [fit(model, TASK, **OPTIONS) for model in (here, there)]
    torch.testing.assert_close(histories[1].loss, histories[0].loss, rtol=1e-4, atol=1e-5)
    words = ["abcd", "e", "", "abcde"]
    for beam in (1, 3):
        assert reverse(there, words, beam) == reverse(here, words, beam)
    batch = TASK.sample(20, torch.Generator().manual_seed(0), "held_out")
    assert torch.equal(predict(there, batch), predict(here, batch))
    assert torch.equal(predict(there, batch, True), predict(here, batch, True))
    assert torch.equal(greedy(there, batch.source).cpu(), greedy(here, batch.source))
    ours, theirs = (beam_search(model, batch.source, 3)[0] for model in (there, here))
    assert torch.equal(ours.cpu(), theirs)
    scores = [antidiagonal_score(attention_maps(model, "abcd").cross) for model in (there, here)]
    torch.testing.assert_close(scores[0].cpu(), scores[1], rtol=1e-4, atol=1e-5)
    maps = attention_maps(there, "abcd")
    plot_heads(maps.cross, maps.written, list(maps.source))
    save(there, tmp_path / "model")
    again = load(tmp_path / "model", device.NAME)
    assert reverse(again, words) == reverse(there, words)


def test_the_recurrent_models_train_and_answer_there_as_on_the_processor():
    for attention in (False, True):
        config = RecurrentConfig("abcde", max_length=5, d_model=16, attention=attention)
        here, there = (Recurrent(config).to(name) for name in ("cpu", device.NAME))
        histories = [fit(model, TASK, **OPTIONS) for model in (here, there)]
        torch.testing.assert_close(histories[1].loss, histories[0].loss, rtol=1e-4, atol=1e-5)
        assert reverse(there, ["abcd", "e", ""]) == reverse(here, ["abcd", "e", ""])


def test_a_batch_in_parts_is_trained_there_as_on_the_processor():
    here, there = pair("sinusoidal")
    losses = [fit(model, TASK, accumulate=2, **OPTIONS).loss for model in (here, there)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)


def test_half_precision_trains_there_as_on_the_processor():
    here, there = pair("sinusoidal")
    losses = [fit(model, TASK, precision="bf16", **OPTIONS).loss for model in (here, there)]
    torch.testing.assert_close(*losses, rtol=1e-2, atol=1e-2)


def test_pictures_and_pages_there(tmp_path):
    here, there = pair("sinusoidal")
    history = fit(there, TASK, **OPTIONS)
    here.load_state_dict(there.state_dict())
    plot_history(history)
    batch = TASK.sample(3, torch.Generator().manual_seed(0)).to(device.NAME)
    plot_batch(there.vocab, batch.source)
    assert "<script>" in show_attention(attention_maps(there, "abcd")).html
    for name, model in (("here", here), ("there", there)):
        write_page(model, tmp_path / name, examples=["abcd", "e"])
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()


def test_a_proof_there():
    here, there = pair("neighbours")
    here.load_state_dict(there.state_dict())
    proofs = [prove_exact(model) for model in (here, there)]
    assert proofs[0].windows == proofs[1].windows
    assert abs(proofs[0].margin - proofs[1].margin) < 1e-4


def test_a_training_goes_on_there_bit_for_bit(tmp_path):
    def make():
        return Transformer(TransformerConfig(**SIZES, dropout=0.2)).to(device.NAME)

    class PowerFailure(Exception):
        pass

    def fail(step, model):
        if step == 3:
            raise PowerFailure

    whole, stopped, resumed = make(), make(), make()
    expected = fit(whole, TASK, **OPTIONS)
    with pytest.raises(PowerFailure):
        resumable_fit(tmp_path / "c", stopped, TASK, 1, callback=fail, **OPTIONS)
    assert resumable_fit(tmp_path / "c", resumed, TASK, 1, **OPTIONS).loss == expected.loss


def test_the_rest_of_the_library_there():
    pairs = PairsTask([(a + b, b + a) for a in "abcde" for b in "abcde"])
    model = Transformer(
        TransformerConfig(
            pairs.vocab.symbols,
            max_length=4,
            **{name: SIZES[name] for name in ("d_model", "n_heads", "d_ff")},
        )
    ).to(device.NAME)
    fit(model, pairs, **OPTIONS)
    sample = pairs.sample(4, torch.Generator().manual_seed(0))
    predicted = predict(model, sample)
    assert 0 <= exact_match(predicted, sample.labels) <= token_accuracy(predicted, sample.labels)
    by_hand = hand_made("abcd", max_length=6).to(device.NAME)
    assert reverse(by_hand, ["abcd", "dcba", "a"]) == ["dcba", "abcd", "a"]
