"""The teachers' page points at what is there, and its questions are all checked."""

import re

import nbformat
from series import NOTEBOOKS, ROOT

NBS = ROOT / "nbs"


def text_of(name: str, kind: str = "markdown") -> list[str]:
    cells = nbformat.read(NBS / name, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == kind]


def test_every_link_leads_to_a_heading_that_is_there():
    links = re.findall(r"\]\((\w+\.ipynb)(?:#([^)]*))?\)", "\n".join(text_of("teaching.ipynb")))
    assert len(links) > 20
    for name, anchor in links:
        headings = re.findall(r"(?m)^#+ (.*)$", "\n".join(text_of(name)))
        assert not anchor or anchor in {heading.replace(" ", "-") for heading in headings}, anchor


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
