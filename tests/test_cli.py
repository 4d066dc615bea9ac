"""The four commands: what they write, how they fail, how they end."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from revtrans import cli
from revtrans import files as saving

SCRIPT = Path(sys.executable).with_name("revtrans")
SIZES = ["--max-length", "3", "--d-model", "8", "--n-heads", "2", "--d-ff", "8", "--n-layers", "1"]
TINY = ["--symbols", "abc", *SIZES, "--steps", "2", "--device", "cpu"]
COMMON = {"-h, --help", "--device DEVICE"}
TRAINING = {"--out DIR", "--steps N", "--seed N"}
OPTIONS = {
    "demo": COMMON | TRAINING | {"TEXT"},
    "train": COMMON
    | TRAINING
    | {"--symbols SYMBOLS", "--positions POSITIONS", "--max-length N", "--d-model N"}
    | {"--n-heads N", "--d-ff N", "--n-layers N", "--every N", "--resume"},
    "reverse": COMMON | {"MODEL", "TEXT", "--beam BEAM"},
    "map": COMMON | {"MODEL", "TEXT", "--out FILE"},
}


@pytest.fixture
def saved(trained, tmp_path) -> str:
    path = tmp_path / "trained.safetensors"
    saving.save(trained, path)
    return str(path)


def assert_picture(path: Path) -> None:
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = plt.imread(path)
    assert min(pixels.shape[:2]) >= 200 and pixels[..., :3].std() > 0.05


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_train_reverse_and_map_follow_on_each_other(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    model, picture = out / "model.safetensors", out / "map.png"
    assert cli.main(["train", "--out", str(out), *TINY]) == 0
    shown = capsys.readouterr().out
    assert "trained 2 steps on cpu" in shown
    assert f"wrote {model}" in shown and f"wrote {out / 'training.png'}" in shown
    assert files(out) == ["checkpoint.safetensors", "model.safetensors", "training.png"]
    assert_picture(out / "training.png")
    assert saving.load(model).config.d_model == 8

    assert cli.main(["reverse", str(model), "abc", "", "c"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert cli.main(["map", str(model), "abc", "--out", str(picture)]) == 0
    assert f"wrote {picture}" in capsys.readouterr().out
    assert_picture(picture)
    assert not plt.get_fignums(), "every figure is closed"


def test_the_demo_writes_a_model_and_two_pictures_and_says_where(tmp_path, capsys):
    assert cli.main(["demo", "xyz", "--steps", "5", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert files(tmp_path) == ["attention.png", "model.safetensors", "training.png"]
    for name in files(tmp_path):
        assert f"wrote {tmp_path / name}" in shown
    assert re.findall(r"^  (\w+) → ", shown, re.M) == [
        *("abcd", "hola", "attention", "transformer"),
        "xyz",
    ]
    for name in ("attention.png", "training.png"):
        assert_picture(tmp_path / name)


@pytest.mark.parametrize("beam", ["1", "3"])
def test_a_trained_model_reverses_on_the_command_line(saved, capsys, beam):
    assert cli.main(["reverse", saved, "abc", "", "edcba", "--beam", beam]) == 0
    assert capsys.readouterr().out == "cba\n\nabcde\n"


def test_the_map_is_that_of_the_best_head(saved, tmp_path, capsys):
    assert cli.main(["map", saved, "abcde", "--out", str(tmp_path / "m.png")]) == 0
    score = float(re.search(r"anti-diagonal score (\d\.\d\d)", capsys.readouterr().out)[1])
    assert score > 0.5


@pytest.mark.parametrize("command", OPTIONS)
def test_help_explains_every_argument(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    explained = dict(re.findall(r"^  (\S.*?)(?:  +|\n {10,})(\S.*)$", shown, re.M))
    assert ended.value.code == 0
    assert {name for name, text in explained.items() if re.search("[a-z]{3}", text)} == (
        OPTIONS[command]
    )


def test_help_lists_commands_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"\n    {command} " in shown for command in OPTIONS)
    assert all(
        code in shown for code in ("0 success", "1 error", "2 wrong usage", "130 Ctrl-C", "143 SIG")
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["train"],
        ["reverse"],
        ["reverse", "model"],
        ["map", "model"],
        ["demo", "--steps", "many"],
        ["demo", "--wat"],
    ],
)
def test_wrong_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2 and "usage: revtrans" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ("demo Hola --out {new}", "'H' (position 0) is not in the vocabulary"),
        ("demo abcdefghijklmnopq --out {new}", "17 symbols; this model reads at most 16"),
        ("demo --steps 0 --out {new}", "steps must be a whole number of at least 1, not 0"),
        ("demo --device gpu --out {new}", "'gpu' is not usable here"),
        ("train --out {new} --symbols aa", "'a' is repeated"),
        ("train --out {new} --d-model 30", "d_model 30 must be divisible by n_heads 4"),
        ("train --out {new} --positions north", "positions must be one of"),
        ("train --out {new} --max-length 0", "max_length must be"),
        ("train --out {new} --steps -1", "steps must be a whole number of at least 1, not -1"),
        ("train --out {new} --symbols a --max-length 1", "holds no string"),
        ("train --out {saved} --steps 1", "{saved}"),
        ("train --out {saved}/below --steps 1", "{saved}/below"),
        ("reverse {new} abc", "there is no saved model at {new}"),
        ("reverse {notes} abc", "{notes} is not a whole safetensors file"),
        ("reverse {saved} xyz", "'x' (position 0) is not in the vocabulary 'abcde'"),
        ("reverse {saved} abcdea", "6 symbols; this model reads at most 5"),
        ("reverse {saved} abc --beam 0", "beam must be a whole number of at least 1, not 0"),
        ("reverse {saved} abc --device gpu", "'gpu' is not usable here"),
        ("map {new} abc --out {new}/m.png", "there is no saved model at {new}"),
        ("map {saved} abx --out {new}/m.png", "'x' (position 2)"),
        ("map {saved} abc --out {saved}/m.png", "{saved}"),
        ("map {saved} abc --out {notes}.xyz", "xyz"),
        ("map {saved} abc --out {new}/m.xyz", "xyz"),
        ("train --out {new} --device meta", "'meta' is not usable here"),
    ],
)
def test_an_error_is_one_line_and_nothing_is_left_behind(
    plain, saved, tmp_path, capsys, monkeypatch, arguments, reason
):
    monkeypatch.setattr(plain.training, "_step", lambda *_: pytest.fail("training began"))
    (tmp_path / "notes").write_text("this is not a model\n" * 9)
    before = files(tmp_path)
    places = {"new": tmp_path / "new", "saved": saved, "notes": tmp_path / "notes"}
    assert plain.cli.main(arguments.format(**places).split()) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("revtrans: error: ") and shown.err.count("\n") == 1
    assert reason.format(**places) in shown.err and not shown.out
    assert files(tmp_path) == before


def test_a_map_of_nothing_is_refused(plain, saved, tmp_path, capsys):
    picture = tmp_path / "map.png"
    assert plain.cli.main(["map", saved, "", "--out", str(picture)]) == 1
    assert "an empty text has no attention map" in capsys.readouterr().err
    assert not picture.exists()


@pytest.mark.parametrize("module, name", [("training", "_step"), ("cli", "fit")])
@pytest.mark.parametrize("command", ["demo", "train"])
def test_ctrl_c_ends_with_130_and_no_files(
    plain, monkeypatch, tmp_path, capsys, module, name, command
):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(getattr(plain, module), name, interrupted)
    assert plain.cli.main([command, "--out", str(tmp_path / "out")]) == 130
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1].endswith("revtrans: interrupted")
    assert "Traceback" not in shown.err and "wrote" not in shown.out
    assert not files(tmp_path / "out")


def test_the_installed_command_reverses(saved):
    done = subprocess.run([SCRIPT, "reverse", saved, "abc"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cba\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_installed_command_obeys_a_real_signal(tmp_path, number):
    running = subprocess.Popen(
        [SCRIPT, "train", "--out", tmp_path, *TINY, "--steps", "1000000"],
        stderr=subprocess.PIPE,
        # A parent in the background may ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    shown = b""
    while b"loss=" not in shown and running.poll() is None:
        shown += os.read(running.stderr.fileno(), 1000)
    running.send_signal(number)
    shown += running.communicate(timeout=60)[1]
    assert running.returncode == 128 + number
    assert b"Traceback" not in shown and shown.endswith(b"revtrans: interrupted\n")
    kept = re.search(
        rb"(\d+) of 1000000 steps are kept: revtrans train --out (\S+) --resume", shown
    )
    assert kept[2].decode() == str(tmp_path) and files(tmp_path) == ["checkpoint.safetensors"]
    _, history = saving.peek_checkpoint(tmp_path / "checkpoint.safetensors")
    assert len(history["loss"]) == int(kept[1]) > 0


def interrupted(plain, monkeypatch, out: Path, *options: str, at: int = 5) -> int:
    """Begin a training and end it by SIGTERM at a step; the exit code."""
    step, calls = plain.training._step, []

    def counting(*arguments):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGTERM)
        step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(plain.training, "_step", counting)
        return plain.cli.main(["train", "--out", str(out), *options])


def test_resume_takes_everything_from_the_checkpoint(plain, monkeypatch, tmp_path, capsys):
    typed = [*TINY[:-4], "--steps", "9", "--seed", "3", "--positions", "rotary", "--every", "2"]
    assert plain.cli.main(["train", "--out", str(tmp_path / "whole"), *typed]) == 0
    assert interrupted(plain, monkeypatch, tmp_path / "cut", *typed) == 143
    assert files(tmp_path / "cut") == ["checkpoint.safetensors"]
    assert plain.cli.main(["train", "--out", str(tmp_path / "cut"), "--resume"]) == 0
    assert "trained 9 steps" in capsys.readouterr().out
    settings, _ = plain.files.peek_checkpoint(tmp_path / "cut" / "checkpoint.safetensors")
    assert settings["every"] == 2 and settings["device"] in ("cpu", "cuda", "mps")
    ours, theirs = (tmp_path / name / "model.safetensors" for name in ("cut", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    "options, reason",
    [
        ("--resume --steps 10", "made with steps 9, not 10"),
        ("--resume --seed 1", "made with seed 0, not 1"),
        ("--resume --d-model 16", "made with d_model 8, not 16"),
        ("", "holds a training that was begun: 5 of 9 steps; go on with --resume, or remove"),
    ],
)
def test_a_begun_training_is_not_lost_by_a_slip(
    plain, monkeypatch, tmp_path, capsys, options, reason
):
    assert interrupted(plain, monkeypatch, tmp_path, *TINY[:-4], "--steps", "9") == 143
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    capsys.readouterr()
    assert plain.cli.main(["train", "--out", str(tmp_path), *options.split()]) == 1
    assert reason in capsys.readouterr().err
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_without_a_checkpoint_there_is_nothing_to_resume(plain, tmp_path, capsys):
    assert plain.cli.main(["train", "--out", str(tmp_path / "new"), "--resume"]) == 1
    assert "there is no saved checkpoint at" in capsys.readouterr().err
    assert not files(tmp_path)


def test_the_callers_thread_count_is_left_alone(saved):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert cli.main(["reverse", saved, "abc"]) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_console_without_arrows_does_not_end_the_demo(tmp_path):
    done = subprocess.run(
        [SCRIPT, "demo", "--steps", "1", "--out", tmp_path],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )
    assert done.returncode == 0 and "attention.png" in files(tmp_path)
