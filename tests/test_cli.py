"""The commands: what they write, how they fail, how they end, how they go on."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from revtrans import __version__, cli
from revtrans import files as saving
from revtrans.by_hand import hand_made
from revtrans.model import TransformerConfig, more_schemes
from revtrans.training import Training

SCRIPT = Path(sys.executable).with_name("revtrans")
SIZES = ["--max-length", "3", "--d-model", "8", "--n-heads", "2", "--d-ff", "8", "--n-layers", "1"]
TINY = ["--symbols", "abc", *SIZES, "--steps", "2", "--device", "cpu"]
WRITTEN = ["checkpoint.safetensors", "model.safetensors", "training.png"]


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


def page_data(path: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text("utf-8"), re.S)[1])


def train(out: Path, *options: str) -> int:
    return cli.main(["train", "--out", str(out), *options])


def interrupted(monkeypatch, out: Path, *options: str, at: int = 5) -> int:
    """Begin a training and end it by SIGTERM in a step; the exit code."""
    step = Training.step

    def counting(training):
        if len(training.history.loss) == at - 1:
            signal.raise_signal(signal.SIGTERM)
        step(training)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", counting)
        return train(out, *options)


def test_train_reverse_and_map_follow_on_each_other(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    picture = out / "map.png"
    assert train(out, *TINY) == 0
    shown = capsys.readouterr().out
    assert "trained 2 steps on cpu" in shown and files(out) == WRITTEN
    assert f"wrote {out / 'model.safetensors'}" in shown and f"wrote {out / WRITTEN[2]}" in shown
    assert_picture(out / "training.png")
    assert saving.load(out / "model.safetensors").config.d_model == 8

    assert cli.main(["reverse", str(out), "abc", "", "c"]) == 0, "a folder, too, is a model"
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert cli.main(["map", str(out), "abc", "--out", str(picture)]) == 0
    assert f"wrote {picture}" in capsys.readouterr().out
    assert_picture(picture)
    assert not plt.get_fignums(), "every figure is closed"


def test_the_demo_learns_the_symbols_of_its_words_and_says_what_it_wrote(tmp_path, capsys):
    typed = ["demo", "man\u0303ana", "--steps", "5", "--out", str(tmp_path)]
    assert cli.main(typed) == 0
    shown = capsys.readouterr().out
    more = ["attention.png", "attention.svg", "moments", "page.html"]
    assert files(tmp_path) == sorted([*more, *WRITTEN])
    assert files(tmp_path / "moments") == ["0.safetensors"]
    words = ["abcd", "hola", "attention", "transformer", "mañana"]
    assert re.findall(r"^  (\w+) → ", shown, re.M) == words
    for name in ("attention.png", "training.png"):
        assert_picture(tmp_path / name)
    for name in ("attention.png", "attention.svg", "training.png", "page.html"):
        assert f"wrote {tmp_path / name}" in shown
    page = page_data(tmp_path / "page.html")
    assert [one["step"] for one in page["learned"]] == [0, None] and page["byHand"]
    assert [source for source, _ in page["examples"][:5]] == words
    symbols = saving.load(tmp_path / "model.safetensors").vocab.symbols
    assert symbols == TransformerConfig().symbols + "ñ"
    assert cli.main(["demo", "hola", *typed[2:]]) == 1, "another alphabet, another training"
    assert "made with symbols" in capsys.readouterr().err


@pytest.mark.parametrize("beam", ["1", "3"])
def test_a_trained_model_reverses_what_is_typed_and_what_is_piped(saved, capsys, monkeypatch, beam):
    monkeypatch.setattr(sys, "stdin", io.StringIO("abcd\nb\n"))
    assert cli.main(["reverse", saved, "abc", "", "-", "edcba", "--beam", beam]) == 0
    assert capsys.readouterr().out == "cba\n\ndcba\nb\nabcde\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("abcd\nb\n"))
    assert cli.main(["reverse", saved, "--beam", beam]) == 0
    assert capsys.readouterr().out == "dcba\nb\n"


def test_options_may_stand_between_and_standard_input_may_be_closed(saved, capsys, monkeypatch):
    assert cli.main(["reverse", saved, "--beam", "2", "abcd"]) == 0
    assert capsys.readouterr().out == "dcba\n"
    monkeypatch.setattr(sys, "stdin", None)  # as `<&-` leaves it
    assert cli.main(["reverse", saved, "-"]) == 0
    assert capsys.readouterr().out == ""


def test_standard_input_that_is_no_text_is_one_error(saved, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xffb"), "utf-8"))
    assert cli.main(["reverse", saved]) == 1
    assert "error: 'utf-8' codec can't decode byte 0xff" in capsys.readouterr().err
    sys.stdin.close()
    assert cli.main(["reverse", saved, "abc"]) == 0


def test_control_characters_reach_a_file_and_no_terminal(tmp_path, capsys, monkeypatch):
    saving.save(hand_made("a\x1b\t", 4), tmp_path / "m")
    for terminal, shown in ((False, "\x1ba\na\t\n"), (True, "\\x1ba\na\\t\n")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        assert cli.main(["reverse", str(tmp_path / "m"), "a\x1b", "\ta"]) == 0
        assert capsys.readouterr().out == shown


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_a_training_needs_no_standard_error(redirection, tmp_path):
    command = shlex.join([sys.executable, "-m", "revtrans", "train", "--out", "o", *TINY])
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        f"{command} {redirection}", shell=True, cwd=tmp_path, env=env, check=False
    )
    assert done.returncode == 0 and files(tmp_path / "o") == WRITTEN


def test_a_page_holds_the_model_and_what_is_asked_for_beside_it(saved, tmp_path, capsys):
    out = tmp_path / "new" / "p.html"
    assert cli.main(["page", saved, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert len(page_data(out)["learned"]) == 1 and page_data(out)["byHand"] is None
    (tmp_path / "some").mkdir()
    for name in ("100", "20", "notes"):
        shutil.copy(saved, tmp_path / "some" / f"{name}.safetensors")
    more = ["--moments", str(tmp_path / "some"), "--by-hand", "--texts", "abc", "e"]
    assert cli.main(["page", saved, "--out", str(out), *more]) == 0
    page = page_data(out)
    assert [one["step"] for one in page["learned"]] == [20, 100, None]
    assert page["byHand"]["config"]["symbols"] == "abcde"
    assert page["examples"][:2] == [["abc", "cba"], ["e", "e"]]


def test_help_shows_the_defaults_and_the_choices(capsys, monkeypatch):
    """Both are written twice, so that --help needs no PyTorch."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    options = [" ".join(text.split()) for text in capsys.readouterr().out.split("\n  --")[1:]]
    said = dict(text.split(" ", 1) for text in options)
    sizes = {name.replace("_", "-"): value for name, value in vars(TransformerConfig()).items()}
    shared = sizes.keys() & said.keys()
    assert len(shared) == 7 and all(f"({sizes[name]})" in said[name] for name in shared)
    assert ", ".join(["sinusoidal", "learned", *more_schemes()]) in said["positions"]
    assert "{fp32,bf16}" in said["precision"]


def test_help_and_version_need_no_torch():
    code = "import sys; from revtrans import cli; cli._parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_help_lists_commands_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    shown = capsys.readouterr().out
    commands = ("demo", "train", "reverse", "map", "page", "check")
    assert ended.value.code == 0 and all(f"\n    {command} " in shown for command in commands)
    assert all(
        code in shown for code in ("0 success", "1 error", "2 wrong usage", "130 Ctrl-C", "143 SIG")
    )
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"revtrans {__version__}\n"


@pytest.mark.parametrize(
    "typed",
    ["", "dance", "train", "reverse", "reverse m", "map m", "page", "demo --steps many", "demo -w"],
)
def test_wrong_usage_ends_with_2(typed, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(typed.split())
    assert ended.value.code == 2 and "usage: revtrans" in capsys.readouterr().err


@pytest.fixture
def places(saved, tmp_path) -> dict[str, str]:
    """What a command may be given, and where it cannot write."""
    for name in ("sealed.png", "run/training.png", "shown/attention.svg", "kept/moments"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch(0o444)
    (tmp_path / "link.png").symlink_to(os.devnull)
    os.mkfifo(tmp_path / "pipe.png")
    reader = os.open(tmp_path / "pipe.png", os.O_RDONLY | os.O_NONBLOCK)  # no writer waits for one
    yield {"here": str(tmp_path), "new": f"{tmp_path}/new", "saved": saved}
    os.close(reader)


@pytest.mark.parametrize(
    "typed, reason",
    [
        ("demo abcdefghijklmnopq --out {new}", "17 symbols; this model reads at most 16"),
        ("demo --out {here}/shown", "{here}/shown/attention.svg: it is read-only"),
        ("demo --out {here}/kept", "{here}/kept/moments is no folder"),
        ("train --out {here}/run", "{here}/run/training.png: it is read-only"),
        ("train --out {new} --device meta", "'meta' is not usable here"),
        ("train --out {saved} --steps 1", "{saved}"),
        ("train --out {saved}/below --steps 1", "{saved}/below"),
        ("reverse {saved} abc --device hpu", "'hpu' is not usable here"),
        ("map {saved} '' --out {new}/m.png", "an empty text has no attention map"),
        ("map {saved} abx --out {new}/m.png", "'x' (position 2 of 'abx')"),
        ("map {saved} abc --out {saved}/m.png", "{saved}"),
        ("map {saved} abc --out {new}/m.xyz", "xyz"),
        ("map {saved} abc --out {here}/sealed.png", "{here}/sealed.png: it is read-only"),
        ("map {saved} abc --out {here}/pipe.png", "{here}/pipe.png: it is not a regular file"),
        ("map {saved} abc --out {here}/link.png", "{here}/link.png: it is not a regular file"),
        ("page {saved} --moments {new}", "there is no folder {new}"),
        ("page {saved} --out {saved}/p.html", "{saved}"),
        ("check {new}.py", "cannot read {new}.py"),
    ],
)
def test_an_error_is_one_line_and_nothing_is_left_behind(
    places, tmp_path, capsys, monkeypatch, typed, reason
):
    def found() -> dict[Path, tuple[int, int]]:
        about = {path: path.lstat() for path in tmp_path.rglob("*")}
        return {path: (now.st_mode, now.st_mtime_ns) for path, now in about.items()}

    monkeypatch.setattr(Training, "step", lambda _: pytest.fail("training began"))
    before = found()
    assert cli.main(shlex.split(typed.format(**places))) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("revtrans: error: ") and shown.err.count("\n") == 1
    assert reason.format(**places) in shown.err and not shown.out
    assert found() == before


def test_ctrl_c_before_the_training_ends_with_130_and_no_files(monkeypatch, tmp_path, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "best_device", interrupt)
    for command in ("demo", "train"):
        assert cli.main([command, "--out", str(tmp_path / "out")]) == 130
        assert capsys.readouterr().err == "revtrans: interrupted\n"
    assert not files(tmp_path)


def test_the_installed_command_reverses(saved):
    done = subprocess.run([SCRIPT, "reverse", saved, "abc"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cba\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_installed_command_obeys_a_real_signal(tmp_path, number):
    path = tmp_path / "checkpoint.safetensors"
    running = subprocess.Popen(
        [SCRIPT, "train", "--out", tmp_path, *TINY, "--steps", "1000000", "--every", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # A parent in the background may ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while running.poll() is None and not (path.exists() and saving.peek_checkpoint(path)[1]):
        time.sleep(0.01)
    running.send_signal(number)
    shown = running.communicate(timeout=60)[1]
    assert running.returncode == 128 + number
    assert b"Traceback" not in shown and shown.endswith(b"revtrans: interrupted\n")
    kept = re.search(rb"kept (\d+) of 1000000 steps; the same command goes on", shown)
    assert saving.peek_checkpoint(path)[1] == int(kept[1]) > 0 and files(tmp_path) == [path.name]


@pytest.mark.parametrize("again", ["", "--steps 9 --d-model 8"])
def test_train_goes_on_with_the_settings_that_it_was_begun_with(
    monkeypatch, tmp_path, capsys, again
):
    typed = [*TINY[:-4], "--steps", "9", "--seed", "3", "--positions", "rotary"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(whole, *typed) == 0
    assert interrupted(monkeypatch, cut, *typed) == 143 and files(cut) == WRITTEN[:1]
    assert "kept 5 of 9 steps; the same command goes on" in capsys.readouterr().err
    assert train(cut, *again.split()) == 0
    assert "trained 9 steps" in capsys.readouterr().out and files(cut) == files(whole) == WRITTEN
    ours, theirs = (folder / "model.safetensors" for folder in (cut, whole))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    "options, reason",
    [
        ("--steps 10", "made with steps 9, not 10; choose another --out"),
        ("--seed 1", "made with seed 0, not 1; choose another --out"),
        ("--d-model 16", "made with d_model 8, not 16; choose another --out"),
    ],
)
@pytest.mark.parametrize("done", [True, False])
def test_nothing_that_was_trained_is_written_over(
    monkeypatch, tmp_path, capsys, options, reason, done
):
    typed = [*TINY[:-4], "--steps", "9"]
    assert (train(tmp_path, *typed) if done else interrupted(monkeypatch, tmp_path, *typed)) == (
        0 if done else 143
    )
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    capsys.readouterr()
    assert train(tmp_path, *options.split()) == 1
    assert reason in capsys.readouterr().err
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_a_model_of_unknown_origin_is_not_replaced(saved, tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    Path(saved).rename(path)
    before = path.read_bytes()
    for command in (["train"], ["demo", "hola"]):
        assert cli.main([*command, "--out", str(tmp_path)]) == 1
        assert f"{path} is a model of another training" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_the_callers_thread_count_is_left_alone(saved):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert cli.main(["reverse", saved, "abc"]) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_console_without_arrows_neither_ends_the_demo_nor_hides_a_symbol(tmp_path):
    done = subprocess.run(
        [SCRIPT, "demo", "ñ", "--steps", "1", "--out", tmp_path],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0 and b"\\xf1 \\u2192" in done.stdout


def test_check_prints_a_table_or_json_and_nothing_of_what_the_answers_print(tmp_path, capfd):
    path = tmp_path / "answers.py"
    path.write_text(
        "import torch\nprint('noise')\nmy_causal_mask = lambda n: torch.ones(n, n).triu().bool()\n"
        "def my_loss(logits, labels):\n    raise NotImplementedError\n"
    )
    assert cli.main(["check", str(path)]) == 1
    printed = capfd.readouterr()
    table = dict(re.split(r" {2,}", line) for line in printed.out.splitlines()[:14])
    assert table["causal mask"] == "wrong: the future seen" and table["loss"] == "still to do"
    assert table["attention"] == "not there" and len(table) == 14
    assert printed.err == "revtrans: error: wrong pieces: 1 of 14\n"
    assert cli.main(["check", "--json", str(path)]) == 1
    rows = json.loads(capfd.readouterr().out)
    assert [row["piece"] for row in rows if row["state"] == "wrong"] == ["causal mask"]
    path.write_text("def my_padding_mask(ids):\n    return (ids != 0)[:, None, None, :]\n")
    assert cli.main(["check", str(path)]) == 0, "what is still to do is not wrong"
