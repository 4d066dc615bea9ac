"""Several processes, several parts, half precision: what one process does alone."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import checks
import pytest
import torch
from safetensors.torch import load_file
from together import together

from revtrans import cli
from revtrans.data import ReversalTask
from revtrans.devices import (
    Shared,
    from_first,
    generator_states,
    in_group,
    is_first,
    largest,
    process_group,
    seeded,
    set_generator_states,
)
from revtrans.errors import InputValueError
from revtrans.files import peek_checkpoint, resumable_fit, settings_of
from revtrans.training import Training, begin, fit

ROOT = Path(__file__).parent.parent
TASK = ReversalTask("abcde", max_length=6)
OPTIONS = {"steps": 40, "batch_size": 8, "eval_every": 20, "eval_size": 20, "progress": False}


def model(double: bool = True, **sizes) -> torch.nn.Module:
    made = checks.tiny(max_length=6, **sizes)
    return made.double() if double else made


def losses_and_weights(double: bool = True, dropout: float = 0.0, **recipe) -> tuple:
    trained = model(double, dropout=dropout)
    history = fit(trained, TASK, **{**OPTIONS, **recipe})
    return history.loss, trained.state_dict(), history.exact_match


class Begun(Exception):
    def __init__(self, *given: object):
        super().__init__()
        self.given = given


@pytest.mark.parametrize(
    ("device", "backend"),
    [
        (None, "cpu:gloo,cuda:nccl"),
        ("cuda", "cpu:gloo,cuda:nccl"),
        ("cpu", "gloo"),
        ("cpu:0", "gloo"),
    ],
)
def test_processes_that_want_no_gpu_exchange_without_one(device, backend, monkeypatch):
    def begun(backend: str, **options) -> None:
        raise Begun(backend, options["device_id"])

    store = torch.distributed.HashStore()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("torch.distributed.is_torchelastic_launched", lambda: True)
    monkeypatch.setattr("torch.distributed.rendezvous", lambda url: iter([(store, 1, 2)]))
    monkeypatch.setattr("torch.distributed.init_process_group", begun)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.set_device", lambda device: None)
    monkeypatch.setattr("revtrans.errors.check_device", lambda device: None)
    with pytest.raises(Begun) as error, process_group(device):
        pass
    own = None if backend == "gloo" else torch.device("cuda:1")
    assert error.value.given == (backend, own)


class Unwrapped(Shared):
    """Goes through the model itself, and not through what is wrapped around it."""

    def __init__(self, training: Training):
        super().__init__(training)
        wrapper, self.forward = self.forward, self.forward.module
        self.forward.no_sync = wrapper.no_sync


def through_the_parts(unwrapped: bool) -> torch.Tensor:
    training = begin(model(), TASK, steps=5, batch_size=8)
    if unwrapped:
        training.backward = Unwrapped(training)
    for _ in range(5):
        training.step()
    return checks.weights(training.model)


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
        "wrapped": through_the_parts(unwrapped=False),
        "unwrapped": through_the_parts(unwrapped=True),
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


def test_the_gradients_go_through_the_wrapper(two):
    """Ranks that train through the model itself exchange nothing, and no error says so."""
    first, second = two
    assert torch.equal(first["wrapped"], second["wrapped"])
    assert not torch.allclose(first["unwrapped"], second["unwrapped"], atol=1e-3)


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


def test_the_second_device_is_made_for_its_own_checks_alone():
    assert not hasattr(torch, "second"), "it takes a C++ compiler, which not everybody has"


@pytest.mark.parametrize("parts", [3, 8])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(parts):
    losses, weights, _ = losses_and_weights(label_smoothing=0.1)
    ours = losses_and_weights(accumulate=parts, label_smoothing=0.1)
    torch.testing.assert_close(ours[0], losses, rtol=0, atol=1e-9)
    assert_same(ours[1], weights, 1e-9)


def test_a_mean_of_means_is_another_number():
    training = begin(model(), TASK, accumulate=4, batch_size=8)
    batch = TASK.sample(8, torch.Generator().manual_seed(3))
    whole = Training(model(), TASK, batch_size=8).backward(batch)
    assert abs(training.backward(batch) - whole) < 1e-12
    counts = [(batch.label_mask[part::4]).sum() for part in range(4)]
    assert len(set(map(int, counts))) > 1
    means = [
        training.loss(type(batch)(batch.source[part::4], batch.target[part::4]), training.model)
        for part in range(4)
    ]
    assert abs(sum(means) / 4 - whole) > 1e-3


def test_bf16_computes_products_in_half_and_nothing_else():
    seen = []
    halves = model(double=False)
    halves.decoder.layers[0].feed_forward.register_forward_hook(
        lambda block, given, made: seen.append(made.dtype)
    )
    training = begin(halves, TASK, precision="bf16", batch_size=8)
    training.step()
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in halves.parameters()} == {torch.float32}
    batch = TASK.sample(8, torch.Generator().manual_seed(3))
    logits = training.backward.forward(batch.source, batch.decoder_input)
    assert logits.dtype == torch.float32
    assert settings_of(training)["precision"] == "bf16"
    assert settings_of(begin(model(), TASK))["precision"] == "fp32"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"accumulate": 0}, "accumulate must be a whole number of at least 1, not 0"),
        ({"accumulate": 9}, "accumulate must be at most 8, not 9"),
        ({"precision": "fp16"}, r"precision must be one of \['fp32', 'bf16'\], not 'fp16'"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(change, message):
    with pytest.raises(InputValueError, match=message):
        fit(model(), TASK, **OPTIONS, **change)


def test_a_group_of_one_process_is_nothing_special():
    with process_group():
        assert not in_group() and is_first()
    assert from_first("x") == "x" and largest(3, torch.device("cpu")) == 3


@pytest.mark.parametrize("kind", ["mps", "cuda", "xpu"])
def test_every_accelerators_generator_is_kept(kind, monkeypatch):
    """Played by a module that keeps a state, and is as strict about its arguments as the real."""
    kept, where = {"state": torch.zeros(2)}, () if kind == "mps" else (torch.device(kind, 0),)

    def get_rng_state(*given):
        assert given == where
        return kept["state"]

    def set_rng_state(state, *given):
        assert given == where
        kept["state"] = state

    played = SimpleNamespace(get_rng_state=get_rng_state, set_rng_state=set_rng_state)
    monkeypatch.setattr(torch, "get_device_module", lambda device: played)
    device = torch.device(kind, 0)
    before = generator_states(device)
    with seeded(1, device):
        kept["state"] = torch.ones(2)
        drawn = torch.rand(3)
    assert torch.equal(kept["state"], torch.zeros(2))
    assert torch.equal(torch.get_rng_state(), before["global"])
    with seeded(1, device):
        assert torch.equal(torch.rand(3), drawn)
    set_generator_states(device, {**before, "device": torch.ones(2)})
    assert torch.equal(kept["state"], torch.ones(2))


def test_torchrun_trains_as_one_process_does(tmp_path, capsys, monkeypatch):
    sizes = ["--symbols", "abc", "--max-length", "3", "--d-model", "8", "--n-heads", "2"]
    options = ["train", *sizes, "--d-ff", "8", "--steps", "20", "--device", "cpu", "--out"]
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*run, "-m", "revtrans", *options, "two"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    assert cli.main([*options, "one"]) == 0
    printed = {"two": done.stdout, "one": capsys.readouterr().out}
    shown = {name: text.replace(name, "DIR").splitlines() for name, text in printed.items()}
    assert len(shown["two"]) == len(shown["one"]) == 3, "one process prints"
    assert shown["two"][1:] == shown["one"][1:]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in shown)
    assert_same(one, two, 1e-5, but="key.bias")


def of_two(script: Path) -> subprocess.CompletedProcess:
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(run, capture_output=True, text=True, cwd=script.parent, env=environment)


def test_no_process_ends_before_the_first_has_written(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("""
import time
from datetime import timedelta
from pathlib import Path
from revtrans import devices
from revtrans.devices import is_first, process_group

devices.PATIENCE = timedelta(seconds=2)
with process_group("cpu"):
    first = is_first()
    if first:
        time.sleep(4)  # writing takes longer than the others' patience with each other
        Path("written").touch()
if not first:
    print(Path("written").exists())
""")
    done = of_two(script)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_nobody_waits_for_a_first_that_fails(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("""
import signal
from revtrans.devices import is_first, process_group

signal.signal(signal.SIGTERM, lambda *_: None)  # noted, so that torchrun's does not end the wait
with process_group("cpu"):
    if is_first():
        raise OSError("the disk is full")
""")
    done = of_two(script)
    assert done.returncode == 1 and done.stderr.count("OSError: the disk is full") == 1
    assert "SIGKILL" not in done.stderr, "the other was still waiting after half a minute"
