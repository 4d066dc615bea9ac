"""What takes too long for every commit: more processes, every scheme, failures and signals.

Run by .ci/full: `pytest tests/devices_in_full.py`.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_devices import TASK, assert_same, losses_and_weights
from together import together

from revtrans.files import peek_checkpoint
from revtrans.model import Transformer, TransformerConfig, more_schemes
from revtrans.training import fit

ROOT = Path(__file__).parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SIZES = ["--symbols", "abc", "--max-length", "4", "--d-model", "16", "--n-heads", "2"]
TRAIN = ["train", *SIZES, "--d-ff", "32", "--device", "cpu", "--every", "5"]
# The program, but for the process of one rank, in which each training step first does something.
SPOILED = """
import os, sys, time
from revtrans import cli, training
from revtrans.errors import RevtransError
from revtrans.training import Training
step = Training.step
def spoiled(self):
    time.sleep(0.02)
    if os.environ["RANK"] == os.environ["SPOILED"] and len(self.history.loss) == 7:
        {}
    step(self)
Training.step = spoiled
sys.exit(cli.main())
"""


def all_schemes() -> dict:
    names = ["sinusoidal", "learned", *more_schemes()]
    options = {"steps": 10, "batch_size": 8, "eval_every": 10, "progress": False}
    found = {}
    for name in names:
        sizes = {"d_model": 16, "n_heads": 2, "d_ff": 32, "n_layers": 1, "positions": name}
        model = Transformer(TransformerConfig("abcde", max_length=6, **sizes)).double()
        fit(model, TASK, **options)
        found[name] = model.state_dict()
    return found


def run(folder: Path, *options: str, program: str = "", spoiled: int = -1):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["SPOILED"] = str(spoiled)
    (folder / "program.py").write_text(SPOILED.format(program or "pass"))
    ours = ["program.py"] if program else ["-m", "revtrans"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [*TORCHRUN, *ours, *TRAIN, *options], cwd=folder, env=environment, **pipes
    )


def ours(stderr: str) -> list[str]:
    """What the program itself said; a line may begin behind another process's bar."""
    return re.findall("revtrans: .*", stderr)


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_does_what_one_does(processes):
    losses, weights, exact = losses_and_weights(steps=100)
    for theirs in together(processes, hundred_steps):
        assert theirs[2] == exact
        torch.testing.assert_close(theirs[0], losses, rtol=0, atol=1e-9)
        assert_same(theirs[1], weights, 1e-9)


def hundred_steps() -> tuple:
    return losses_and_weights(steps=100)


def test_every_scheme_trains_in_two_processes():
    alone = all_schemes()
    for theirs in together(2, all_schemes):
        for name, weights in alone.items():
            assert_same(theirs[name], weights, 1e-9)


@pytest.mark.parametrize(
    "spoiled, program, said",
    [
        (0, "raise RevtransError('the first fails')", "revtrans: error: the first fails"),
        (1, "raise RevtransError('the second fails')", "revtrans: error: the second fails"),
        (1, "os.kill(os.getpid(), 9)", "revtrans: error: another process of this training"),
    ],
)
def test_a_failure_of_one_ends_all_with_one_line(tmp_path, spoiled, program, said):
    start = time.perf_counter()
    process = run(tmp_path, "--out", "d", "--steps", "50", program=program, spoiled=spoiled)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert len(ours(stderr)) == 1 and ours(stderr)[0].startswith(said), stderr
    assert peek_checkpoint(tmp_path / "d" / "checkpoint.safetensors")[1] == 5
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize("options", [["--d-model", "15"], ["--seed", "1"]])
def test_bad_input_is_refused_in_one_line(tmp_path, options):
    run(tmp_path, "--out", "d", "--steps", "5").communicate(timeout=120)
    process = run(tmp_path, "--out", "d", "--steps", "5", *options)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1 and len(ours(stderr)) == 1, stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_keeps_a_checkpoint_from_which_all_go_on(tmp_path, name):
    whole = run(tmp_path, "--out", "whole", "--steps", "60")
    stdout, stderr = whole.communicate(timeout=120)
    assert whole.returncode == 0, stderr
    assert stdout.count("trained 60 steps") == 1 and stdout.count("\n") == 3, "one process prints"
    process = run(tmp_path, "--out", "d", "--steps", "60", program="pass")
    kept = tmp_path / "d" / "checkpoint.safetensors"
    while not kept.exists() or peek_checkpoint(kept)[1] < 10:
        time.sleep(0.01)
    time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    _, stderr = process.communicate(timeout=60)
    assert ours(stderr) == ["revtrans: interrupted"], stderr
    assert "steps; the same command goes on" in stderr
    assert 10 <= peek_checkpoint(kept)[1] < 60
    again = run(tmp_path, "--out", "d", "--steps", "60")
    again.communicate(timeout=120)
    assert again.returncode == 0
    for file in ("model.safetensors", "checkpoint.safetensors"):
        first, second = (load_file(tmp_path / folder / file) for folder in ("whole", "d"))
        assert all(torch.equal(first[n], second[n]) for n in first if n != "history.seconds")


def of_two(folder: Path, program: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    (folder / "train.py").write_text(program)
    options = {"capture_output": True, "text": True, "cwd": folder, "env": environment}
    return subprocess.run([*TORCHRUN, "train.py"], **options)


def test_no_process_ends_before_the_first_has_written(tmp_path):
    done = of_two(
        tmp_path,
        """
import time
from datetime import timedelta
from pathlib import Path

import torch
from revtrans import devices
from revtrans.devices import is_first, process_group

devices.PATIENCE = timedelta(seconds=2)
torch.cuda.is_available = lambda: True  # whoever wants no GPU does not look for one
with process_group("cpu"):
    first = is_first()
    if first:
        time.sleep(4)  # writing takes longer than the others' patience with each other
        Path("written").touch()
if not first:
    print(Path("written").exists())
""",
    )
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_nobody_waits_for_a_first_that_fails(tmp_path):
    done = of_two(
        tmp_path,
        """
import signal
from revtrans.devices import is_first, process_group

signal.signal(signal.SIGTERM, lambda *_: None)  # noted, so that torchrun's does not end the wait
with process_group("cpu"):
    if is_first():
        raise OSError("the disk is full")
""",
    )
    assert done.returncode == 1 and done.stderr.count("OSError: the disk is full") == 1
    assert "SIGKILL" not in done.stderr, "the other was still waiting after half a minute"
