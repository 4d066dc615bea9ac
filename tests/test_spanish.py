"""The Spanish edition says what the English one says now, around the same code."""

import re
from collections import Counter

import pytest
import spanish
from check_notebooks import about
from nbformat import NotebookNode, read
from series import NAMES as SERIES

NAMES = sorted(path.stem for path in spanish.ES.glob("*.json"))
REFERENCES = re.compile(r"^## Refer(?:ences|encias)\n.*", re.DOTALL | re.MULTILINE)
TWIN = re.compile(r"\[[^\]]*\]\((?:es|\.\.)/\w+\.ipynb\)")  # the same page in the other language
KEPT = {
    "formulas": re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL),
    "code words": re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL),
    "links": re.compile(r"\]\((?:\.\./)?([^)#]+)[^)]*\)"),
    "tags": re.compile(r"</?\w+>"),
}
NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*")
ENGLISH = re.compile(
    r"\b(the|of|and|which|with|is|are|that|this|from|for|your|what|how|not|but)\b", re.IGNORECASE
)
LABEL = re.compile(  # most labels of the English pictures have one of these
    r"\b(steps?|loss|lengths?|strings?|seconds|layers?|heads?|training|share|exact|seeds?|weights?"
    r"|letters?|words?|number|mean|after|before|right|wrong|one|all|in|on|to|at|each|only|first)\b"
)


def pairs(name: str) -> list[tuple[str, str, str]]:
    """The id of each text cell, its English and its Spanish."""
    cells = read(spanish.ES / f"{name}.ipynb", as_version=4).cells
    found = {cell.id: cell.source for cell in cells}
    texts = [cell for cell in spanish.english(name).cells if cell.cell_type == "markdown"]
    return [(cell.id, TWIN.sub("", cell.source), TWIN.sub("", found[cell.id])) for cell in texts]


def drawn(cells: list[NotebookNode]) -> set[str]:
    """Each piece of text in the pictures that these cells have stored."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    pictures = [about for output in outputs for about in output.get("metadata", {}).values()]
    return {word for about in pictures for word in about.get("words", "").split(" | ")}


def plain(text: str) -> str:
    """Prose alone: without code, formulas, link targets, references and what is in parentheses."""
    text = REFERENCES.sub("", text)
    for kind in ("code words", "formulas", "links", "tags"):
        text = KEPT[kind].sub(" ", text)
    return text


@pytest.mark.parametrize("name", NAMES)
def test_each_text_renders_the_english_of_today(name):
    stored = spanish.table(name)["cells"]
    texts = [cell for cell in spanish.english(name).cells if cell.cell_type == "markdown"]
    stale = [cell.id for cell in texts if stored.get(cell.id) != spanish.digest(cell.source)]
    assert not stale and len(stored) == len(texts), f"translate again: {stale}"


@pytest.mark.parametrize("name", NAMES)
def test_the_code_is_the_english_code_with_spanish_words(name):
    stored = read(spanish.ES / f"{name}.ipynb", as_version=4).cells
    made = spanish.made(name).cells
    assert [(cell.id, cell.source) for cell in stored] == [(cell.id, cell.source) for cell in made]
    for cell in stored:
        written = re.search(r"(?m)^#\| (export|default_exp)|^nbdev_export", cell.source)
        assert cell.cell_type == "markdown" or not written, cell.source


@pytest.mark.parametrize("name", NAMES)
def test_every_reworded_string_holds_the_same_values(name):
    ours = spanish.table(name)
    source = "\n".join(cell.source for cell in spanish.english(name).cells)
    for english, word in ours["words"].items():
        assert english in source, f"not in the notebook any more: {english}"
        held = [re.findall(r"\{[^{}'\"]*\}", text) for text in (english, word)]
        assert Counter(held[0]) == Counter(held[1]), word
    drawing = {cell.id for cell in spanish.english(name).cells if "fig-alt" in about(cell)}
    assert set(ours["alts"]) == drawing


@pytest.mark.parametrize("name", NAMES)
def test_numbers_formulas_links_and_code_words_are_the_same(name):
    for cell, english, text in pairs(name):
        for kind, pattern in KEPT.items():
            assert Counter(pattern.findall(english)) == Counter(pattern.findall(text)), (cell, kind)
        numbers = [Counter(NUMBER.findall(plain(one))) for one in (english, text)]
        assert numbers[0] == numbers[1], cell


@pytest.mark.parametrize("name", NAMES)
def test_no_english_is_left_in_text_and_pictures(name):
    said = drawn(read(spanish.ES / f"{name}.ipynb", as_version=4).cells)
    assert set(spanish.table(name).get("pictures", {}).values()) <= said
    assert not [text for text in said if LABEL.search(text)]
    said -= {"not scaled", "the future seen"}  # names of mistakes, as in the library
    for text in [*said, *(text for _, _, text in pairs(name))]:
        prose = re.sub(r"\([^()]*\)|\*[^*\n]+\*|«[^»]*»|[\"'][^\"'\n]*[\"']", " ", plain(text))
        assert not (found := ENGLISH.findall(prose)), (text, found)


def test_the_spanish_readme_has_the_whole_map_and_links_that_lead_somewhere():
    text = (spanish.ES / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\| \[[^\]]+\]\((\w+)\.ipynb\)", text) == SERIES
    assert all((spanish.ES / link).is_file() for link in re.findall(r"\]\(([^)]+)\)", text))


def test_every_notebook_of_the_series_is_there_in_spanish():
    assert sorted(SERIES) == NAMES
