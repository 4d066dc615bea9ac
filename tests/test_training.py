"""The loss, the metrics, the schedule and the loop."""

import io
import math
import re
import sys
from functools import partial

import checks
import pytest
import torch
from torch import nn
from torch_peers import assert_close

from revtrans.data import Batch, ReversalTask
from revtrans.decoding import greedy
from revtrans.devices import evaluating
from revtrans.errors import TrainingError
from revtrans.files import resumable_fit
from revtrans.model import Transformer
from revtrans.training import (
    Training,
    cross_entropy,
    exact_match,
    fit,
    learning_rate,
    make_optimizer,
    predict,
    token_accuracy,
)

TASK = ReversalTask("abcde", max_length=4)
QUICK = {"batch_size": 16, "eval_every": 5, "eval_size": 20, "progress": False}


def test_the_loss_ignores_padding():
    checks.loss_ignores_padding(checks.tiny())


def test_label_smoothing_mixes_in_the_mean_over_the_vocabulary():
    labels = torch.tensor([[3, 2, 0]])
    surprise = -torch.randn(1, 3, 6, generator=checks.seeded()).log_softmax(-1)
    right, mean = surprise[0, [0, 1], labels[0, :2]], surprise[0, :2].mean(-1)
    assert_close(cross_entropy(-surprise, labels, 0.3), (0.7 * right + 0.3 * mean).mean())


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


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_teacher_forced_and_free_running_agree_on_every_string(trained, noise):
    model = Transformer(trained.config)
    model.load_state_dict(trained.state_dict())
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += noise * torch.randn(p.shape, generator=checks.seeded(i)) * p.std(correction=0)
    batch = ReversalTask("abcde", max_length=5).sample(1100, checks.seeded())  # two chunks
    forced, free = (predict(model, batch, free_running=free) for free in (False, True))
    written = greedy(model, batch.source)[:, : batch.labels.shape[1]]
    written = nn.functional.pad(written, (0, batch.labels.shape[1] - written.shape[1]))
    right = [((ids == batch.labels) | ~batch.label_mask).all(1) for ids in (forced, free, written)]
    assert torch.equal(right[0], right[1]) and torch.equal(right[0], right[2])
    share = right[0].float().mean()
    assert share >= 0.98 if noise == 0 else 0.05 < share < 0.95


def test_predict_is_not_disturbed_by_dropout_and_restores_every_mode():
    model, batch = checks.tiny(dropout=0.5), TASK.sample(20, checks.seeded())
    expected = predict(model, batch)
    model.train().encoder.eval()
    assert torch.equal(predict(model, batch), expected)
    assert model.training and model.decoder.training and not model.encoder.training


@pytest.mark.parametrize("steps, warmup", [(1, 0.0), (1, 0.9), (10, 0.0), (100, 0.4), (7, 0.99)])
def test_the_rate_rises_to_its_peak_and_falls_almost_to_zero(steps, warmup):
    rates = [learning_rate(step, steps, 0.5, warmup) for step in range(steps)]
    top, peak = rates.index(max(rates)), max(warmup * steps - 1, 0)
    assert abs(top - peak) < 1 and rates[-1] > 0, "no step is idle"
    assert rates[:top] == pytest.approx([0.5 * (s + 1) / (peak + 1) for s in range(top)])
    angles = [math.pi * (s - peak) / (steps - peak) for s in range(top, steps)]
    assert rates[top:] == pytest.approx([0.25 * (1 + math.cos(angle)) for angle in angles])
    assert steps != 100 or rates[39] == 0.5 > rates[40] > rates[38]


def test_matrices_and_embeddings_decay_and_vectors_do_not():
    model = checks.tiny(positions="learned")
    groups = make_optimizer(model, 0.3).param_groups
    decay = {p: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {p: 0.3 if p.dim() == 2 else 0.0 for p in model.parameters()}
    assert all(group["betas"] == (0.9, 0.95) for group in groups), "as the recipe was measured"


def test_fit_is_the_loop():
    """Sample, loss, backward, clip, step: written out once more, it gives the same numbers."""
    for clip in (0.1, 1e9):
        options = {"steps": 7, "lr": 0.01, "clip": clip, "label_smoothing": 0.1, "seed": 3}
        ours, plain = checks.tiny().double(), checks.tiny().double()
        history = fit(ours, TASK, **options, **QUICK)
        optimizer, generator = make_optimizer(plain, 2.0), checks.seeded(3)
        for step, loss in enumerate(history.loss):
            batch = TASK.sample(16, generator)
            expected = cross_entropy(plain(batch.source, batch.decoder_input), batch.labels, 0.1)
            plain.zero_grad()
            expected.backward()
            assert nn.utils.clip_grad_norm_(plain.parameters(), clip) > 0.2, "there is work for it"
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, 7, 0.01, 0.4)
            optimizer.step()
            assert loss == pytest.approx(expected.item())
        assert_close(checks.weights(ours), checks.weights(plain))
        for one, other in zip(ours.parameters(), plain.parameters()):
            assert_close(one.grad, other.grad)
        assert history.rate == [learning_rate(step, 7, 0.01, 0.4) for step in range(7)]


def test_the_history_tells_what_happened():
    model, seen = checks.tiny(), []
    history = fit(model, TASK, steps=32, lr=0.01, **QUICK, callback=lambda *told: seen.append(told))
    assert history.step == [0, 5, 10, 15, 20, 25, 30, 32] and not model.training
    assert seen == [(step, model) for step in history.step]
    assert len(history.exact_match) == len(history.token_accuracy) == 8
    assert sum(history.loss[-5:]) < 0.9 * sum(history.loss[:5])
    held_out = TASK.sample(20, checks.seeded(), "held_out")
    assert history.token_accuracy[-1] == token_accuracy(predict(model, held_out), held_out.labels)
    exact = f"exact match {history.exact_match[-1]:.1%}"
    assert repr(history) == f"History(32 steps, {history.seconds:.0f} s, {exact})"
    assert history.seconds > 0


def test_fit_follows_another_schedule():
    history = fit(checks.tiny(), TASK, steps=3, **QUICK, schedule=lambda s, n, lr, w: lr * (s + 1))
    assert history.rate == [0.004, 0.008, 0.012]


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_state():
    runs = []
    for seed, dropout in ((0, 0.1), (0, 0.1), (1, 0.1), (0, 0.0)):
        torch.rand(1)
        state, model = torch.get_rng_state(), checks.tiny(dropout=dropout)
        losses = fit(model, TASK, steps=6, **QUICK, seed=seed).loss
        runs.append((losses, checks.weights(model).tolist()))
        assert torch.equal(torch.get_rng_state(), state)
    assert runs[0] == runs[1] and runs[0] != runs[2]
    assert runs[0][0][0] != runs[3][0][0], "dropout acts from the first step"


def test_fit_trains_where_the_model_lies(monkeypatch):
    model, devices, to = checks.tiny(), [], Batch.to
    places = [p.data_ptr() for p in model.parameters()]
    monkeypatch.setattr(Batch, "to", lambda batch, at: devices.append(at) or to(batch, at))
    fit(model, TASK, steps=2, **QUICK)
    assert [p.data_ptr() for p in model.parameters()] == places
    assert devices == [torch.device("cpu")] * 2


def test_a_model_with_a_hook_is_trained_as_it_is():
    model, calls = checks.tiny(), []
    training = Training(model, TASK)
    training.step()
    model.encoder.layers[0].register_forward_hook(lambda *args: calls.append(1))
    training.step()
    assert calls == [1], "also if it comes in the middle"


class Refusing(io.StringIO):
    """What a full disk or a closed pipe is like."""

    def write(self, text: str) -> int:
        raise OSError("no space left")

    def flush(self) -> None:
        raise OSError("no space left")


@pytest.mark.parametrize("stream", ["None", "closed", "refusing"])
def test_a_training_goes_on_where_its_bar_cannot_be_written(stream, monkeypatch):
    there = {"None": None, "closed": io.StringIO(), "refusing": Refusing()}[stream]
    if stream == "closed":
        there.close()
    monkeypatch.setattr(sys, "stderr", there)
    for _ in range(2):
        assert len(fit(checks.tiny(), TASK, steps=3, **(QUICK | {"progress": True})).loss) == 3


@pytest.mark.parametrize("in_callback", [True, False])
def test_ctrl_c_leaves_a_usable_model_and_whole_lists(monkeypatch, capsys, in_callback):
    model, asked = checks.tiny(), []
    before = checks.weights(model)

    def stop_at_the_third(*args):
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return 0.0

    if not in_callback:
        monkeypatch.setattr("revtrans.training.token_accuracy", stop_at_the_third)
    callback = stop_at_the_third if in_callback else None
    history = fit(model, TASK, steps=50, **QUICK, callback=callback)
    assert capsys.readouterr().out == "stopped after 10 of 50 steps\n"
    assert history.step == [0, 5, 10][: 2 + in_callback]
    assert len(history.exact_match) == len(history.token_accuracy) == len(history.step)
    assert len(history.loss) == len(history.rate) == 10
    assert not model.training and not torch.equal(checks.weights(model), before)


@pytest.mark.parametrize("kept", [False, True])
def test_ctrl_c_in_the_middle_of_a_measurement_leaves_the_model_ready(kept, tmp_path):
    def stop(step, model):
        left_open = evaluating(model)
        left_open.__enter__()
        raise KeyboardInterrupt

    model = checks.tiny().train()
    start = partial(resumable_fit, tmp_path / "file") if kept else fit
    assert len(start(model, TASK, steps=3, callback=stop, **QUICK).loss) == 0
    assert not model.training


def test_what_is_no_longer_a_number_ends_the_training_and_touches_no_weight():
    model = checks.tiny()
    with torch.no_grad():
        model.embedding.weight[5] = math.nan
    before = checks.weights(model).nan_to_num()
    with pytest.raises(TrainingError, match=r"the loss is nan at step 0, with learning rate 3\.08"):
        Training(model, TASK).step()
    assert torch.equal(checks.weights(model).nan_to_num(), before)
    with pytest.raises(TrainingError, match=r"no longer finite: embedding\.weight"):
        fit(model, TASK, steps=1, **QUICK)


def test_a_progress_bar_shows_the_exact_match(capsys):
    fit(checks.tiny(), TASK, steps=3, batch_size=2, eval_every=1, eval_size=2)
    assert re.search(r"3/3.*exact.match=\d+\.\d%", capsys.readouterr().err)
