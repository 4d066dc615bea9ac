"""Tasks made of pairs; and the Spanish of notebook 13, held against rules of the language."""

from itertools import product
from pathlib import Path

import checks
import nbformat
import pytest
import torch

from revtrans.data import Batch, Task
from revtrans.pairs import PairsTask

NOTEBOOK = Path(__file__).parent.parent / "nbs" / "13_your_task.ipynb"
KNOWN = {  # one for each rule that the notebook's own list does not show
    23: "veintitrés",
    41_001: "cuarenta y un mil uno",
    121_000: "ciento veintiún mil",
    116_016: "ciento dieciséis mil dieciséis",
    200_555: "doscientos mil quinientos cincuenta y cinco",
    777_900: "setecientos setenta y siete mil novecientos",
}
TEXTS = ["".join(letters) for letters in product("abcde", repeat=2)]


def drawn(task: PairsTask, split: str, n: int = 500) -> list[tuple[str, str]]:
    batch = task.sample(n, checks.seeded(), split)
    sides = batch.source.tolist(), batch.target.tolist()
    return list(zip(*([task.vocab.decode(row) for row in rows] for rows in sides)))


def test_a_task_of_pairs_samples_its_pairs_from_two_splits():
    task = PairsTask.from_function(lambda text: text + text[0], TEXTS, held_out=0.3)
    assert task.vocab.symbols == "abcde" and task.max_length == 3 and len(task) == 25
    train, held_out = task.texts("train"), task.texts("held_out")
    assert set(drawn(task, "train")) == set(train) and set(drawn(task, "held_out")) == set(held_out)
    assert sorted(train + held_out) == [(text, text + text[0]) for text in TEXTS]
    again = [task.sample(9, checks.seeded(5)).target for _ in range(2)]
    assert torch.equal(*again)
    assert isinstance(task, Task) and isinstance(task.sample(1, checks.seeded()), Batch)


def test_equal_sources_fall_on_one_side_and_batches_are_trimmed():
    task = PairsTask([(s, target) for s in TEXTS for target in ("a", "abc")], held_out=0.5)
    train, held_out = ({s for s, _ in task.texts(split)} for split in ("train", "held_out"))
    assert not train & held_out and train | held_out == set(TEXTS)
    widths = {task.sample(1, checks.seeded(seed)).target.shape[1] for seed in range(20)}
    assert widths == {3, 5}


def test_a_function_chooses_the_side():
    answers = iter([True, False] * 99)  # however it answers, it is asked once for each source
    task = PairsTask([(s, "a") for s in TEXTS * 2], lambda text: next(answers))
    sides = [{s for s, _ in task.texts(split)} for split in ("train", "held_out")]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 25
    task = PairsTask.from_function(str.upper, TEXTS, held_out=lambda text: text[0] == "a")
    assert task.texts("held_out") == [(s, s.upper()) for s in TEXTS if s[0] == "a"]


def test_a_pair_that_is_listed_more_often_is_drawn_more_often():
    task = PairsTask([("a", "b")] * 30 + [("b", "a")], held_out=0.0)
    often = sum(pair == ("a", "b") for pair in drawn(task, "train", 3100))
    assert abs(often - 3000) < 50 and len(task) == 31


def test_texts_are_normalised_before_anything_is_asked_of_them():
    task = PairsTask([("n\u0303", "a"), ("a", "n\u0303")], held_out=lambda text: text == "\u00f1")
    assert task.texts("held_out") == [("\u00f1", "a")] and task.max_length == 1


def test_a_task_of_pairs_reads_as_one_line_in_a_cell():
    task = PairsTask([("ab", "ba")] * 1500, held_out=0.0)
    assert repr(task) == "PairsTask(1,500 pairs such as 'ab' → 'ba', 0 held out)"
    assert len(repr(PairsTask([("a\n" * 900, "b" * 900)], held_out=0.0)).splitlines()) == 1


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


def test_the_task_takes_at_most_thirty_lines():
    """All that is written for it: the rule, its lists of words, the choice of numbers, the task."""
    cells = [c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    own = [source for source in cells if "def in_spanish" in source or "def some_numbers" in source]
    lines = [line for source in own for line in source.splitlines() if line.strip()]
    written = [line for line in lines if not line.startswith(("from revtrans", "model = "))]
    assert len(own) == 2 and written[-1] == "task" and len(written) - 1 <= 30
