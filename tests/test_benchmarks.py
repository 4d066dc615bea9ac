"""The stored results: complete, checked as they say, and told in README as they are."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import common, report

FOLDER = Path(report.__file__).parent


def test_readme_shows_the_stored_results():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert report.with_tables(text) == text, "run python -m benchmarks tables"


def broken(tmp_path: Path, name: str, change) -> Path:
    """A copy of the results in which one study's rows are changed."""
    folder = Path(shutil.copytree(common.RESULTS, tmp_path / "results"))
    result = json.loads((folder / f"{name}.json").read_text())
    change(result["rows"])
    (folder / f"{name}.json").write_text(json.dumps(result))
    return folder


def slower(row: dict, key: str, factor: float) -> None:
    row[key] = {part: value * factor for part, value in row[key].items()}


@pytest.mark.parametrize(
    "name, change",
    [
        ("training", lambda rows: rows[0].update(reached=rows[0]["of"] - 1)),
        ("training", lambda rows: slower(rows[1], "ours over it", 2)),
        ("step", lambda rows: slower(rows[0], "TorchTransformer", 2)),
        ("decoding", lambda rows: slower(rows[0], "x-transformers, times slower", 0.1)),
        ("growth", lambda rows: slower(rows[-1], "over the shortest", 100)),
        ("memory", lambda rows: rows[1].update({"cached over it": 0.6})),
        ("data", lambda rows: slower(rows[0], "share of a step", 10)),
        ("imports", lambda rows: slower(rows[1], "over torch alone", 1.5)),
    ],
)
def test_check_notices_a_figure_that_misses_its_must(tmp_path, capsys, name, change):
    before = capsys.readouterr() and report.check()
    missed = capsys.readouterr().out.count("MISSED")
    assert report.check(broken(tmp_path, name, change)) == 1
    assert capsys.readouterr().out.count("MISSED") == missed + 1
    assert before == bool(missed)


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
