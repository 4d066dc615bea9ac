"""Trainings that end before their time, and go on as if they had not."""

import os
import re
import signal
import threading
from dataclasses import asdict
from itertools import product

import checks
import pytest
import torch
from safetensors.torch import load_file

from revtrans import files
from revtrans.data import ReversalTask
from revtrans.errors import FileError, InputValueError, TrainingError
from revtrans.files import peek_checkpoint, resumable_fit
from revtrans.pairs import PairsTask
from revtrans.recurrent import Recurrent, RecurrentConfig
from revtrans.training import History, Training, fit

TASK = ReversalTask("abcde", max_length=4)
OPTIONS = {"steps": 20, "batch_size": 8, "eval_every": 4, "eval_size": 8, "progress": False}


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """In the background Ctrl-C is ignored, under nohup SIGHUP, and what is ignored stays so."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stop_at(step: int, *numbers: int):
    def callback(at: int, model: torch.nn.Module) -> None:
        torch.rand(1)  # what a callback draws belongs to the run
        if at == step:
            for number in numbers or [signal.SIGINT]:
                signal.raise_signal(number)

    return callback


def kept(path, model=None, callback=None, **changes) -> History:
    model = model or checks.tiny(dropout=0.2)
    return resumable_fit(path, model, TASK, callback=callback, **{**OPTIONS, **changes})


def same(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    return torch.equal(checks.weights(ours), checks.weights(theirs))


def told(history: History) -> dict:
    """What must be equal: everything but the clock."""
    return {name: value for name, value in asdict(history).items() if name != "seconds"}


BUILDS = {
    "plain": checks.tiny,
    "dropout": lambda: checks.tiny(dropout=0.2),
    "learned": lambda: checks.tiny(positions="learned"),
    "double, frozen": lambda: checks.tiny(dropout=0.2).double(),
    "recurrent": lambda: Recurrent(RecurrentConfig("abcde", max_length=8, d_model=8)),
}


def build(kind: str) -> torch.nn.Module:
    model = BUILDS[kind]()
    model.embedding.weight.requires_grad = "frozen" not in kind
    return model


@pytest.mark.parametrize("kind", BUILDS)
@pytest.mark.parametrize("step, name", [(4, "SIGINT"), (8, "SIGTERM"), (16, "SIGHUP")])
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path, kind, step, name):
    path, number = tmp_path / "c", getattr(signal, name)
    whole, first, second = (build(kind) for _ in range(3))
    expected = fit(whole, TASK, callback=stop_at(-1), **OPTIONS)
    stopped = kept(path, first, stop_at(step, number))
    assert stopped.interrupted == number and len(stopped.loss) == step and not first.training
    assert peek_checkpoint(path)[1] == step
    history = kept(path, second, stop_at(-1))
    assert told(history) == told(expected) and same(second, whole) and not history.interrupted
    assert list(tmp_path.iterdir()) == [path]


def test_every_checkpoint_of_a_run_leads_to_the_same_end(tmp_path):
    contents, whole = {}, checks.tiny(dropout=0.2)

    def keep(step: int, model: torch.nn.Module) -> None:
        if (tmp_path / "c").exists():
            contents[peek_checkpoint(tmp_path / "c")[1]] = (tmp_path / "c").read_bytes()

    options = {**OPTIONS, "eval_every": 1}
    expected = resumable_fit(tmp_path / "c", whole, TASK, every=5, callback=keep, **options)
    assert list(contents) == [0, 5, 10, 15], "step 20 comes after the last look"
    for content in contents.values():
        (tmp_path / "d").write_bytes(content)
        model = checks.tiny(dropout=0.2)
        assert told(resumable_fit(tmp_path / "d", model, TASK, **options)) == told(expected)
        assert same(model, whole)


def test_a_finished_training_is_not_done_again(tmp_path, monkeypatch):
    path, first, second = tmp_path / "c", checks.tiny(), checks.tiny(1)
    expected, content = kept(path, first), (tmp_path / "c").read_bytes()
    monkeypatch.setattr(Training, "step", lambda self: pytest.fail("a step was taken"))
    assert told(kept(path, second)) == told(expected) and same(first, second)
    assert path.read_bytes() == content and not second.training


def constant(step: int, steps: int, peak: float, warmup: float) -> float:
    return 0.001


def last_is_other(step: int, steps: int, peak: float, warmup: float) -> float:
    return 0.002 if step == 19 else 0.001


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"lr": 0.1}, "lr 0.004, not 0.1"),
        ({"steps": 21}, "steps 20, not 21"),
        ({"steps": 19}, "steps 20, not 19"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"weight_decay": 0.1}, "weight_decay 2.0, not 0.1"),
        ({"schedule": last_is_other}, "schedule '.{12}', not '.{12}'"),
        ({"model": checks.tiny(d_ff=64)}, "d_ff 32, not 64"),
        ({"model": build("recurrent")}, "model 'revtrans.*Transformer', not 'revtrans.*Recurrent'"),
        ({"model": build("double, frozen")}, r"frozen \[\], not \['embedding.weight'\]"),
        ({"task": ReversalTask("abcde", max_length=3)}, "strings '.{12}', not '.{12}'"),
        ({"threads": 2}, "threads 1, not 2"),
        ({"torch": "9.9"}, "torch '.*', not '9.9'"),
    ],
)
def test_another_training_is_refused_by_name(tmp_path, monkeypatch, change, reason):
    path, options = tmp_path / "c", {**OPTIONS, "schedule": constant}
    resumable_fit(path, checks.tiny(dropout=0.2), TASK, callback=stop_at(8), **options)
    model, task = change.pop("model", checks.tiny(3, dropout=0.2)), change.pop("task", TASK)
    before, content = checks.weights(model), path.read_bytes()
    threads = torch.get_num_threads()
    torch.set_num_threads(change.pop("threads", threads))
    monkeypatch.setattr(torch, "__version__", change.pop("torch", torch.__version__))
    try:
        with pytest.raises(InputValueError, match=rf"c was made with {reason}$"):
            resumable_fit(path, model, task, **{**options, **change})
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(checks.weights(model), before) and path.read_bytes() == content
    assert os.listdir(tmp_path) == ["c"]


def test_one_pair_that_is_another_is_another_training(tmp_path):
    texts = ["".join(letters) for letters in product("abcde", repeat=4)]
    pairs = [(text, text[::-1]) for text in texts]
    tasks = [PairsTask(given, 0.1) for given in (pairs, [*pairs[:-1], (texts[-1], "a")])]
    resumable_fit(tmp_path / "c", checks.tiny(), tasks[0], **OPTIONS)
    with pytest.raises(InputValueError, match=r"made with strings '.{12}', not '.{12}'"):
        resumable_fit(tmp_path / "c", checks.tiny(), tasks[1], **OPTIONS)


@pytest.mark.parametrize("path", [5, b"x", None, "", "no/c", "link", os.devnull, "/proc/self/c"])
def test_a_path_is_checked_before_any_work(plain, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("gone/c")
    model = plain.model.Transformer(plain.model.TransformerConfig("abcde", 4, 8, 2, 8, 1))
    task, before = plain.data.ReversalTask("abcde", max_length=4), checks.weights(model)
    monkeypatch.setattr(plain.training.Training, "step", lambda self: pytest.fail("work began"))
    with pytest.raises(plain.errors.FileError if isinstance(path, str) else TypeError):
        plain.files.resumable_fit(path, model, task, **OPTIONS)
    assert torch.equal(checks.weights(model), before) and os.listdir(tmp_path) == ["link"]


@pytest.mark.parametrize("option", ["every", "steps"])
def test_options_are_checked_before_any_work(tmp_path, option):
    with pytest.raises(InputValueError, match=f"{option} must be"):
        kept(tmp_path / "c", **{option: 0})
    assert not list(tmp_path.iterdir())


def test_two_trainings_do_not_write_to_one_path(tmp_path):
    path, refused = tmp_path / "c", []

    def second(step, model):
        if step == 4:
            with pytest.raises(FileError, match=f"another training is writing to {path}"):
                kept(path, every=1)
            refused.append(step)

    assert len(kept(path, callback=second).loss) == 20 and refused == [4]
    assert list(tmp_path.iterdir()) == [path]


def test_a_spoiled_checkpoint_is_refused_and_changes_nothing(tmp_path):
    path, model = tmp_path / "c", checks.tiny(3, dropout=0.2)
    kept(path, callback=stop_at(8))
    content, before = path.read_bytes(), checks.weights(model)
    for spoiled, reason in [
        (content[:-1], "is not a whole safetensors file"),
        (content[:-1] + bytes([content[-1] ^ 1]), "is damaged"),
    ]:
        path.write_bytes(spoiled)
        with pytest.raises(FileError, match=reason):
            kept(path, model)
        assert path.read_bytes() == spoiled
    assert torch.equal(checks.weights(model), before)


def one_step_too_many(texts: dict[str, str], tensors: dict[str, torch.Tensor]) -> None:
    texts["done"] = "21"
    tensors |= {f"history.{name}": torch.ones(21).double() for name in ("loss", "rate")}


@pytest.mark.parametrize(
    "forge",
    [
        one_step_too_many,
        lambda texts, tensors: texts.update(measured="-1"),
        lambda texts, tensors: texts.update(measured="9" * 5000),
        lambda texts, tensors: texts.update(settings="[]"),
        lambda texts, tensors: texts.update(settings="[" * 10_000),
        lambda texts, tensors: tensors["history.loss"].fill_(torch.nan),
        lambda texts, tensors: tensors["random.batches"].zero_(),
        lambda texts, tensors: tensors.pop("optimizer.embedding.weight.step"),
    ],
)
def test_a_well_signed_forgery_is_refused_and_changes_nothing(tmp_path, forge):
    path, model = tmp_path / "c", checks.tiny(3, dropout=0.2)
    kept(path, callback=stop_at(8))
    with files.open_file(path, "checkpoint") as (_, _, about):
        texts = {name: about[name] for name in ("settings", "done", "measured")}
    tensors, before = load_file(path), checks.weights(model)
    forge(texts, tensors)
    files.write_file(path, "checkpoint", tensors, **texts)
    with pytest.raises(FileError, match=re.escape(str(path))):
        kept(path, model)
    assert torch.equal(checks.weights(model), before)


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    path, writes, replace = tmp_path / "c", [], os.replace

    def full(*arguments):
        writes.append(1)
        if len(writes) == 4:
            raise OSError(28, "No space left on device")
        replace(*arguments)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileError, match="No space left on device"):
        kept(path, every=5)
    assert peek_checkpoint(path)[1] == 10 and list(tmp_path.iterdir()) == [path]


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    path, model, steps = tmp_path / "c", checks.tiny(), []

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        steps.append(1)
        return gradient * torch.nan if len(steps) == 10 else gradient

    model.embedding.weight.register_hook(spoil)
    with pytest.raises(TrainingError, match="weights are no longer finite"):
        kept(path, model, eval_every=20, every=5)
    assert peek_checkpoint(path)[1] == 5


def test_signals_act_as_before_when_the_training_is_over(tmp_path):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before, seen = [signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL], []
    for number, handler in zip(numbers, before):  # whoever started the tests may ignore some
        signal.signal(number, handler)
    kept(tmp_path / "c", callback=lambda *_: seen.extend(map(signal.getsignal, numbers)))
    assert list(map(signal.getsignal, numbers)) == before and not set(before) & set(seen)


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    history = kept(tmp_path / "c", callback=stop_at(8))
    assert not history.interrupted and len(history.loss) == 20


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    history = kept(tmp_path / "c", callback=stop_at(8, signal.SIGINT, signal.SIGINT), every=5)
    assert history.interrupted == signal.SIGINT and peek_checkpoint(tmp_path / "c")[1] == 5


def test_training_works_in_a_thread_where_no_signal_can_be_caught(tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(kept(tmp_path / "c")))
    thread.start()
    thread.join()
    assert len(found[0].loss) == 20 and peek_checkpoint(tmp_path / "c")[1] == 20


def test_the_global_generator_is_left_as_it_was(tmp_path):
    state = torch.get_rng_state()
    kept(tmp_path / "c", callback=stop_at(8))
    kept(tmp_path / "c")
    assert torch.equal(torch.get_rng_state(), state)
