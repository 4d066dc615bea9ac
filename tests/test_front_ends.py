"""nbconvert's HTML and slides keep what a notebook folds, its formulas and its pictures."""

import re

import nbformat
import pytest
from nbconvert import HTMLExporter, SlidesExporter
from series import NOTEBOOKS

PATHS = [path for path in NOTEBOOKS if path.stem in ("02_attention", "03_positions")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("exporter", [HTMLExporter, SlidesExporter])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_converted_notebook_folds_and_keeps_formulas(path, exporter):
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    page, _ = exporter().from_notebook_node(notebook)
    for tag in ("<details>", "</details>", "<summary>"):
        assert page.count(tag) == text.count(tag) > 0
    formulas = re.findall(r"^\$\$.*\$\$$", text, re.MULTILINE)
    assert formulas and page.count("$$") >= 2 * len(formulas), "MathJax finds them by their $$"
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert page.count('src="data:image/png') == len(pictures) > 0
