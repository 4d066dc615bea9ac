"""The teachers' page points at what is there, and its questions are all checked."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from series import NOTEBOOKS, ROOT

NBS = ROOT / "nbs"


def text_of(name: str, kind: str = "markdown") -> list[str]:
    cells = nbformat.read(NBS / name, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == kind]


def test_there_are_ten_questions_each_with_a_folded_answer_and_a_check():
    cells = nbformat.read(NBS / "teaching.ipynb", as_version=4).cells
    asked = [i for i, cell in enumerate(cells) if re.search(r"(?m)^\*\*\d+\.\*\*", cell.source)]
    assert len(asked) == 10
    for number, i in enumerate(asked, 1):
        assert (
            f"**{number}.**" in cells[i].source and "<summary>Answer</summary>" in cells[i].source
        )
        check = cells[i + 1]
        assert check.cell_type == "code" and re.search(r"assert", check.source)
        assert check.source.startswith("#| code-fold: true")


def test_every_notebook_has_a_goal_or_is_said_to_be_left_out():
    text = "\n".join(text_of("teaching.ipynb"))
    for path in NOTEBOOKS:
        if not path.stem[0].isdigit():
            continue
        assert path.name in text or re.search(rf"\b{path.stem.split('_')[0]}\b", text), path.name


def test_the_slides_are_the_session_and_nothing_else():
    notebook = nbformat.read(NBS / "teaching.ipynb", as_version=4)
    plan = next(cell.source for cell in notebook.cells if cell.source.startswith("session = ["))
    minutes = [int(n) for n in re.findall(r"(?m)^ {4}(?:\(|    )(\d+),", plan)]
    kinds = [cell.metadata["slideshow"]["slide_type"] for cell in notebook.cells]
    slides = [cell for cell, kind in zip(notebook.cells, kinds) if kind == "slide"]
    told = [re.search(r"\((\d+) minutes\)", cell.source) for cell in slides]
    assert told[0] is None and [int(found[1]) for found in told[1:]] == minutes
    page, _ = SlidesExporter().from_notebook_node(notebook)
    assert all(cell.source.split("\n")[0].strip("# ") in page for cell in slides)
    assert "Common misconceptions" not in page and "Learning goals" not in page


def test_nbdev_clean_keeps_the_slides(tmp_path):
    shutil.copy(NBS / "teaching.ipynb", tmp_path)
    shutil.copy(NBS.parent / "settings.ini", tmp_path)
    command = Path(sys.executable).with_name("nbdev_clean")
    subprocess.run([command, "--fname", "teaching.ipynb"], cwd=tmp_path, check=True)
    cleaned = nbformat.read(tmp_path / "teaching.ipynb", as_version=4)
    assert all("slide_type" in cell.metadata["slideshow"] for cell in cleaned.cells)


def test_a_rubric_and_the_command_for_a_class_are_there():
    text = "\n".join(text_of("teaching.ipynb"))
    rubric = text.split("## A rubric for the final project")[1].split("\n## ")[0]
    rows = [row.count("|") - 1 for row in rubric.split("\n") if row.startswith("| **")]
    assert rows == [5] * 5 and "15 is the most" in rubric
    assert "revtrans check answers.py" in text
