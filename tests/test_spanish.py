"""The Spanish edition says what the English one says now, around the same code."""

import re
from collections import Counter

import pytest
import spanish
from check_notebooks import about
from matplotlib.text import Text
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
# What pictures say in both languages: models, schemes, splits, pieces and their shapes, mistakes,
# and the words of 02, 13 and the index.
NAMES_DRAWN = re.compile(
    r"LSTM( \+ attention)?|(torch\.nn\.|x-)?[Tt]ransformers?|tutorial|none|sinusoidal|learned"
    r"|rotary|alibi|buckets|local|train|pad|causal|softmax|embed|unembed|memory|source|logits|norm\d"
    r"|(En|De)coderLayer × n_layers|(en|de)coder\.norm|batch( 1| source| target| d_model| vocab)+"
    r"|target target|\w+_\w+(\(source\))?|symbol|position|last|wanted|written"
    r"|not scaled|the future seen|split by view without transpose"
    r"|hola|hello|queue|cola|friend|amigo|water|agua|mil|dos|cinco|cuarenta|\w+ientos|veinti\w+"
    r"|transformer → remrofsnart"
)
FORBIDDEN = re.compile(
    r"\b(tokenes|librerías?|performance|testear|setear|chequear|auto-atención|acolchado|"
    r"encoders?|decoders?|tasa de entrenamiento)\b",
    re.IGNORECASE,
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
def test_no_english_is_left_and_the_glossary_is_kept(name):
    for cell, _, text in pairs(name):
        prose = re.sub(r"\([^()]*\)|\*[^*\n]+\*|«[^»]*»|[\"'][^\"'\n]*[\"']", " ", plain(text))
        assert not (found := ENGLISH.findall(prose)), (cell, found)
        assert not (found := FORBIDDEN.findall(prose)), (cell, found)


@pytest.mark.parametrize("name", NAMES)
def test_what_pictures_say_in_both_languages_is_names(name):
    ours = read(spanish.ES / f"{name}.ipynb", as_version=4).cells
    shared = drawn(ours) & drawn(spanish.english(name).cells)
    words = {word for word in shared if re.search("[A-Za-z]{3}", word)}
    assert not {word for word in words if not NAMES_DRAWN.fullmatch(word)}
    assert set(spanish.table(name).get("pictures", {}).values()) <= drawn(ours)


def test_what_tells_matplotlib_may_run_twice(monkeypatch):
    monkeypatch.setattr(Text, "set_text", Text.set_text)  # put back afterwards
    for _ in range(2):
        exec(spanish.TOLD.replace("{words}", '{"step": "paso"}'), {})
    assert [Text(0, 0, word).get_text() for word in ("step", "loss")] == ["paso", "loss"]


@pytest.mark.parametrize("name", NAMES)
def test_every_solution_is_there(name):
    for cell, english, text in pairs(name):
        counts = [
            Counter(re.findall(r"<summary>(\w+)", one))
            for one in (english, text.replace("Solución", "Solution").replace("Pista", "Hint"))
        ]
        counts[1]["Answer"] = counts[1].pop("Respuesta", 0)
        assert +counts[0] == +counts[1], cell


@pytest.mark.parametrize("name", NAMES)
def test_every_link_to_a_heading_leads_to_one(name):
    text = "\n".join(spanish for _, _, spanish in pairs(name))
    for target, anchor in re.findall(r"\]\((\w+)\.ipynb#([^)]+)\)", text):
        titles = re.findall(r"(?m)^#+ (.*)$", "\n".join(text for _, _, text in pairs(target)))
        assert anchor in {title.replace(" ", "-") for title in titles}, (target, anchor)


def test_the_spanish_readme_has_the_whole_map_and_links_that_lead_somewhere():
    text = (spanish.ES / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\| \[[^\]]+\]\((\w+)\.ipynb\)", text) == SERIES
    assert all((spanish.ES / link).is_file() for link in re.findall(r"\]\(([^)]+)\)", text))


def test_every_notebook_of_the_series_is_there_in_spanish():
    assert sorted(SERIES) == NAMES
