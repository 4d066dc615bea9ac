"""Trainings that end before their time, and go on as if they had not."""

import json
import math
import os
import re
import signal
import subprocess
import threading
from itertools import product

import checks
import pytest
import torch
from safetensors.torch import load_file

from revtrans.data import PairsTask, ReversalTask, Vocab, in_held_out, make_batch
from revtrans.errors import FileError, InputValueError, TrainingError
from revtrans.files import peek_checkpoint, read_about, write_file
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
    """What must be equal: everything but the clock, and where it was kept."""
    return {n: value for n, value in vars(history).items() if n not in ("seconds", "kept")}


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

    read = files.read_file

    def without(*arguments):
        about, found = read(*arguments)
        other = torch.Generator().manual_seed(99).get_state()
        for name in found:
            if name.startswith(missing):
                found[name] = other if missing[0] == "g" else torch.zeros_like(found[name])
        return about, found

    monkeypatch.setattr(files, "read_file", without)
    assert told(fit(second, TASK, **OPTIONS, resume=path)) != told(expected)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"lr": 0.1}, "made with lr 0.004, not 0.1"),
        ({"steps": 21}, "made with steps 20, not 21"),
        ({"seed": 1}, "made with seed 0, not 1"),
        ({"weight_decay": 0.1}, "made with weight_decay 0.7, not 0.1"),
        (
            {"schedule": lambda step, steps, peak, warmup: 0.001},
            r"made with rates \[0\.00133.*001\]",
        ),
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
    with pytest.raises(InputValueError, match=r"made with strings '.{12}', not '.{12}'"):
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
    path, ended = tmp_path / "c", subprocess.Popen(["true"])
    ended.wait()
    fit(checks.tiny(), TASK, **OPTIONS, checkpoint=path, callback=stop_at(8))
    stale = f".c.{ended.pid}.0123abcd"
    others = [f".c.{os.getpid()}.0123abcd", f".cc.{ended.pid}.0123abcd", ".c.notes", ".c.1.notes"]
    for name in (stale, *others):
        (tmp_path / name).write_text("")
    (tmp_path / f".c.{ended.pid}.01234567").mkdir()
    others += ["c", f".c.{ended.pid}.01234567"]
    fit(checks.tiny(), TASK, **OPTIONS, resume=path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(others)


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


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    path, model = tmp_path / "c", checks.tiny()
    weight = model.embedding.weight
    steps = []

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        steps.append(1)
        return gradient * math.nan if len(steps) == 10 else gradient

    weight.register_hook(spoil)
    options = {**OPTIONS, "eval_every": 20, "checkpoint": path, "every": 5}
    with pytest.raises(TrainingError, match=rf"the last good checkpoint is {path}, of step 5"):
        fit(model, TASK, **options)
    assert len(peek_checkpoint(path)[1]["loss"]) == 5
    assert all(tensor.isfinite().all() for tensor in load_file(path).values())


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


def test_frozen_parameters_and_other_types_come_back_too(tmp_path):
    def build() -> Transformer:
        model = checks.tiny(dropout=0.1).double()
        model.embedding.weight.requires_grad = False
        return model

    whole, first, second = build(), build(), build()
    expected = fit(whole, TASK, **OPTIONS, callback=stop_at(-1))
    fit(first, TASK, **OPTIONS, checkpoint=tmp_path / "c", callback=stop_at(8))
    history = fit(second, TASK, **OPTIONS, resume=tmp_path / "c", callback=stop_at(-1))
    assert told(history) == told(expected)
    assert same(whole, second)


def test_other_strings_to_train_on_are_another_training(tmp_path):
    """Also if those to measure on are the same."""
    texts = [a + b for a in "abcde" for b in "abcde"]
    side = in_held_out(make_batch(Vocab("abcde"), texts, texts).source, 0.3).tolist()
    copied = [(text, text[::-1] if held else text) for text, held in zip(texts, side)]
    tasks = [PairsTask(pairs, 0.3) for pairs in ([(t, t[::-1]) for t in texts], copied)]
    measured = [task.sample(8, checks.seeded(), "held_out").target for task in tasks]
    assert torch.equal(*measured)
    fit(checks.tiny(), tasks[0], **OPTIONS, checkpoint=tmp_path / "c", callback=stop_at(8))
    with pytest.raises(InputValueError, match=r"made with strings '.{12}', not '.{12}'"):
        fit(checks.tiny(), tasks[1], **OPTIONS, resume=tmp_path / "c")


def test_one_pair_that_is_another_is_another_training(tmp_path):
    texts = ["".join(letters) for letters in product("abcde", repeat=4)]
    pairs = [(text, text[::-1]) for text in texts]
    tasks = [PairsTask(given, 0.0) for given in (pairs, [*pairs[:-1], (texts[-1], "a")])]
    options = {**OPTIONS, "eval_every": 30}
    for task in tasks:
        task.sample = sampled(task)
    fit(checks.tiny(), tasks[0], **options, checkpoint=tmp_path / "c")
    with pytest.raises(InputValueError, match=r"made with strings '.{12}', not '.{12}'"):
        fit(checks.tiny(), tasks[1], **options, resume=tmp_path / "c")


def sampled(task: PairsTask):
    """Its sampling, with the training strings on either side."""
    return lambda n, generator, split="train": PairsTask.sample(task, n, generator)


def test_a_schedule_is_known_by_its_rates_and_not_by_its_name(tmp_path):
    def at(rate: float):
        return lambda step, steps, peak, warmup: rate

    path = tmp_path / "c"
    options = {**OPTIONS, "resume": path}
    fit(checks.tiny(), TASK, **OPTIONS, checkpoint=path, schedule=at(0.1), callback=stop_at(8))
    assert len(fit(checks.tiny(), TASK, **options, schedule=at(0.1)).loss) == 20
    with pytest.raises(InputValueError, match="made with rates"):
        fit(checks.tiny(), TASK, **options, schedule=at(0.2))


@pytest.mark.parametrize(
    "forge",
    [
        lambda texts, tensors: texts["history"].update(loss=5),
        lambda texts, tensors: texts["history"].update(loss="none"),
        lambda texts, tensors: texts["history"].update(rate=[]),
        lambda texts, tensors: texts["history"].update(loss=[math.nan] * 8),
        lambda texts, tensors: texts["history"].update(loss=[0.1] * 21, rate=[0.1] * 21),
        lambda texts, tensors: texts["history"].update(step=[[0]] * 3),
        lambda texts, tensors: texts["history"].update(exact_match=[]),
        lambda texts, tensors: texts["history"].update(seconds=None),
        lambda texts, tensors: texts["history"].update(seconds=10**400),
        lambda texts, tensors: texts["history"].update(other=1),
        lambda texts, tensors: texts.update(history={}),
        lambda texts, tensors: texts.update(history=[]),
        lambda texts, tensors: texts.update(settings=None),
        lambda texts, tensors: texts.update(moved={}),
        lambda texts, tensors: texts.update(moved=[]),
        lambda texts, tensors: texts.pop("moved"),
        lambda texts, tensors: tensors["generator.batches"].zero_(),
        lambda texts, tensors: tensors.update({"generator.global": torch.zeros(9).byte()}),
        lambda texts, tensors: tensors.update(
            {"model.embedding.weight": torch.zeros(8, 16).half()}
        ),
    ],
)
def test_a_well_signed_forgery_is_refused_and_changes_nothing(tmp_path, forge):
    path, model = tmp_path / "c", checks.tiny(3)
    fit(checks.tiny(), TASK, **OPTIONS, checkpoint=path, callback=stop_at(8))
    texts = {
        name: json.loads(text)
        for name, text in read_about(path, "checkpoint").items()
        if name in ("settings", "history", "moved")
    }
    tensors, before = load_file(path), checks.weights(model)
    forge(texts, tensors)
    write_file(path, "checkpoint", tensors, **{name: json.dumps(it) for name, it in texts.items()})
    with pytest.raises(FileError, match=re.escape(str(path))):
        fit(model, TASK, **OPTIONS, resume=path)
    assert torch.equal(checks.weights(model), before)


def test_the_steps_that_are_kept_are_those_of_the_last_checkpoint(tmp_path):
    def twice(step, model):
        if step == 8:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    options = {**OPTIONS, "checkpoint": tmp_path / "c", "callback": twice}
    assert fit(checks.tiny(), TASK, **options).kept == 0
    assert fit(checks.tiny(), TASK, **options, every=5).kept == 5
