"""Who reads one notebook finds the next, and each that it names. (The site's build tries links.)"""

import re

import nbformat
import pytest
from series import NAMES, NOTEBOOKS


def texts(path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_that_is_named_is_linked(path):
    for text in texts(path):
        plain = re.sub(r"```.*?```|`[^`\n]*`|\[[^\]]*\]\([^)]*\)", "", text, flags=re.DOTALL)
        named = re.findall(r"\b[Nn]otebook (\d\d)\b", plain)
        assert all(path.stem.startswith(number) for number in named), text


@pytest.mark.parametrize("i", range(len(NAMES) - 1))
def test_each_notebook_ends_with_a_link_to_the_next(i):
    assert texts(NOTEBOOKS[i])[-1].endswith(f"]({NAMES[i + 1]}.ipynb)")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_outputs_of_a_solution_are_folded_with_it(path):
    cells, solving = nbformat.read(path, as_version=4).cells, False
    for cell in cells:
        if cell.cell_type == "markdown":
            solving = bool(re.search("<summary>(Solution|Answer)", cell.source))
        elif "#| code-fold: true" not in cell.source:
            solving = False
        elif solving and cell.outputs:
            assert cell.metadata["jupyter"]["outputs_hidden"], cell.source
