"""What must never happen: a lost run, a broken file believed, a bare traceback."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import load_file

from revtrans.data import ReversalTask
from revtrans.errors import FileError, InputValueError
from revtrans.files import UNFINISHED, load, peek_checkpoint, resumable_fit, save, write_file
from revtrans.model import Transformer, TransformerConfig, more_schemes

from .common import show

PROGRAM = [sys.executable, "-m", "revtrans"]
SIZES = {"symbols": "abcde", "max_length": 4, "d_model": 16, "n_heads": 2, "d_ff": 32}
# Of a size that takes some time to be written.
KILLED = {"symbols": "abcde", "max_length": 4, "d_model": 256, "d_ff": 512, "n_layers": 1}
RUN = [part for name, size in KILLED.items() for part in (f"--{name.replace('_', '-')}", str(size))]


def _train(folder: Path, *options: str) -> list[str]:
    return [*PROGRAM, "train", "--out", str(folder), "--every", "1", "--device", "cpu", *options]


def _end(folder: Path) -> dict:
    """All that must be equal at the end of a run: every tensor but the clock, and the model."""
    tensors = load_file(folder / "checkpoint.safetensors")
    del tensors["history.seconds"]
    return {
        "model": (folder / "model.safetensors").read_bytes(),
        "tensors": {name: hash(tensor.numpy().tobytes()) for name, tensor in tensors.items()},
    }


def _done(folder: Path) -> int:
    """How many steps the checkpoint holds; -1 if there is none yet."""
    path = folder / "checkpoint.safetensors"
    return peek_checkpoint(path)[1] if path.exists() else -1


def _unfinished(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(UNFINISHED)]


def _kill(folder: Path, steps: int, at: int, inside: bool) -> dict:
    """Start a training and kill it after step `at`; if `inside`, while a file is being written."""
    command = _train(folder, *RUN, "--steps", str(steps))
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **silent)
    while process.poll() is None and _done(folder) < at:
        time.sleep(0.001)
    while inside and process.poll() is None and not _unfinished(folder):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    return {"inside a write": bool(_unfinished(folder)), "ended before": process.returncode == 0}


def kills(rounds: int = 50, steps: int = 60, seed: int = 0) -> list[dict]:
    """SIGKILL a real training at random steps, every other time inside a write; go on; compare.

    A checkpoint is written after every step. Equal means: all tensors of the last checkpoint
    (weights, optimiser, generators, losses and measurements), and the bytes of the model.
    """
    chance, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        subprocess.run(_train(whole, *RUN, "--steps", str(steps)), check=True, capture_output=True)
        expected, names = _end(whole), sorted(os.listdir(whole))
        while len(rows) < rounds:
            folder, at = Path(scratch) / "killed", chance.randrange(steps // 2)
            row = {"kill": len(rows), **_kill(folder, steps, at, inside=len(rows) % 2 == 1)}
            if row["ended before"]:  # the machine was busy elsewhere: once more
                shutil.rmtree(folder)
                continue
            try:
                row |= {"at step": _done(folder), "readable": True}
            except FileError:
                row["readable"] = False
            again = subprocess.run(_train(folder), capture_output=True)
            row["equal"] = again.returncode == 0 and _end(folder) == expected
            row["left behind"] = len(set(os.listdir(folder)) - set(names))
            rows.append(row)
            print(row, flush=True)
            shutil.rmtree(folder)
    return rows


# Spoiling a file: from its content and a source of chance, another content.
def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8])):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _flip_in_header(content: bytes, chance: random.Random) -> bytes:
    end = 8 + int.from_bytes(content[:8], "little")
    return _flip(content[:end], chance) + content[end:]


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _grow(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + chance.randbytes(chance.choice([1, 8, 1000])) + content[place:]


def _noise(content: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice([0, 1, 8, 9, 1000]))


def _length(content: bytes, chance: random.Random) -> bytes:
    length = chance.choice([0, 1, 2**31, 2**63, 2**64 - 1, chance.randrange(len(content))])
    return length.to_bytes(8, "little") + content[8:]


def _described(content: bytes, chance: random.Random) -> bytes:
    """One value in the header is another, the file otherwise well-formed."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    values: list = [0, -1, 1, 3, 2**31, 10**10, 10**30, 0.5, "", "F64", "BF16", None, True, [], {}]
    name = chance.choice(sorted(header))
    if name == "__metadata__" and chance.random() < 0.8:
        about = json.loads(header[name]["revtrans"])
        about[chance.choice(sorted(about))] = chance.choice(values)
        header[name]["revtrans"] = json.dumps(about)
    key = chance.choice(sorted(header[name]))
    if name != "__metadata__" and key != "dtype" and chance.random() < 0.7:
        header[name][key] = list(header[name][key])
        if header[name][key]:
            header[name][key][chance.randrange(len(header[name][key]))] = chance.choice(values)
    elif chance.random() < 0.3:
        del header[name][key]
    else:
        header[name][key] = chance.choice(values)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[end:]


MUTATIONS = (_flip, _flip_in_header, _cut, _grow, _noise, _length, _described)


JUNK = [0, -1, 2, 3, 99, 10_000, 100_000, 10**30, 0.5, 1e999, "", "abc", None, True, [], {}, [[]]]


def _forged(path: Path, good: bytes, kind: str, chance: random.Random) -> None:
    """A file that is signed as it should be, and says something that cannot be."""
    about, tensors = _about(good), from_bytes(good)
    texts = {name: about[name] for name in about if name not in ("version", "kind", "digest")}
    name = chance.choice(sorted(texts))
    value = json.loads(texts[name])
    if chance.random() < 0.2:
        texts[name] = chance.choice(["", "{", "[]", "{}", "null", "[" * 10_000, '{"a": 1e999}'])
    elif chance.random() < 0.3:
        name = chance.choice(sorted(tensors))
        was = tensors[name]
        tensors[name] = chance.choice([was[None], was.half(), torch.zeros(0), torch.tensor(1.0)])
    elif not isinstance(value, dict):
        texts[name] = json.dumps(chance.choice(JUNK))
    else:
        value[chance.choice([*value, "other"])] = chance.choice([*JUNK, [0.5] * 3, [1e999] * 4])
        texts[name] = json.dumps(value)
    write_file(path, kind, tensors, **texts)


def _about(content: bytes) -> dict[str, str]:
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["revtrans"])


def _readers(folder: Path) -> dict[str, tuple[bytes, Callable[[Path], object]]]:
    """A good file of each kind, and what reads it."""
    model, task = Transformer(TransformerConfig(**SIZES)), ReversalTask("abcde", max_length=4)
    options = {"steps": 4, "batch_size": 4, "eval_every": 4, "eval_size": 4, "progress": False}
    save(model, folder / "model")
    resumable_fit(folder / "checkpoint", model, task, **options)

    def resume(path: Path) -> object:
        other = Transformer(TransformerConfig(**SIZES), 1)
        resumable_fit(path, other, task, **options)
        return other.state_dict()

    return {
        "model": ((folder / "model").read_bytes(), lambda path: load(path).state_dict()),
        "checkpoint": ((folder / "checkpoint").read_bytes(), resume),
    }


def files(n: int = 3000, seed: int = 0) -> list[dict]:
    """Read spoiled files: only FileError may come out, or the very tensors that were saved.

    Counts also what Python's audit events say of code that is run, and the memory at its peak.
    """
    chance, executed = random.Random(seed), []
    more_schemes()  # a name in a file would import them now, which is no code of the file's
    watching = [False]
    forbidden = ("exec", "compile", "os.system", "os.exec", "subprocess.Popen", "pickle.find_class")
    sys.addaudithook(
        lambda event, _: executed.append(event) if watching[0] and event in forbidden else None
    )
    counts = {kind: {"refused": 0, "equal": 0, "other": 0} for kind in ("model", "checkpoint")}
    slowest = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        readers = _readers(folder)
        good = {kind: read(folder / kind) for kind, (_, read) in readers.items()}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(n):
            kind = ("model", "checkpoint")[i % 2]
            content, read = readers[kind]
            path = folder / "spoiled"
            if chance.random() < 0.2:
                _forged(path, content, kind, chance)
            else:
                path.write_bytes(chance.choice(MUTATIONS)(content, chance))
            begin, watching[0] = time.perf_counter(), True
            try:
                found = read(path)
                same = all(torch.equal(found[name], tensor) for name, tensor in good[kind].items())
                counts[kind]["equal" if same else "other"] += 1
            except (FileError, InputValueError):  # the latter: a checkpoint of another training
                counts[kind]["refused"] += 1
            except Exception as error:
                counts[kind]["other"] += 1
                print(f"{kind}: {type(error).__name__}: {error}", flush=True)
            watching[0] = False
            slowest = max(slowest, time.perf_counter() - begin)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    rows = [{"kind": kind, "files": sum(of.values()), **of} for kind, of in counts.items()]
    total = {key: sum(row[key] for row in rows) for key in ("files", "refused", "equal", "other")}
    cost = {"code run": len(executed), "slowest s": slowest, "MiB more at peak": grown}
    rows.append({"kind": "all", **total, **cost})
    show([{key: row.get(key, "") for key in rows[-1]} for row in rows])
    return rows
