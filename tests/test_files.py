"""Files: whole or not there at all, and nothing is believed that does not fit."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import checks
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from revtrans.errors import FileError, InputTypeError, InputValueError
from revtrans.files import DTYPES, load, read_file, save, write_file


@pytest.mark.parametrize(
    "changes", [{}, {"tied": False}, {"positions": "learned"}, {"symbols": "ñ😀 ", "dropout": 0.5}]
)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, changes):
    model, path = checks.tiny(3, **changes), tmp_path / "model.safetensors"
    save(model.train(), path)
    again = load(path)
    assert again.config == model.config and not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in again.state_dict().items())
    batch = checks.reversal_batch(model.vocab, [model.vocab.symbols])
    logits = (m(batch.source, batch.decoder_input) for m in (model.eval(), again))
    assert torch.equal(*logits)


def test_the_file_is_data_only(tmp_path):
    path = tmp_path / "model.safetensors"
    save(checks.tiny(), path)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["revtrans"])
    assert json.loads(about["config"])["symbols"] == "abcde"
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert {entry["dtype"] for name, entry in header.items() if name[:2] != "__"} == {"F32"}
    assert list(tmp_path.iterdir()) == [path]


def test_saving_replaces_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    for seed in (0, 1):
        save(checks.tiny(seed), str(path))
    assert torch.equal(checks.weights(load(path)), checks.weights(checks.tiny(1)))


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_whole_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "model.safetensors"
    save(checks.tiny(0), path)
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(
        FileError, match=r"cannot write .*model.safetensors: No space left on device"
    ):
        save(checks.tiny(1), path)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


def test_a_disk_that_is_really_full_leaves_the_old_file(tmp_path):
    """The system refuses to let any file grow above 20 kB; the model needs more."""
    path = tmp_path / "model.safetensors"
    save(checks.tiny(0), path)
    before = path.read_bytes()
    assert len(before) > 25_000
    code = """
import resource, signal, sys
from revtrans.files import FileError, save
from revtrans.model import Transformer, TransformerConfig
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save(Transformer(TransformerConfig()), sys.argv[1])
except FileError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.stdout == f"cannot write {path}: File too large\n", done.stderr
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write")
def test_a_read_only_folder_is_one_clear_error():
    with pytest.raises(FileError, match=r"cannot write /proc/self/model\.safetensors: "):
        save(checks.tiny(), "/proc/self/model.safetensors")


def test_only_a_whole_file_is_ever_seen(tmp_path, monkeypatch):
    """At the moment of the move the new file is complete, and on the disk."""
    path, synced, replace = tmp_path / "model.safetensors", [], os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))

    def look(source, target):
        assert Path(source).parent == tmp_path, "a move between folders is none"
        assert synced == [Path(source).stat().st_size] and load(source).config.d_model == 16
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    save(checks.tiny(), path)
    assert path.exists() and len(synced) == 2, "file and folder"


def header(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(path: Path, changed: dict, data: bytes) -> None:
    text = json.dumps(changed).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_every_text_and_every_number_is_signed(tmp_path):
    path = tmp_path / "model.safetensors"
    save(checks.tiny(symbols="abc", d_model=4, d_ff=4, n_layers=1), path)
    described, data = header(path)
    about = described["__metadata__"]["revtrans"]
    assert about.count("abc") == 1
    changed = {"revtrans": about.replace("abc", "acb")}
    with_header(path, {**described, "__metadata__": changed}, data)
    with pytest.raises(FileError, match="is damaged"):
        load(path)
    for place in range(0, len(data), 7):
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
        ({"version": "2"}, "has version 2 of the format; this revtrans reads 1"),
        ({"kind": "checkpoint"}, "is a checkpoint, not a model"),
        ({"version": None}, "was not saved by revtrans"),
        ({"version": "0"}, "has version 0 of the format"),
        ({"note": [1]}, "was not saved by revtrans"),
    ],
)
def test_version_and_kind_are_named(tmp_path, change, reason):
    path = tmp_path / "model.safetensors"
    save(checks.tiny(), path)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["revtrans"])
    changed = {"revtrans": json.dumps({**about, **change})}
    save_file(checks.tiny().state_dict(), path, changed)
    with pytest.raises(FileError, match=reason):
        load(path)


@pytest.mark.parametrize("about", ["", "{", "[]", "5", "null", "[" * 100_000, '{"version": 1}'])
def test_a_header_that_says_nothing_is_refused(tmp_path, about):
    path = tmp_path / "model.safetensors"
    save_file(checks.tiny().state_dict(), path, {"revtrans": about})
    with pytest.raises(FileError, match=r"was not saved by revtrans|has version"):
        load(path)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save(checks.tiny(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_header_that_declares_10_gb_costs_no_memory(tmp_path):
    path = tmp_path / "model.safetensors"
    save(checks.tiny(), path)
    described, data = header(path)
    described["embedding.weight"] = {
        "dtype": "F32",
        "shape": [2_500_000_000],
        "data_offsets": [0, 10_000_000_000],
    }
    with_header(path, described, data[:200])
    with pytest.raises(FileError, match=r"embedding.weight is \('F32', \(2500000000,\)\), not"):
        load(path)


@pytest.mark.parametrize("offsets", [[-8, 0], [0, 10**18], [10**18, 10**18 + 16], [8, 0]])
def test_data_outside_of_the_file_is_refused(tmp_path, offsets):
    path = tmp_path / "x"
    write_file(path, "demo", {"x": torch.zeros(4)})
    described, data = header(path)
    described["x"]["data_offsets"] = offsets
    with_header(path, described, data)
    with pytest.raises(FileError, match="is not a whole safetensors file"):
        read_file(path, "demo", lambda about: {"x": torch.zeros(4)})


@pytest.mark.parametrize("size", [{"d_model": 10_000, "n_layers": 100}, {"d_ff": 100_000}])
def test_a_giant_configuration_is_refused_by_its_shapes(tmp_path, size):
    """The file is signed as it should be; built, the model would not fit into the memory."""
    path, model = tmp_path / "model.safetensors", checks.tiny()
    config = {"symbols": "abcde", "max_length": 8, "n_heads": 2, **size}
    write_file(path, "model", model.state_dict(), config=json.dumps(config))
    with pytest.raises(FileError, match=r"does not fit its configuration: .* is .*, not .*more"):
        load(path)


def test_a_tensor_of_another_type_is_refused(tmp_path):
    path, model = tmp_path / "model.safetensors", checks.tiny()
    config = json.dumps(vars(model.config))
    write_file(path, "model", model.double().state_dict(), config=config)
    with pytest.raises(FileError, match="F64"):
        load(path)


def test_every_type_that_can_be_written_can_be_read(tmp_path):
    tensors = {str(dtype): torch.ones(2, 3).to(dtype).T for dtype in DTYPES}
    write_file(tmp_path / "x", "demo", tensors)
    _, found = read_file(tmp_path / "x", "demo", lambda about: tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("wrong", [torch.zeros(2).cfloat(), torch.eye(2).to_sparse()])
def test_a_tensor_that_could_not_be_read_is_not_written(tmp_path, wrong):
    with pytest.raises(InputTypeError, match=r"x must be a tensor of torch\.float64, .*, and is"):
        write_file(tmp_path / "x", "demo", {"x": wrong})
    assert not list(tmp_path.iterdir())


def test_a_link_stays_a_link_and_long_names_are_written(tmp_path):
    model, other = checks.tiny(), checks.tiny(1)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "model")
    for one in (model, other):
        save(one, tmp_path / "link")
        assert (tmp_path / "link").is_symlink() and same(load(tmp_path / "disk" / "model"), one)
    assert [file.name for file in (tmp_path / "disk").iterdir()] == ["model"]
    long = tmp_path / ("ñ" * 120)
    save(model, long)
    assert same(load(long), model)
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(FileError, match="cannot write"):
        save(model, tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "gone" / "model")
    with pytest.raises(FileError, match=f"there is no folder {tmp_path / 'gone'}"):
        save(model, tmp_path / "c")


def same(ours, theirs) -> bool:
    return torch.equal(checks.weights(ours), checks.weights(theirs))


def test_what_follows_the_tensors_is_not_read(tmp_path):
    path = tmp_path / "model"
    save(checks.tiny(), path)
    with open(path, "ab") as file:
        file.truncate(path.stat().st_size + 10**9)  # a hole: it takes no room on the disk
    code = f"""
import resource
from revtrans.errors import FileError
from revtrans.files import load
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load({str(path)!r})
except FileError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200_000, "kB"


@pytest.mark.parametrize("spoil, said", [("double", "torch.float64"), ("nan", "not finite")])
def test_a_model_that_could_not_be_believed_is_not_saved(tmp_path, spoil, said):
    model = checks.tiny()
    if spoil == "double":
        model.double()
    else:
        model.embedding.weight.data[0, 0] = torch.nan
    with pytest.raises(InputValueError, match=f"embedding.weight is {said}"):
        save(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_layers_that_share_their_weights_are_saved(tmp_path):
    model = checks.tiny()
    model.encoder.layers[1] = model.encoder.layers[0]
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_whatever_ends_a_write_leaves_nothing_behind(tmp_path, monkeypatch, error):
    save(checks.tiny(), tmp_path / "m")

    def end(*arguments):
        raise error

    monkeypatch.setattr(os, "fsync", end)
    with pytest.raises(error):
        save(checks.tiny(1), tmp_path / "m")
    assert list(tmp_path.iterdir()) == [tmp_path / "m"]
    assert torch.equal(checks.weights(load(tmp_path / "m")), checks.weights(checks.tiny()))


def test_writers_at_the_same_time_do_not_get_in_each_others_way(tmp_path):
    """Each writes its own number many times; whoever reads meanwhile finds one of them, whole."""
    path, sizes, faults, over = tmp_path / "x", range(1, 5), [], threading.Event()

    def numbers(n: int) -> dict[str, torch.Tensor]:
        return {"x": torch.full((20_000,), float(n))}

    def guarded(work):
        try:
            work()
        except Exception as error:
            faults.append(error)

    def write(n: int) -> None:
        for _ in range(20):
            write_file(path, "demo", numbers(n), n=str(n))

    def read() -> None:
        while not over.is_set():
            about, found = read_file(path, "demo", lambda about: numbers(1))
            assert torch.equal(found["x"], numbers(int(about["n"]))["x"])

    write(1)
    reader = threading.Thread(target=guarded, args=(read,))
    writers = [threading.Thread(target=guarded, args=(lambda n=n: write(n),)) for n in sizes]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    reader.join()
    assert not faults and list(tmp_path.iterdir()) == [path]


class Bytes(os.PathLike):
    def __fspath__(self) -> bytes:
        return b"x"


@pytest.mark.parametrize("path", ["5", "b'x'", "BYTES", "None"])
def test_a_path_is_text(plain, path):
    given = {"BYTES": Bytes()}.get(path) or eval(path)
    model = plain.model.Transformer(plain.model.TransformerConfig())
    for call in (lambda: plain.files.save(model, given), lambda: plain.files.load(given)):
        with pytest.raises(plain.errors.InputTypeError, match="a path must be a string or a Path"):
            call()


def test_a_path_that_the_reader_could_not_take_is_not_written(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    for call in (lambda: save(checks.tiny(), path), lambda: load(path)):
        with pytest.raises(InputValueError, match="a path must be valid UTF-8, not"):
            call()
    assert not list(tmp_path.iterdir())
