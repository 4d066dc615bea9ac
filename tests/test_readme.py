"""What README.md says is so: its numbers, its links, its commands and its example."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECONDS = json.loads((ROOT / "nbs" / "run_times.json").read_text())["seconds"]


def test_the_seconds_are_the_stored_ones_for_every_notebook():
    rows = re.findall(r"^\| \[(\w+)\]\(nbs/\w+\.ipynb\) \|.*\| (\d+) \|$", README, re.MULTILINE)
    assert {name: int(seconds) for name, seconds in rows} == SECONDS
    assert set(SECONDS) == {path.stem for path in (ROOT / "nbs").glob("*.ipynb")}


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).is_file()


def test_the_example_runs(monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "fit(model, task)" in example
    names = {}
    exec(example.replace("fit(model, task)", "fit(model, task, steps=3, progress=False)"), names)
    assert names["maps"].source == "mañana" and len(names["history"].loss) == 3
    plt.close("all")
