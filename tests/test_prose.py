"""A number that the prose states is one that a cell computes, or a stored result holds.

The convention: in a notebook, a measured or computed number in the text (a decimal, a percentage,
a number of three digits or more, a ratio such as 3x) also stands in a code cell of that notebook or
in its output, so that an assert or the freshness check guards it. In README.md it stands in the
notebook that the sentence names, or in any. Left out: code and formulas, references, years,
sections of papers, versions. benchmarks/README.md: its tables are generated, see test_benchmarks;
its prose is held against the scripts and the stored results.
"""

import json
import re

import nbformat
import pytest
from series import NOTEBOOKS, ROOT

STATED = re.compile(
    r"(?<![\w.,$^])(\d{1,3}(?:,\d{3})+|\d+\.\d+|\d{3,}|\d+(?= ?%)|\d+(?=x\b))( ?%)?"
)
LEFT_OUT = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|<!--.*?-->|\]\([^)]*\)|https?://\S+"
    r"|(?:arXiv|section|sections|figure|table|equation|chapter|Python|Apache|PyTorch|notebooks?)"
    r" [\d.:]+(?:, \d+[\d.]*)*(?: and [\d.]+)?"
    r"|\b(?:19|20)\d\d\b|\bv?\d+\.\d+\.\d+\b",
    re.DOTALL,
)


def stated(text: str) -> list[tuple[str, bool]]:
    """The numbers of a text, and whether each is a percentage."""
    text = LEFT_OUT.sub(" ", re.split(r"^## References", text, flags=re.MULTILINE)[0])
    return [(found[1].replace(",", ""), bool(found[2])) for found in STATED.finditer(text)]


def computed(notebook: nbformat.NotebookNode) -> set[float]:
    """Every number in the code and in the outputs of a notebook."""
    text = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            text.append(cell.source)
            for output in cell.outputs:
                text.append(output.get("text", ""))
                data = output.get("data", {})
                text += [str(data[kind]) for kind in data if kind.startswith("text/")]
    return numbers("\n".join(text))


def numbers(text: str) -> set[float]:
    text = re.sub(r"(?<=\d)[,_](?=\d{3})", "", text)
    found = {float(one) for one in re.findall(r"\d+\.?\d*(?:e[-+]?\d+)?", text)}
    return found | {float(one) / 100 for one in re.findall(r"(\d+\.?\d*) ?%", text)}


def unbound(text: str, known: set[float]) -> list[str]:
    """The numbers of a text that are not among those known."""
    missing = []
    for number, percentage in stated(text):
        values = {float(number), float(number) / 100} if percentage else {float(number)}
        if not any(abs(value - one) <= 1e-9 for value in values for one in known):
            missing.append(number + " %" * percentage)
    return missing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_numbers_of_a_notebooks_text_are_computed_in_it(path):
    notebook = nbformat.read(path, as_version=4)
    own = computed(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert not unbound(cell.source, own | of_named(cell.source)), cell.source


def of_named(line: str) -> set[float]:
    """The numbers of the notebooks that a line names."""
    named = re.findall(r"[Nn]otebook (\d\db?)", line)
    paths = [path for path in NOTEBOOKS if path.stem.split("_")[0] in named]
    return set().union(*(computed(nbformat.read(path, as_version=4)) for path in paths))


def test_the_numbers_of_readme_are_computed_in_the_notebooks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    known = [computed(nbformat.read(path, as_version=4)) for path in NOTEBOOKS]
    everywhere = set().union(*known)
    for line in text.splitlines():
        assert not unbound(line, of_named(line) or everywhere), line


def test_the_numbers_of_benchmarks_are_those_of_scripts_and_results():
    folder = ROOT / "benchmarks"
    text = (folder / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"<!-- [a-z_ ]+ -->.*?<!-- end -->", "", text, flags=re.DOTALL)
    scripts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    scripts.append((ROOT / "revtrans" / "training.py").read_text(encoding="utf-8"))
    results = [json.dumps(json.loads(p.read_text())["settings"]) for p in folder.glob("*/*.json")]
    assert not unbound(text, numbers("\n".join(scripts + results)))
