"""The stored results: complete, checked as they say, and told in README as they are."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from pictures import SHARE, changed
from torch_peers import assert_close

from benchmarks import common, ideas, report
from revtrans.data import ReversalTask
from revtrans.decoding import greedy
from revtrans.model import Transformer, TransformerConfig
from revtrans.packed import packed

FOLDER = Path(report.__file__).parent


def test_readme_shows_the_stored_results():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert report.with_tables(text) == text, "run python -m benchmarks tables"


def test_the_figures_are_those_of_the_stored_results(tmp_path):
    report.figures(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in (FOLDER / "figures").iterdir()}
    for name in names:
        stored, fresh = ((place / name).read_bytes() for place in (FOLDER / "figures", tmp_path))
        assert changed(stored, fresh) <= SHARE, f"{name}: run python -m benchmarks figures"


def broken(tmp_path: Path, name: str, change) -> Path:
    """A copy of the results in which one study's rows are changed."""
    folder = Path(shutil.copytree(common.RESULTS, tmp_path / "results"))
    result = json.loads((folder / f"{name}.json").read_text())
    change(result["rows"])
    (folder / f"{name}.json").write_text(json.dumps(result))
    return folder


def fewer(rows: list[dict], track: str, scheme: str, length: int) -> None:
    """In one seed, one string fewer was tried at one length."""
    for key in ("n", "exact"):
        one_wrong(rows, track, scheme, key, length)


def slower(row: dict, key: str, factor: float) -> None:
    row[key] = {part: value * factor for part, value in row[key].items()}


def of(rows: list[dict], track: str, scheme: str) -> dict:
    return next(row for row in rows if (row["track"], row["scheme"]) == (track, scheme))


def one_wrong(rows, track: str, scheme: str, key: str, length: int, by: float = 1) -> None:
    """In one seed, one string (or a thousandth of the symbols) fewer at one length."""
    tests = of(rows, track, scheme)["tests"]
    tests[key][tests["length"].index(length)] -= by / 1000 if key == "tokens" else by


def double(rows: list[dict], scheme: str, length: int) -> None:
    (row,) = (row for row in rows if (row["scheme"], row["length"]) == (scheme, length))
    slower(row, "over half the length", 2)


@pytest.mark.parametrize(
    "name, change",
    [
        ("training", lambda rows: rows[0].update(reached=rows[0]["of"] - 1)),
        ("training", lambda rows: slower(rows[1], "ours over it", 2)),
        ("step", lambda rows: slower(rows[0], "TorchTransformer", 2)),
        ("decoding", lambda rows: slower(rows[0], "x-transformers, times slower", 0.1)),
        ("decoding", lambda rows: slower(rows[1], "beam 4 over 4 greedy", 2)),
        ("growth", lambda rows: slower(rows[-1], "over the shortest", 100)),
        ("memory", lambda rows: slower(rows[1], "cached over it", 20)),
        ("text_memory", lambda rows: slower(rows[1], "seconds over the first", 10)),
        ("text_memory", lambda rows: slower(rows[1], "MiB over the first", 10)),
        ("threads", lambda rows: rows[0].update(wrong=1)),
        ("threads", lambda rows: rows[0].update(hangs=1)),
        ("data", lambda rows: slower(rows[0], "share of a step", 10)),
        ("imports", lambda rows: slower(rows[1], "over torch alone", 1.5)),
        ("accuracy", lambda rows: rows[-1].update(exact=0.99)),
        ("accuracy", lambda rows: rows[0].update(parameters=1 + rows[0]["parameters"] * 2)),
        ("accuracy", lambda rows: rows.pop()),
        ("gradient", lambda rows: [rows.pop() for _ in range(3)]),
        ("step_time", lambda rows: [rows.pop() for _ in range(3)]),
        ("recipes", lambda rows: rows[3].update(of=1)),
        ("peer_recipes", lambda rows: rows[3].update(of=1)),
        ("limit", lambda rows: rows.pop()),
        ("length_seconds", lambda rows: slower(rows[2], "over sinusoidal", 10)),
        ("length_seconds", lambda rows: rows[2].update(reached=rows[2]["of"] - 1)),
        ("length_memory", lambda rows: double(rows, "end_window", 2000)),
        ("length", lambda rows: one_wrong(rows, "house", "end_alibi", "exact", 20)),
        ("length", lambda rows: one_wrong(rows, "house", "end_window", "exact", 1000)),
        ("length", lambda rows: fewer(rows, "house", "end_window", 5)),
        ("length", lambda rows: rows.remove(of(rows, "DeepMind", "end_window"))),
        ("length", lambda rows: one_wrong(rows, "copy or reverse", "two_way", "exact", 100, 11)),
        ("length", lambda rows: one_wrong(rows, "DeepMind", "end_window", "tokens", 77)),
        (
            "length",
            lambda rows: one_wrong(rows, "Universal Transformer", "end_window", "exact", 400),
        ),
        (
            "length",
            lambda rows: one_wrong(rows, "Universal Transformer", "end_window", "tokens", 400),
        ),
        ("length", lambda rows: rows.remove(of(rows, "house", "end_window"))),
        ("length", lambda rows: rows.remove(of(rows, "house", "end_alibi"))),
        ("proofs", lambda rows: rows[0].update(margin=0.01)),
        ("proofs", lambda rows: rows[-1].update(windows=1_071_130)),
        ("exhaustive", lambda rows: rows.pop()),
        ("exhaustive", lambda rows: rows[0].update(wrong=21)),
        ("hard", lambda rows: rows[-1].update({"one other": 0.98})),
        ("kills", lambda rows: rows.pop()),
        ("kills", lambda rows: rows[7].update(equal=False)),
        ("kills", lambda rows: rows[7].update(readable=False)),
        ("kills", lambda rows: [row.update({"inside a write": False}) for row in rows]),
        ("kills", lambda rows: rows[7].update({"left behind": 1})),
        ("kills", lambda rows: rows[7].update({"ended before": True})),
        ("restarts", lambda rows: rows.pop()),
        ("restarts", lambda rows: rows[3].update(equal=False)),
        ("processes", lambda rows: rows.pop()),
        ("files", lambda rows: rows[-1].update(files=1999)),
        ("files", lambda rows: rows[-1].update(other=1)),
        ("files", lambda rows: rows[-1].update({"code run": 1})),
        ("files", lambda rows: rows[-1].update({"slowest s": 6})),
        ("files", lambda rows: rows[-1].update({"MiB more at peak": 2000})),
        ("inputs", lambda rows: rows[-1].update(inputs=9999)),
        ("inputs", lambda rows: rows[-1].update(other=1)),
        ("inputs", lambda rows: rows[-1].update({"slowest s": 11})),
        ("answers", lambda rows: rows[1].update({"wrong named": 60})),
        ("answers", lambda rows: rows[1].update({"wrong accepted": 1})),
        ("answers", lambda rows: rows[2].update({"right accepted": 96})),
        ("answers", lambda rows: rows[-1].update({"wrong": 199, "wrong named": 190})),
        ("answers", lambda rows: rows[-1].update({"right": 99, "right accepted": 99})),
    ],
)
def test_check_notices_a_figure_that_misses_its_must(tmp_path, capsys, name, change):
    assert report.check(broken(tmp_path, name, change)) == 1
    assert capsys.readouterr().out.count("MISSED") == 1


def test_the_stored_results_hold(capsys):
    assert report.check() == 0
    assert "MISSED" not in capsys.readouterr().out


def test_check_names_the_study_that_is_missing(tmp_path, capsys):
    folder = Path(shutil.copytree(common.RESULTS, tmp_path / "results"))
    (folder / "growth.json").unlink()
    assert report.check(folder) == 1
    assert "python -m benchmarks growth" in capsys.readouterr().err


def test_rounds_are_interleaved_and_the_first_is_dropped():
    calls = []
    seconds = common.interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2
    )
    assert "".join(calls) == "ababab"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
    assert common.ratio([2.0, 6.0, 3.0], [1.0, 2.0, 3.0]) == {"min": 1, "median": 2, "max": 3}


def test_wilsons_interval():
    """The score test's bounds: each is so far from the seen share that z is 1.96 there."""
    assert common.wilson(0, 10)[0] == 0 and common.wilson(10, 10)[1] == 1
    for right, n in [(1, 10), (50, 100), (999, 1000)]:
        for p in common.wilson(right, n):
            assert abs(right / n - p) / (p * (1 - p) / n) ** 0.5 == pytest.approx(1.96)


def test_a_share_that_is_not_all_is_never_shown_as_all():
    assert report._cell(0.9996) == "0.9996" and report._cell(1.0) == "1"
    assert report._cell({"min": 0.9996, "median": 1.0, "max": 1.0}) == "1 (0.9996 – 1)"


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def gradients() -> list[torch.Tensor]:
    model, batch = Transformer(TransformerConfig()), ReversalTask().sample(8, generator())
    packed(model)(batch.source, batch.decoder_input).square().mean().backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("change", ideas.TRAINING.values(), ids=list(ideas.TRAINING))
def test_an_idea_for_a_quicker_step_computes_the_same(change, monkeypatch):
    usual = gradients()
    monkeypatch.setattr(*change)
    for found, expected in zip(gradients(), usual, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("change", ideas.DECODING.values(), ids=list(ideas.DECODING))
def test_an_idea_for_quicker_decoding_writes_the_same(change, monkeypatch):
    model, source = Transformer(TransformerConfig()), ReversalTask().sample(8, generator()).source
    usual = greedy(model, source)
    monkeypatch.setattr(*change)
    assert torch.equal(greedy(model, source), usual)
