"""Files: whole or not there at all, and nothing is believed that does not fit."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import checks
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from revtrans import files
from revtrans.errors import FileError, InputValueError
from revtrans.files import UNFINISHED, check_path, load, save, write_file

TESTS = Path(__file__).parent


def same(ours, theirs) -> bool:
    return torch.equal(checks.weights(ours), checks.weights(theirs))


@pytest.fixture
def path(tmp_path) -> Path:
    save(checks.tiny(), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "changes", [{}, {"tied": False}, {"positions": "learned"}, {"symbols": "ñ😀 ", "dropout": 0.5}]
)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, changes):
    model = checks.tiny(3, **changes)
    save(model.train(), str(tmp_path / "model"))
    again = load(tmp_path / "model")
    assert again.config == model.config and not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in again.state_dict().items())
    first = (tmp_path / "model").read_bytes()
    save(again, tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == first, "the same model gives the same bytes"


def test_a_model_saved_by_0_1_gives_the_logits_that_it_gave_there():
    model = load(TESTS / "saved_by_0_1.safetensors")
    batch = checks.reversal_batch(model.vocab, ["abc"])
    expected = [  # of bos, c, b, a; by revtrans 0.1
        [1.26617, 1.62294, -0.25751, 0.31081, -0.42430, -0.21831],
        [1.92233, 1.26138, 0.35163, 1.20817, -0.55457, 0.73366],
        [-1.56861, 0.77660, 0.05231, -1.06239, -0.08763, -0.82200],
        [2.13375, 1.64069, 0.05394, 1.06085, -0.58111, 0.42358],
    ]
    logits = model(batch.source, batch.decoder_input)[0]
    torch.testing.assert_close(logits, torch.tensor(expected), rtol=0, atol=2e-5)


def test_what_0_1_saved_and_nobody_can_read_is_refused_by_name(path, monkeypatch):
    model = checks.tiny()
    config = json.dumps({**vars(model.config), "positions": "randomised"})
    write_file(path, "model", model.state_dict(), config=config)
    with pytest.raises(FileError, match=r"positions must be one of .*, not 'randomised'"):
        load(path)
    monkeypatch.setitem(files.VERSIONS, "checkpoint", "1")
    write_file(path, "checkpoint", {})
    monkeypatch.undo()
    with pytest.raises(FileError, match=r"a checkpoint of version 1 .*; this revtrans reads 2"):
        files.peek_checkpoint(path)
    with pytest.raises(FileError, match="is not a model, but a checkpoint"):
        load(path)


def test_layers_that_share_their_weights_are_saved(path):
    model = checks.tiny()
    model.encoder.layers[1] = model.encoder.layers[0]
    save(model, path)
    loaded = load(path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "spoil", [lambda m: m.double(), lambda m: m.embedding.weight.data.fill_(torch.nan)]
)
def test_a_model_that_could_not_be_believed_is_not_saved(tmp_path, spoil):
    model = checks.tiny()
    spoil(model)
    with pytest.raises(InputValueError, match="only finite float32 numbers are saved"):
        save(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


# Writing


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_whatever_ends_a_write_leaves_the_old_file_and_nothing_else(
    path, monkeypatch, failing, error
):
    before = path.read_bytes()

    def fail(*arguments):
        raise error

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(FileError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        save(checks.tiny(1), path)
    if isinstance(error, OSError):
        assert str(caught.value) == f"cannot write {path}: No space left on device"
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == before


def test_only_a_whole_file_is_ever_seen(path, monkeypatch):
    """At the moment of the move the new file is complete, and on the disk, in the same folder."""
    synced, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))

    def look(source, target):
        assert Path(source).parent == path.parent
        assert synced == [Path(source).stat().st_size] and same(load(source), checks.tiny(1))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    save(checks.tiny(1), path)
    assert same(load(path), checks.tiny(1)) and len(synced) == 2, "file and folder"


def test_what_killed_writers_left_is_removed_at_the_next_save(path):
    """And what a living writer is at work on is not: whoever saves waits for it."""
    code = f"""
import os, sys
from pathlib import Path
from revtrans.files import alone_in
with alone_in(Path({str(path.parent)!r})):
    Path({str(path.parent / UNFINISHED)!r} + "0").write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    writer = subprocess.Popen([sys.executable, "-c", code], cwd=TESTS.parent, **pipes)
    assert writer.stdout.readline() == b"writing\n"
    saver = threading.Thread(target=save, args=(checks.tiny(1), path))
    saver.start()
    saver.join(0.2)
    assert saver.is_alive() and len(list(path.parent.iterdir())) == 2
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    saver.join(60)
    assert list(path.parent.iterdir()) == [path] and same(load(path), checks.tiny(1))


# Paths


def test_permissions_stay_and_links_stay_links(path):
    path.chmod(0o600)
    link, long = path.with_name("link"), path.with_name("ñ" * 120)
    link.symlink_to(path)
    for target in (link, long):
        save(checks.tiny(1), target)
        assert same(load(target), checks.tiny(1))
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert same(load(path), checks.tiny(1))


def test_only_regular_files_or_nothing_may_be_replaced(path):
    folder = path.parent
    os.mkfifo(folder / "fifo")
    (folder / "sealed").touch(0o444)
    links = {"dangling": "gone/model", "device": os.devnull, "circle": "circle", "pipe": "fifo"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    reasons = {
        os.devnull: "not a regular file",
        folder / "fifo": "not a regular file",
        folder / "pipe": "not a regular file",
        folder / "device": "not a regular file",
        folder / "sealed": "read-only",
        folder / "circle": "circle|[Ll]oop",
        folder / "dangling": f"there is no folder {folder / 'gone'}",
        folder / "no" / "such": f"there is no folder {folder / 'no'}",
        folder: "it is a folder",
        "": "it is a folder",
        f"{folder}/a\0b": "null",
    }
    before = sorted(os.listdir(folder))
    for given, reason in reasons.items():
        with pytest.raises(FileError, match=f"cannot write .*({reason})"):
            save(checks.tiny(), given)
    with pytest.raises(InputValueError, match="a path must be valid UTF-8, not"):
        save(checks.tiny(), os.fsdecode(os.fsencode(folder) + b"/\xff"))
    assert sorted(os.listdir(folder)) == before and stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert check_path(path) == path.resolve()


# Reading


def header(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(path: Path, changed: dict, data: bytes) -> None:
    text = json.dumps(changed).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_every_text_and_every_number_is_signed(tmp_path):
    path = tmp_path / "model"
    save(checks.tiny(symbols="abc", d_model=4, d_ff=4, n_layers=1), path)
    described, data = header(path)
    about = described["__metadata__"]["revtrans"]
    assert about.count("abc") == 1
    changed = {"revtrans": about.replace("abc", "acb")}
    with_header(path, {**described, "__metadata__": changed}, data)
    with pytest.raises(FileError, match="is damaged"):
        load(path)
    for place in range(0, len(data), 29):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with_header(path, described, bytes(damaged))
        with pytest.raises(FileError, match="is damaged"):
            load(path)
    with_header(path, described, data)
    load(path)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"version": "2"}, "is a model of version 2 of the format; this revtrans reads 1"),
        ({"kind": "checkpoint"}, "is not a model, but a checkpoint"),
        ({"version": None}, "was not saved by revtrans"),
        ({"kind": "\x1b[2J" + "x" * 10**6}, r"but a \\x1b\[2Jx{200,300}…$"),
        ({"version": "\n" * 400}, r"version (\\n){149}"),
    ],
)
def test_version_and_kind_are_named_escaped_and_bounded(path, change, reason):
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["revtrans"])
    save_file(checks.tiny().state_dict(), path, {"revtrans": json.dumps({**about, **change})})
    with pytest.raises(FileError, match=reason) as caught:
        load(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("about", ["", "{", "[]", "5", "null", "[" * 100_000, '{"version": 1}'])
def test_a_header_that_says_nothing_is_refused(path, about):
    save_file(checks.tiny().state_dict(), path, {"revtrans": about})
    with pytest.raises(FileError, match=r"was not saved by revtrans"):
        load(path)


@pytest.mark.parametrize("size", [{"d_model": 10_000, "n_layers": 100}, {"d_ff": 100_000}])
def test_a_giant_configuration_is_refused_by_its_shapes(path, size):
    """The file is signed as it should be; built, the model would not fit into the memory."""
    config = json.dumps({"symbols": "abcde", "max_length": 8, "n_heads": 2, **size})
    write_file(path, "model", checks.tiny().state_dict(), config=config)
    with pytest.raises(FileError, match=r"does not fit its configuration: .* is .*, not "):
        load(path)


def test_a_small_file_whose_model_would_write_for_minutes_is_refused(path):
    model = checks.tiny()
    longer = json.dumps({**vars(model.config), "max_length": 100_000})
    write_file(path, "model", model.state_dict(), config=longer)
    with pytest.raises(FileError, match=r"max_length must be at most 10,000, not 100000"):
        load(path)


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (
            lambda state: state["embedding.weight"].double(),
            "is torch.float64 .*, not torch.float32",
        ),
        (lambda state: state["embedding.weight"] * torch.nan, "numbers that are not finite: embed"),
        (lambda state: state["embedding.weight"] / 0, "numbers that are not finite: embed"),
    ],
)
def test_a_well_signed_file_of_other_numbers_is_refused(path, spoil, reason):
    model = checks.tiny()
    tensors = {**model.state_dict(), "embedding.weight": spoil(model.state_dict())}
    write_file(path, "model", tensors, config=json.dumps(vars(model.config)))
    with pytest.raises(FileError, match=reason):
        load(path)


@pytest.mark.parametrize("lie", ["a hole of 1 GB after the tensors", "a header of 90 MB"])
def test_a_bad_file_costs_little_memory(path, lie):
    with open(path, "r+b") as file:
        if lie.startswith("a header"):
            file.write((90 * 10**6).to_bytes(8, "little") + b"[" + b"1," * (45 * 10**6))
        file.truncate(path.stat().st_size + 10**9)  # a hole takes no room on the disk
    code = f"""
import resource
from revtrans.files import FileError, load
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load({str(path)!r})
except FileError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000, "kB"
