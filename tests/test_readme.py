"""What README.md says is so: its numbers, its links, its commands and its example."""

import json
import re

import matplotlib.pyplot as plt
import nbformat
import pytest
from series import README, ROOT

SECONDS = json.loads((ROOT / "nbs" / "run_times.json").read_text())["seconds"]


def test_the_seconds_are_the_stored_ones_for_every_notebook():
    rows = re.findall(r"^\| \[(\w+)\]\(nbs/\w+\.ipynb\) \|.*\| (\d+) \|$", README, re.MULTILINE)
    assert {name: int(seconds) for name, seconds in rows} == SECONDS


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).is_file()


def test_the_example_runs(monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "fit(model, task)" in example
    assert "\nfigure = plot_heads(" in example, "or a notebook draws the picture twice"
    names = {}
    exec(example.replace("fit(model, task)", "fit(model, task, steps=3, progress=False)"), names)
    assert names["maps"].source == "mañana" and len(names["history"].loss) == 3
    plt.close("all")


# The figures of "What is measured": a piece of README, and where each number in it comes from.
FROM = {
    "After (325) training steps": [("revtrans/training.py", r"steps: int = (\d+)")],
    "at least (99.9) % of (10,000) random held-out strings (1 to (16) letters": [
        ("nbs/05_training.ipynb", r"assert score >= (0\.\d+)"),
        ("nbs/05_training.ipynb", r"test = task.sample\(([\d_]+), "),
        ("revtrans/model.py", r"max_length: int = (\d+)"),
    ],
    "forward and gradients, to (1e-5)": [("tests/torch_peers.py", r"rtol=0, atol=(1e-\d+)")],
    "reverses all (5,460) strings of 1 to (6) of four letters": [
        ("nbs/10_by_hand.ipynb", r"held-out strings, (\d+) in all: exact"),
        ("nbs/10_by_hand.ipynb", r'letters, longest = "abcd", (\d+)'),
    ],
    "and (10,000) random held-out ones": [("nbs/10_by_hand.ipynb", r"exact on all ([\d,]+);")],
    "at least (99) % of held-out numbers": [
        ("nbs/13_your_task.ipynb", r"assert share >= (0\.\d+)")
    ],
}


def text_of(name: str) -> str:
    """A file's text; of a notebook, its code and what it printed."""
    if not name.endswith(".ipynb"):
        return (ROOT / name).read_text(encoding="utf-8")
    cells = [c for c in nbformat.read(ROOT / name, 4).cells if c.cell_type == "code"]
    printed = [output.get("text", "") for cell in cells for output in cell.outputs]
    return "\n".join([cell.source for cell in cells] + printed)


@pytest.mark.parametrize("piece", FROM)
def test_each_figure_is_that_of_its_cell(piece):
    pattern = re.escape(piece)
    for number in re.findall(r"\(([\d.,e-]+)\)", piece):
        pattern = pattern.replace(re.escape(f"({number})"), r"([\d.,]+(?:e-\d+)?)")
    (found,) = re.findall(pattern, README)
    stated = [found] if isinstance(found, str) else found
    for number, (name, source) in zip(stated, FROM[piece], strict=True):
        (value,) = re.findall(source, text_of(name))
        value, number = (float(one.replace(",", "").replace("_", "")) for one in (value, number))
        assert number in (value, 100 * value), f"{number} in README, {value} in {name}"


def test_the_share_and_the_lengths_that_are_told_are_those_that_notebooks_assert():
    share = re.search(r"([\d.]+)% of the million", text_of("nbs/13_your_task.ipynb"))[1]
    (bound,) = re.findall(r"after seeing less than (\d+) % of the million", README)
    assert float(share) < float(bound)
    told = re.findall(r"of 1 to (\d+) letters, .* reverse ([\d,]+) of ([\d,]+) strings", README)
    assert told == [("20", "1,000", "1,000")] and "up to 1,000, in five of five seeds" in README


ELSEWHERE = [  # what somebody needs whose machine, front end or habit is another
    *("python3 -m venv", "With Python 3.11 or newer", "double quotes", "an Intel processor"),
    *("Colab, Kaggle", "%pip install .", "GPU libraries, which are large", "1.4 GB"),
    *("the environment active whenever you merge", "`nbdev_readme` and `nbdev_prepare` would"),
    "a notebook that is run holds new outputs",
]


@pytest.mark.parametrize("said", ELSEWHERE)
def test_readme_says_what_is_needed_elsewhere(said):
    assert said in README
