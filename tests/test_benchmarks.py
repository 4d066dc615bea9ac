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


def noticed(folder: Path, name: str, rows: list[dict] | None) -> bool:
    """Whether `check` misses something in the stored results with these rows of a study."""
    shutil.copytree(common.RESULTS, folder, dirs_exist_ok=True)
    path = folder / f"{name}.json"
    if rows is None:
        path.unlink()
    else:
        path.write_text(json.dumps(common.read(name) | {"rows": rows}))
    return report.check(folder) == 1


COUNTED = [  # counts and verdicts of which one is enough: study, row, what changes in it
    ("training", 0, {"reached": 4}),
    ("recipes", 3, {"of": 1}),
    ("peer_recipes", 3, {"of": 1}),
    ("threads", 0, {"wrong": 1}),
    ("threads", 0, {"hangs": 1}),
    ("second_device", 0, {"as on the processor": 1}),
    ("gpu_device", 0, {"as on the processor": 1}),
    ("length_seconds", 2, {"reached": 4}),
    ("proofs", 0, {"proven": False}),
    ("exhaustive", 0, {"wrong": 21}),
    ("kills", 7, {"equal": False}),
    ("kills", 7, {"readable": False}),
    ("kills", 7, {"left behind": 1}),
    ("restarts", 3, {"equal": False}),
    ("files", -1, {"other": 1}),
    ("files", -1, {"code run": 1}),
    ("inputs", -1, {"other": 1}),
    ("answers", 1, {"wrong accepted": 1}),
]


@pytest.mark.parametrize("name, row, change", COUNTED)
def test_check_notices_a_count_that_misses_its_must(tmp_path, capsys, name, row, change):
    rows = common.read(name)["rows"]
    rows[row].update(change)
    assert noticed(tmp_path, name, rows)
    assert capsys.readouterr().out.count("MISSED") == 1


def scaled(value, by: float):
    """The same with every decimal `by` times as large."""
    if isinstance(value, dict):
        return {key: scaled(one, by) for key, one in value.items()}
    if isinstance(value, list):
        return [scaled(one, by) for one in value]
    return value * by if isinstance(value, float) else value


UNBOUND = {"bottleneck", "ideas", "rates"}  # told in README or a notebook, and no must
STUDIES = sorted({path.stem for path in common.RESULTS.glob("*.json")} - UNBOUND)


@pytest.mark.parametrize("name", STUDIES)
def test_check_notices_a_study_that_is_missing_empty_or_not_as_it_must_be(tmp_path, capsys, name):
    for rows in (None, []):
        assert noticed(tmp_path, name, rows)
        assert f"python -m benchmarks {name}\n" in capsys.readouterr().err
    rows = common.read(name)["rows"]
    spoiled = [rows[: len(rows) // 2], scaled(rows, 100), scaled(rows, 0.01)]
    seen = [noticed(tmp_path, name, one) for one in spoiled if one]
    assert any(seen) or name in {study for study, *_ in COUNTED}


def test_the_stored_results_hold(capsys):
    assert report.check() == 0
    assert "MISSED" not in capsys.readouterr().out


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
def test_an_idea_for_a_quicker_step_computes_the_same(change):
    changed = ideas.inside(change, gradients)
    for found, expected in zip(changed(), gradients(), strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("change", ideas.DECODING.values(), ids=list(ideas.DECODING))
def test_an_idea_for_quicker_decoding_writes_the_same(change):
    model, source = Transformer(TransformerConfig()), ReversalTask().sample(8, generator()).source
    changed = ideas.inside(change, lambda: greedy(model, source))
    assert torch.equal(changed(), greedy(model, source))
