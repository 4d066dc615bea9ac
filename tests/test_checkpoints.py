"""Trainings that end before their time, and go on as if they had not."""

import math
import os
import signal
import threading

import checks
import pytest
import torch

from revtrans.data import ReversalTask
from revtrans.errors import FileError, InputValueError, TrainingError
from revtrans.files import peek_checkpoint
from revtrans.model import Transformer
from revtrans.recurrent import Recurrent, RecurrentConfig
from revtrans.training import History, fit

TASK = ReversalTask("abcde", max_length=4)
OPTIONS = {"steps": 20, "batch_size": 8, "eval_every": 4, "eval_size": 8, "progress": False}


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """A process in the background ignores Ctrl-C, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stop_at(step: int, number: int = signal.SIGINT):
    def callback(at: int, model: torch.nn.Module) -> None:
        torch.rand(1)  # what a callback draws belongs to the run
        if at == step:
            signal.raise_signal(number)

    return callback


def same(ours: Transformer, theirs: Transformer) -> bool:
    return torch.equal(checks.weights(ours), checks.weights(theirs))


def told(history: History) -> dict:
    """What must be equal: everything but the clock."""
    return {name: value for name, value in vars(history).items() if name != "seconds"}


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.2}, {"positions": "randomised"}])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [4, 8, 16])
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path, changes, number, step):
    path = tmp_path / "checkpoint"
    whole, first, second = (checks.tiny(**changes) for _ in range(3))
    expected = fit(whole, TASK, **OPTIONS, callback=stop_at(-1))
    stopped = fit(first, TASK, **OPTIONS, checkpoint=path, callback=stop_at(step, number))
    assert stopped.interrupted == number and len(stopped.loss) == step and not first.training
    history = fit(second, TASK, **OPTIONS, checkpoint=path, resume=path, callback=stop_at(-1))
    assert told(history) == told(expected) and same(second, whole)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]


def test_every_checkpoint_of_a_run_leads_to_the_same_end(tmp_path):
    kept = []

    def keep(step, model):
        if (tmp_path / "c").exists():
            kept.append((tmp_path / "c").read_bytes())

    whole = checks.tiny(dropout=0.1)
    options = {**OPTIONS, "eval_every": 1}
    expected = fit(whole, TASK, **options, checkpoint=tmp_path / "c", every=3, callback=keep)
    assert len(set(kept)) == 6, "steps 3 to 18; step 20 comes after the last look"
    for content in set(kept):
        (tmp_path / "d").write_bytes(content)
        model = checks.tiny(dropout=0.1)
        assert told(fit(model, TASK, **options, resume=tmp_path / "d")) == told(expected)
        assert same(model, whole)


def test_a_finished_training_goes_on_to_its_end_at_once(tmp_path):
    path, first, second = tmp_path / "c", checks.tiny(), checks.tiny(1)
    expected = fit(first, TASK, **OPTIONS, checkpoint=path)
    assert told(fit(second, TASK, **OPTIONS, resume=path)) == told(expected)
    assert same(first, second)


def test_a_recurrent_model_goes_on_too(tmp_path):
    config = RecurrentConfig("abcde", max_length=8, d_model=8)
    whole, first, second = (Recurrent(config) for _ in range(3))
    expected = fit(whole, TASK, **OPTIONS)
    fit(first, TASK, **OPTIONS, checkpoint=tmp_path / "c", callback=stop_at(8))
    assert told(fit(second, TASK, **OPTIONS, resume=tmp_path / "c")) == told(expected)
    assert same(whole, second)


@pytest.mark.parametrize("missing", ["optimizer", "generator.batches", "generator.global"])
def test_without_one_of_its_parts_it_would_not_be_the_same(tmp_path, monkeypatch, missing):
    """What the tests above guard against: each part of a checkpoint is needed."""
    path, whole, second = tmp_path / "c", checks.tiny(dropout=0.1), checks.tiny(dropout=0.1)
    expected = fit(whole, TASK, **OPTIONS)
    fit(checks.tiny(dropout=0.1), TASK, **OPTIONS, checkpoint=path, callback=stop_at(8))
    from revtrans import files

    read = files.read_tensors

    def without(*arguments):
        found = read(*arguments)
        other = torch.Generator().manual_seed(99).get_state()
        for name in found:
            if name.startswith(missing):
                found[name] = other if missing[0] == "g" else torch.zeros_like(found[name])
        return found

    monkeypatch.setattr(files, "read_tensors", without)
    assert told(fit(second, TASK, **OPTIONS, resume=path)) != told(expected)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"lr": 0.1}, "made with lr 0.004, not 0.1"),
        ({"steps": 21}, "made with steps 20, not 21"),
        ({"seed": 1}, "made with seed 0, not 1"),
        ({"weight_decay": 0.1}, "made with weight_decay 0.7, not 0.1"),
        ({"schedule": math.fsum}, "made with schedule 'learning_rate', not 'fsum'"),
    ],
)
def test_another_training_is_refused_by_name(tmp_path, change, reason):
    path, model = tmp_path / "c", checks.tiny(3)
    fit(checks.tiny(), TASK, **OPTIONS, checkpoint=path, callback=stop_at(8))
    before = checks.weights(model)
    with pytest.raises(InputValueError, match=reason):
        fit(model, TASK, **{**OPTIONS, **change}, resume=path)
    assert torch.equal(checks.weights(model), before)


def test_another_model_or_task_is_refused_by_name(tmp_path):
    path = tmp_path / "c"
    fit(checks.tiny(), TASK, **OPTIONS, checkpoint=path, callback=stop_at(8))
    with pytest.raises(InputValueError, match="made with d_ff 32, not 64"):
        fit(checks.tiny(d_ff=64), TASK, **OPTIONS, resume=path)
    with pytest.raises(InputValueError, match="made with held-out strings"):
        fit(checks.tiny(), ReversalTask("abcde", max_length=3), **OPTIONS, resume=path)


def test_a_spoiled_checkpoint_is_refused_and_changes_nothing(tmp_path):
    path, model = tmp_path / "c", checks.tiny(3)
    fit(checks.tiny(), TASK, **OPTIONS, checkpoint=path, callback=stop_at(8))
    content, before = path.read_bytes(), checks.weights(model)
    path.write_bytes(content[:-1])
    with pytest.raises(FileError, match="is not a whole safetensors file"):
        fit(model, TASK, **OPTIONS, resume=path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FileError, match="is damaged"):
        fit(model, TASK, **OPTIONS, resume=path)
    with pytest.raises(FileError, match="there is no saved checkpoint at"):
        fit(model, TASK, **OPTIONS, resume=tmp_path / "missing")
    assert torch.equal(checks.weights(model), before)


def test_what_killed_writers_left_is_removed_when_the_training_goes_on(tmp_path):
    path = tmp_path / "c"
    fit(checks.tiny(), TASK, **OPTIONS, checkpoint=path, callback=stop_at(8))
    for name in (".c.123", ".c.notes", ".cc.123"):
        (tmp_path / name).write_text("")
    fit(checks.tiny(), TASK, **OPTIONS, resume=path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".c.notes", ".cc.123", "c"]


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    path, writes, replace = tmp_path / "c", [], os.replace

    def full(*arguments):
        writes.append(1)
        if len(writes) == 3:
            raise OSError(28, "No space left on device")
        replace(*arguments)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileError, match="No space left on device"):
        fit(checks.tiny(), TASK, **OPTIONS, checkpoint=path, every=5)
    assert len(peek_checkpoint(path)[1]["loss"]) == 10
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training_and_says_where(
    tmp_path, monkeypatch, value, checkpoint
):
    from revtrans import training

    computed, calls, model = training.cross_entropy, [], checks.tiny()

    def wrong(*arguments):
        calls.append(checks.weights(model))
        return computed(*arguments) * (value if len(calls) == 8 else 1)

    monkeypatch.setattr(training, "cross_entropy", wrong)
    path = tmp_path / "c" if checkpoint else None
    with pytest.raises(TrainingError) as caught:
        fit(model, TASK, **OPTIONS, checkpoint=path, every=5)
    said = f"the last good checkpoint is {path}, of step 5"
    assert str(caught.value) == (
        f"the loss is {value} at step 7, with learning rate 3.29e-03; "
        f"{said if checkpoint else 'no checkpoint was kept'}"
    )
    assert torch.equal(checks.weights(model), calls[-1]), "no weight was touched"


def test_signals_act_as_before_when_the_training_is_over(tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    seen = []
    fit(
        checks.tiny(),
        TASK,
        **OPTIONS,
        checkpoint=tmp_path / "c",
        callback=lambda *_: seen.append(signal.getsignal(signal.SIGTERM)),
    )
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert before[1] not in seen


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    history = fit(checks.tiny(), TASK, **OPTIONS, checkpoint=tmp_path / "c", callback=stop_at(8))
    assert not history.interrupted and len(history.loss) == 20


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    def twice(step, model):
        if step == 8:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it waited")

    history = fit(checks.tiny(), TASK, **OPTIONS, checkpoint=tmp_path / "c", callback=twice)
    assert history.interrupted == signal.SIGINT and not (tmp_path / "c").exists()


def test_training_works_in_a_thread_where_no_signal_can_be_caught(tmp_path):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(fit(checks.tiny(), TASK, **OPTIONS, checkpoint=tmp_path / "c"))
    )
    thread.start()
    thread.join()
    assert len(found[0].loss) == 20 and (tmp_path / "c").exists()
