"""The web edition: how a notebook is made readable, and what its checks notice."""

import runpy
from pathlib import Path

import nbformat
import pytest
from check_site import main
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from series import NAMES, NOTEBOOKS, README

ROOT = Path(__file__).parent.parent
BUILD = runpy.run_path(str(ROOT / "site" / "build.py"))
HINT = "<details><summary>Hint</summary>\n\nlook\n</details>"
SOLUTION = "<details><summary>Solution</summary>\n\ndone\n</details>"


def shown(*cells) -> list:
    return list(BUILD["readable"](new_notebook(cells=[*cells])))


def test_the_shelves_are_those_of_readme_and_hold_every_notebook():
    shelves = BUILD["shelves"](README)
    assert list(shelves) == ["The Transformer", "Studies", "Inside the library"]
    assert [name for shelf in shelves.values() for name in shelf] == NAMES
    assert shelves["The Transformer"][0] == "index" and shelves["Studies"][0].startswith("08")


def test_hidden_cells_are_gone_and_exported_ones_name_their_module():
    *cells, last = shown(
        new_code_cell("#| default_exp exercises.__init__"),
        new_code_cell("#| hide\nimport torch"),
        new_code_cell("#| export\n#| code-fold: true\nx = 1  #| stays"),
        new_code_cell("x"),
    )
    mark, code = cells
    assert "[revtrans.exercises](api/revtrans.exercises.rst)" in mark.source
    assert (code.source, code.metadata.tags) == ("x = 1  #| stays", ["hide-input"])
    assert last.source == "x" and not last.metadata


def test_a_picture_keeps_its_text_alternative():
    about = {"image/png": {"alt": "a line"}}
    picture = new_output("display_data", {"image/png": ""}, metadata=about)
    (cell,) = shown(new_code_cell("plot()", outputs=[picture]))
    assert cell.metadata.mystnb == {"image": {"alt": "a line"}}


@pytest.mark.parametrize("after", [[], [new_markdown_cell("next")], [new_code_cell("next")]])
def test_a_solution_folds_together_with_all_of_its_code(after):
    folded = [new_code_cell(f"#| code-fold: true\n{name}") for name in "ab"]
    text, *code, end = shown(new_markdown_cell(f"{HINT}\n\n{SOLUTION}"), *folded, *after)[:4]
    assert text.source == f"{HINT}\n\n{SOLUTION}".removesuffix("</details>")
    assert [cell.source for cell in code] == ["a", "b"] and end.source == "</details>"
    assert not any("tags" in cell.metadata for cell in code), "it folds once, not twice"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_shows_a_directive_and_every_fold_is_closed(path):
    cells = list(BUILD["readable"](nbformat.read(path, as_version=4)))
    text = "\n".join(cell.source for cell in cells)
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert "\n#|" not in f"\n{code}"
    assert text.count("<details>") == text.count("</details>")


GOOD = """<html lang="en"><title>one</title><meta name="description" content="about">
<h1 id="top">a</h1><a href="bad.html#top">b</a><img src="a.png" alt="a line"><math></math>
<pre>$$</pre></html>"""
BAD = """<html><title></title><meta name="description" content=""><h1 id="top">a</h1>
<a href="three.html">b</a><a href="good.html#bottom">b</a><a href="https://nowhere">b</a>
<img src="a.png" alt=""><script src="https://a.org/a.js"></script><details>
<pre>
#| export
</pre>$$x$$</html>"""


def test_the_checks_notice_what_is_wrong_with_a_page(tmp_path, capsys):
    (tmp_path / "a.png").touch()
    for name, text in {"good": GOOD, "bad": BAD, "same": GOOD}.items():
        (tmp_path / f"{name}.html").write_text(text)
    assert main(tmp_path) == 1
    said, *found, _ = capsys.readouterr().out.splitlines()
    assert said == "the title of several pages: one"
    assert [line.removeprefix("bad.html: ") for line in found] == [
        "no language",
        "no title",
        "no description",
        'no text alternative: <img alt="" src="a.png"/>',
        "leads nowhere: three.html",
        "leads to no heading: good.html#bottom",
        "a link without form: https://nowhere",
        "fetched from elsewhere: https://a.org/a.js",
        "something that folds is not closed, or closed twice",
        "left over: #| export",
        "left over: $$x$$",
    ]
