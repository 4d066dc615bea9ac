"""The loss, the metrics, the schedule and the loop."""

import math
import re

import checks
import pytest
import torch
from torch_peers import assert_close

from revtrans.data import PairsTask, ReversalTask
from revtrans.decoding import greedy
from revtrans.model import Transformer, TransformerConfig, choose_device
from revtrans.training import (
    cross_entropy,
    exact_match,
    fit,
    learning_rate,
    predict,
    token_accuracy,
)

TASK = ReversalTask("abcde", max_length=4)
QUICK = {"batch_size": 16, "eval_every": 5, "eval_size": 20, "progress": False}


def test_the_loss_ignores_padding():
    checks.loss_ignores_padding(checks.tiny())


def test_no_gradient_reaches_the_logits_of_padding():
    labels = torch.tensor([[3, 2, 0], [4, 4, 2]])
    logits = torch.randn(2, 3, 6, generator=checks.seeded(), requires_grad=True)
    cross_entropy(logits, labels, 0.1).backward()
    assert (logits.grad[0, 2] == 0).all() and (logits.grad[labels != 0] != 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_mixes_in_the_mean_over_the_vocabulary(smoothing):
    labels = torch.tensor([[3, 2]])
    surprise = -torch.randn(1, 2, 6, generator=checks.seeded()).log_softmax(-1)
    right = surprise[0, [0, 1], labels[0]]
    expected = ((1 - smoothing) * right + smoothing * surprise[0].mean(-1)).mean()
    assert_close(cross_entropy(-surprise, labels, smoothing), expected)


@pytest.mark.parametrize(
    "predicted, exact, accuracy",
    [
        ([[3, 4, 2], [5, 2, 0]], 1.0, 1.0),
        ([[3, 4, 2], [5, 2, 9]], 1.0, 1.0),  # what is written over padding does not count
        ([[3, 4, 2], [5, 3, 0]], 0.5, 0.8),  # a missing eos does
        ([[4, 4, 2], [4, 2, 0]], 0.0, 0.6),
    ],
)
def test_metrics_count_eos_and_ignore_padding(predicted, exact, accuracy):
    labels = torch.tensor([[3, 4, 2], [5, 2, 0]])
    assert exact_match(torch.tensor(predicted), labels) == exact
    assert token_accuracy(torch.tensor(predicted), labels) == pytest.approx(accuracy)


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.3])
def test_teacher_forced_and_free_running_agree_on_every_string(trained, noise):
    model = Transformer(trained.config)
    model.load_state_dict(trained.state_dict())
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += noise * torch.randn(p.shape, generator=checks.seeded(i)) * p.std(correction=0)
    batch = ReversalTask("abcde", max_length=5).sample(300, checks.seeded())
    forced, free = (predict(model, batch, free_running=free) for free in (False, True))
    written = greedy(model.eval(), batch.source)[:, : batch.labels.shape[1]]
    written = torch.nn.functional.pad(written, (0, batch.labels.shape[1] - written.shape[1]))
    right = [((ids == batch.labels) | ~batch.label_mask).all(1) for ids in (forced, free, written)]
    assert torch.equal(right[0], right[1]) and torch.equal(right[0], right[2])
    share = right[0].float().mean()
    assert share >= 0.98 if noise == 0 else 0.05 < share < 0.95


def test_predict_leaves_the_mode_as_it_was_and_is_not_disturbed_by_dropout():
    model, batch = checks.tiny(dropout=0.5), TASK.sample(20, checks.seeded())
    expected = predict(model, batch)
    assert torch.equal(predict(model.train(), batch), expected) and model.training


@pytest.mark.parametrize("steps, warmup", [(1, 0.0), (1, 0.9), (10, 0.0), (100, 0.15), (7, 0.99)])
def test_the_rate_rises_to_its_peak_and_falls_almost_to_zero(steps, warmup):
    rates = [learning_rate(step, steps, 0.5, warmup) for step in range(steps)]
    top = rates.index(max(rates))
    assert all(0 <= rate <= 0.5 for rate in rates)
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] > 0, "no step is idle"
    assert steps < 100 or rates[-1] < 0.02 * max(rates)
    assert abs(top + 1 - warmup * steps) <= 1
    if warmup * steps >= 1:
        rise = math.floor(warmup * steps)
        expected = [0.5 * (step + 1) / (warmup * steps) for step in range(rise - 1)]
        assert rates[: rise - 1] == pytest.approx(expected)


def test_the_peak_rate_is_reached_when_it_falls_on_a_step():
    assert learning_rate(14, 100, 0.5, 0.15) == pytest.approx(0.5)


def test_the_rate_falls_along_half_a_cosine():
    shares = [learning_rate(step, 109, 1.0, 10 / 109) for step in (9, 34, 59, 84)]
    assert shares == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2])


def test_fit_follows_another_schedule():
    def steady(step, steps, peak, warmup):
        return peak if warmup == 0.15 else math.nan

    assert fit(checks.tiny(), TASK, steps=6, lr=0.01, **QUICK, schedule=steady).rate == [0.01] * 6


def test_fit_reduces_the_loss_and_tells_what_happened():
    model, seen = checks.tiny(), []
    history = fit(
        model, TASK, steps=32, lr=0.01, **QUICK, callback=lambda step, model: seen.append(step)
    )
    assert sum(history.loss[-5:]) < 0.9 * sum(history.loss[:5])
    assert history.rate == [learning_rate(step, 32, 0.01, 0.15) for step in range(32)]
    assert seen == history.step == [0, 5, 10, 15, 20, 25, 30, 32]
    assert len(history.exact_match) == len(history.token_accuracy) == 8
    assert history.token_accuracy[-1] > history.token_accuracy[0]
    assert history.seconds > 0 and not history.interrupted and not model.training


def test_fit_measures_on_the_held_out_split(monkeypatch):
    asked = []
    sample = ReversalTask.sample

    def noting(self, n, generator, split="train"):
        asked.append((n, split))
        return sample(self, n, generator, split)

    monkeypatch.setattr(ReversalTask, "sample", noting)
    fit(checks.tiny(), TASK, steps=3, **QUICK)
    known, asked = asked[:2], asked[2:]
    assert known == [(20, "held_out"), (300, "train")], "to measure on; to know the task again"
    assert asked == [(16, "train")] * 3


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_state():
    state, runs = torch.get_rng_state(), []
    for seed in (0, 0, 1):
        model = checks.tiny(dropout=0.1)
        history = fit(model, TASK, steps=6, **QUICK, seed=seed)
        runs.append((checks.weights(model), history))
    assert torch.equal(runs[0][0], runs[1][0]) and not torch.equal(runs[0][0], runs[2][0])
    assert runs[0][1].loss == runs[1][1].loss != runs[2][1].loss
    assert runs[0][1].exact_match == runs[1][1].exact_match
    assert torch.equal(torch.get_rng_state(), state)


def test_no_accelerator_is_seeded_unasked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("cuda is seeded"))
    fit(checks.tiny(), TASK, steps=1, **QUICK, device="cpu")


def test_ctrl_c_hands_back_the_history_and_a_usable_model():
    def stop(step, model):
        if step == 10:
            raise KeyboardInterrupt

    model = checks.tiny(dropout=0.1)
    before = checks.weights(model)
    history = fit(model, TASK, steps=50, **QUICK, callback=stop)
    assert history.interrupted and history.step == [0, 5, 10]
    assert len(history.loss) == len(history.rate) == 10
    assert not model.training and not torch.equal(checks.weights(model), before)
    batch = TASK.sample(5, checks.seeded())
    assert model(batch.source, batch.decoder_input).isfinite().all()


@pytest.mark.parametrize("clip", [0.01, 0.1, 1e9])
def test_gradients_are_clipped_to_the_stated_norm(clip):
    norms = []

    def note(step, model):
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item() if step else 0)

    options = {**QUICK, "eval_every": 1}
    fit(checks.tiny(), TASK, steps=4, clip=clip, **options, callback=note)
    if clip < 1:
        assert norms[1:] == pytest.approx([clip] * 4, rel=1e-3)
    else:
        assert min(norms[1:]) > 0.1, "without clipping they are longer"


@pytest.mark.parametrize("function", [str.upper, lambda text: text * 2])
def test_other_tasks_train_too(function):
    texts = [a + b + c for a in "xyz" for b in "xyz" for c in "xyz"]
    task = PairsTask.from_function(function, texts, held_out=0.3)
    model = checks.tiny(symbols=task.vocab.symbols)
    history = fit(model, task, steps=30, lr=0.01, **QUICK)
    assert history.loss[-1] < 0.8 * history.loss[0]


def test_without_a_device_the_best_there_is_is_chosen(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for usable, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda usable=usable: usable)
        assert choose_device().type == expected


def test_a_progress_bar_shows_loss_and_exact_match(capsys):
    fit(checks.tiny(), TASK, steps=3, batch_size=2, eval_every=1, eval_size=2)
    shown = capsys.readouterr().err
    assert re.search(r"loss=\d\.\d+, exact.match=\d", shown)


def test_the_modes_of_all_parts_come_back():
    model = checks.tiny().train()
    model.encoder.eval()
    predict(model, TASK.sample(2, checks.seeded()))
    assert model.training and model.decoder.training and not model.encoder.training


def test_ctrl_c_in_a_measurement_leaves_whole_lists(monkeypatch):
    calls = []

    def interrupted(predicted, labels):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 0.0

    monkeypatch.setattr("revtrans.training.token_accuracy", interrupted)
    history = fit(checks.tiny(), TASK, steps=50, **QUICK)
    assert history.interrupted and history.step == [0]
    assert len(history.exact_match) == len(history.token_accuracy) == 1


@pytest.mark.parametrize("device", ["meta", 3.5])
def test_a_device_that_cannot_compute_is_refused(plain, device):
    with pytest.raises(ValueError, match="is not usable here"):
        plain.model.choose_device(device)


def test_pairs_of_different_lengths_can_be_learned():
    """Rows that are cut out of a wider table do not lie in one piece."""
    task = PairsTask([("a" * n, "b" * m) for n in range(1, 7) for m in (1, 7)], 0.2)
    model = Transformer(TransformerConfig("ab", 8, d_model=8, n_heads=2, d_ff=8, n_layers=1))
    assert len(fit(model, task, steps=3, **QUICK).loss) == 3
