"""Several processes, several parts, half precision: what one process does alone."""

import contextlib
import io
import os
from pathlib import Path
from types import SimpleNamespace

import checks
import pytest
import torch
from together import together

from revtrans.data import ReversalTask
from revtrans.devices import (
    from_first,
    generator_states,
    in_group,
    is_first,
    largest,
    seeded,
    set_generator_states,
)
from revtrans.errors import InputValueError
from revtrans.files import peek_checkpoint, resumable_fit, settings_of
from revtrans.training import begin, fit

TASK = ReversalTask("abcde", max_length=6)
OPTIONS = {"steps": 40, "batch_size": 8, "eval_every": 20, "eval_size": 20, "progress": False}


def model(double: bool = True, **sizes) -> torch.nn.Module:
    made = checks.tiny(max_length=6, **sizes)
    return made.double() if double else made


def losses_and_weights(double: bool = True, dropout: float = 0.0, **recipe) -> tuple:
    trained = model(double, dropout=dropout)
    history = fit(trained, TASK, **{**OPTIONS, **recipe})
    return history.loss, trained.state_dict(), history.exact_match


def said() -> tuple[str, str, list[int]]:
    """What a training with a bar and a callback prints, and where the callback was called."""
    called, out, err = [], io.StringIO(), io.StringIO()

    def stop(step: int, trained: torch.nn.Module) -> None:
        called.append(step)

    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        fit(model(), TASK, callback=stop, **{**OPTIONS, "progress": True, "steps": 4})
    return out.getvalue(), err.getvalue(), called


def refused(**recipe) -> str:
    try:
        fit(model(), TASK, **{**OPTIONS, **recipe})
    except InputValueError as error:
        return str(error)
    return ""


def in_files(folder: str) -> dict:
    """A file of one process is gone on with by two, and one of two is left for one."""
    found = {}
    for name in ("from one", "from two", "dropout"):
        drop, every = (0.2 if name == "dropout" else 0.0), 10
        half = 20 if name == "from two" else 40

        def stop(step: int, trained: torch.nn.Module, half: int = half) -> None:
            if step == half != 40:
                os.kill(os.getpid(), 15)

        trained = model(dropout=drop)
        path = f"{folder}/{name}"
        history = resumable_fit(path, trained, TASK, every, callback=stop, **OPTIONS)
        found[name] = (len(history.loss), history.interrupted, trained.state_dict())
    return found


def lessons(folder: str) -> dict:
    assert in_group() and not largest(0, torch.device("cpu"))
    rank = torch.distributed.get_rank()
    return {
        "rank": (rank, is_first(), from_first(rank), largest(rank, torch.device("cpu"))),
        "double": losses_and_weights(steps=100),
        "float": losses_and_weights(double=False),
        "in parts": losses_and_weights(accumulate=2),
        "dropout": losses_and_weights(dropout=0.2),
        "said": said(),
        "unlike": refused(seed=rank),
        "too few": refused(batch_size=1),
        "files": in_files(folder),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a training that one process has left after half of its steps."""
    made = tmp_path_factory.mktemp("files")

    def stop(step: int, trained: torch.nn.Module) -> None:
        if step == 20:
            os.kill(os.getpid(), 15)

    resumable_fit(made / "from one", model(), TASK, callback=stop, **OPTIONS)
    return made


@pytest.fixture(scope="module")
def two(folder) -> list[dict]:
    return together(2, lessons, str(folder))


def assert_same(ours: dict, theirs: dict, atol: float, but: str = "nothing") -> None:
    for name in ours:
        if not name.endswith(but):
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=atol, msg=name)


def test_two_processes_do_what_one_does(two):
    losses, weights, exact = losses_and_weights(steps=100)
    for theirs in two:
        assert theirs["double"][2] == exact
        torch.testing.assert_close(theirs["double"][0], losses, rtol=0, atol=1e-9)
        assert_same(theirs["double"][1], weights, 1e-9)
    assert_same(two[0]["double"][1], two[1]["double"][1], 0)


def test_in_single_precision_only_what_softmax_does_not_see_differs(two):
    _, weights, _ = losses_and_weights(double=False)
    theirs = two[0]["float"][1]
    assert_same(theirs, weights, 1e-5, but="key.bias")
    ours, other = model(double=False), model(double=False)
    ours.load_state_dict(weights)
    other.load_state_dict(theirs)
    batch = TASK.sample(64, torch.Generator().manual_seed(5), "held_out")
    logits = (made(batch.source, batch.decoder_input) for made in (ours, other))
    torch.testing.assert_close(*logits, rtol=0, atol=1e-4)


def test_each_process_may_go_through_its_rows_in_parts(two):
    assert_same(two[0]["in parts"][1], losses_and_weights()[1], 1e-9)


def test_the_first_alone_draws_calls_back_and_prints(two):
    first, second = two
    assert "100%" in first["said"][1] and first["said"][2] == [0, 4]
    assert second["said"] == ("", "", [])
    assert [one["rank"] for one in two] == [(0, True, 0, 1), (1, False, 0, 1)]


def test_processes_with_other_trainings_are_refused(two):
    assert "process 1 has seed 1, this one 0" in two[0]["unlike"]
    assert "process 0 has seed 0, this one 1" in two[1]["unlike"]
    assert all("batch_size must be a whole number of at least 2" in one["too few"] for one in two)


def test_files_pass_from_one_to_two_and_back(two, folder):
    whole = losses_and_weights()[1]
    for one in two:
        assert one["files"]["from one"][:2] == (40, 0)
        assert_same(one["files"]["from one"][2], whole, 1e-9)
        assert one["files"]["from two"][:2] == (20, 15), "both stop after the same step"
    assert peek_checkpoint(folder / "from two")[1] == 20
    alone = model()
    history = resumable_fit(folder / "from two", alone, TASK, **OPTIONS)
    assert len(history.loss) == 40
    assert_same(alone.state_dict(), whole, 1e-9)


def test_dropout_differs_between_processes_and_is_the_same_again(two):
    first, second = two
    assert first["dropout"][0] == second["dropout"][0]
    assert first["dropout"][0] != losses_and_weights(dropout=0.2)[0], "other numbers are dropped"
    assert_same(first["files"]["dropout"][2], first["dropout"][1], 0)


@pytest.mark.parametrize("parts", [3, 8])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(parts):
    losses, weights, _ = losses_and_weights(label_smoothing=0.1)
    ours = losses_and_weights(accumulate=parts, label_smoothing=0.1)
    torch.testing.assert_close(ours[0], losses, rtol=0, atol=1e-9)
    assert_same(ours[1], weights, 1e-9)


def test_bf16_computes_products_in_half_and_nothing_else():
    seen, halves = [], model(double=False)
    block = halves.decoder.layers[0].feed_forward
    block.register_forward_hook(lambda block, given, made: seen.append(made.dtype))
    training = begin(halves, TASK, precision="bf16", batch_size=8)
    training.step()
    batch = training.held_out
    logits = training.forward(batch.source, batch.decoder_input)
    assert set(seen) == {torch.bfloat16} and logits.dtype == torch.float32
    assert {p.dtype for p in halves.parameters()} == {torch.float32}
    assert settings_of(training)["precision"] == "bf16"


def test_without_half_precision_logits_are_what_the_model_gives():
    mine = model()
    mine.register_forward_hook(lambda block, given, made: made.float())
    training = begin(mine, TASK)
    batch = training.held_out
    assert training.forward(batch.source, batch.decoder_input).dtype == torch.float32


@pytest.mark.parametrize("kind", ["mps", "cuda", "xpu"])
def test_every_accelerators_generator_is_kept(kind, monkeypatch):
    """Played by a module that keeps a state, and is as strict about its arguments as the real."""
    device, kept = torch.device(kind, 0), [torch.zeros(2)]
    where = () if kind == "mps" else (device,)

    def get_rng_state(*given):
        assert given == where
        return kept[-1]

    def set_rng_state(state, *given):
        assert given == where
        kept.append(state)

    played = SimpleNamespace(get_rng_state=get_rng_state, set_rng_state=set_rng_state)
    monkeypatch.setattr(torch, "get_device_module", lambda device: played)
    before = generator_states(device)
    with seeded(1, device):
        set_rng_state(torch.ones(2), *where)  # something is drawn
    assert torch.equal(kept[-1], torch.zeros(2))
    set_generator_states(device, {**before, "device": torch.ones(2)})
    assert torch.equal(kept[-1], torch.ones(2))
