"""The Spanish of notebook 13, held against known numbers and against rules of the language."""

from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parent.parent / "nbs" / "13_your_task.ipynb"
KNOWN = {
    15: "quince",
    20: "veinte",
    21: "veintiuno",
    23: "veintitrés",
    26: "veintiséis",
    30: "treinta",
    41: "cuarenta y uno",
    99: "noventa y nueve",
    116: "ciento dieciséis",
    200: "doscientos",
    555: "quinientos cincuenta y cinco",
    777: "setecientos setenta y siete",
    900: "novecientos",
    1100: "mil cien",
    1999: "mil novecientos noventa y nueve",
    16_016: "dieciséis mil dieciséis",
    21_021: "veintiún mil veintiuno",
    41_001: "cuarenta y un mil uno",
    100_000: "cien mil",
    100_100: "cien mil cien",
    121_000: "ciento veintiún mil",
    201_000: "doscientos un mil",
    500_500: "quinientos mil quinientos",
    999_999: "novecientos noventa y nueve mil novecientos noventa y nueve",
}


@pytest.fixture(scope="module")
def rule():
    """The function `in_spanish`, from the cell that defines it."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    (source,) = [c.source for c in cells if "def in_spanish" in c.source]
    names = {}
    exec("import re\n" + source, names)
    return names["in_spanish"]


@pytest.mark.parametrize("number, words", KNOWN.items())
def test_known_numbers(rule, number, words):
    assert rule(str(number)) == words


def test_rules_of_the_language(rule):
    for n in range(1000):
        words = rule(str(n))
        assert "  " not in words and words == words.strip()
        if n > 1:
            thousands = rule(str(1000 * n))
            assert thousands.endswith(" mil") and "uno" not in thousands
            ends = words.removesuffix("veintiuno") + "veintiún" if n % 100 == 21 else words
            ends = (
                ends.removesuffix("uno") + "un" if n % 10 == 1 and n % 100 not in (11, 21) else ends
            )
            assert thousands == f"{ends} mil"
    assert rule("1000") == "mil"


def test_the_task_takes_at_most_thirty_lines():
    """All that is written for it: the rule, its lists of words, the choice of numbers, the task."""
    cells = [c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    own = [source for source in cells if "def in_spanish" in source or "def some_numbers" in source]
    lines = [line for source in own for line in source.splitlines() if line.strip()]
    library = [line for line in lines if line.startswith(("from revtrans", "model = "))]
    assert len(own) == 2 and len(library) == 3 and len(lines) - len(library) <= 30
