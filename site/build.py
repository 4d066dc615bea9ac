"""Build the web edition from the stored outputs: python site/build.py [folder]

There is an English edition and, in the folder es, a Spanish one. No notebook is run. Each is copied
as a reader wants to see it: hidden cells and directives are gone, exported cells name their module,
a solution folds together with its code. Sphinx makes pages of them, of the modules' docstrings and
of the benchmarks' tables.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

SITE = Path(__file__).resolve().parent
ROOT = SITE.parent
PNG, PICTURE = "image/png", "attention.png"
DIRECTIVES = re.compile(r"(?:#\|.*\n?)*")
# A link to the same notebook in the other language.
TWIN = re.compile(r" \[[^\]]*\]\((?:es|\.\.)/\w+\.ipynb\)")
LINKS = {
    "en": '<p><a href="notebooks/{0}.ipynb" download>Download this notebook</a> · '
    '<a href="es/{0}.html" lang="es" hreflang="es">En español</a></p>',
    "es": '<p><a href="notebooks/{0}.ipynb" download>Descarga este cuaderno</a> · '
    '<a href="../{0}.html" lang="en" hreflang="en">In English</a></p>',
}
SPANISH = {
    "The Transformer": "El Transformer",
    "Studies": "Estudios",
    "Inside the library": "Dentro de la biblioteca",
}
EXPORTED = "```{{container}} exported\nexported to [{0}](api/{0}.rst)\n```"
LIVE = """
<iframe class="live" src="{0}page.html" title="{1}" loading="lazy"></iframe>
<p><a href="{0}page.html">{2}</a></p>
"""
LIVE_TEXTS = {
    "en": ("", "A trained model to play with", "The model on a page of its own"),
    "es": ("../", "Un modelo entrenado para jugar con él", "El modelo en una página propia"),
}


def shelves(readme: str) -> dict[str, list[str]]:
    """The notebooks of each shelf, in the order of reading: the tables of README's map."""
    found = {}
    for caption, name in re.findall(r"^\*\*(.+)\*\*$|^\| \[(\w+)\]\(\S+\.ipynb\)", readme, re.M):
        if caption:
            shelf = found[caption] = []
        else:
            shelf.append(name)
    return {caption: shelf for caption, shelf in found.items() if shelf}


def directives(cell: NotebookNode) -> tuple[set[str], str]:
    """The names of the #| lines at the top of a code cell, and the code below them."""
    top = DIRECTIVES.match(cell.source)[0]
    return set(re.findall(r"^#\| ?([\w-]+)", top, re.MULTILINE)), cell.source[len(top) :]


def module_of(notebook: NotebookNode) -> str | None:
    """The module that a notebook exports, if it does."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    found = re.search(r"^#\| default_exp (\S+)", code, re.MULTILINE)
    return f"revtrans.{found[1]}".removesuffix(".__init__") if found else None


def is_folded(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "code-fold" in directives(cell)[0]


def readable(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """The cells of a notebook as the web edition shows them."""
    module, cells, unfinished = module_of(notebook), notebook.cells, False
    for cell, following in zip(cells, [*cells[1:], new_markdown_cell()]):
        if unfinished and not is_folded(cell):
            yield new_markdown_cell("</details>")
            unfinished = False
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace(f"(../{PICTURE})", f"({PICTURE})")
            if cell is not cells[0]:  # a page has one title; in slides each may have its own
                cell.source = re.sub(r"^# ", "## ", cell.source)
            if is_folded(following) and cell.source.endswith("</details>"):
                cell.source = cell.source.removesuffix("</details>")
                unfinished = True
            yield cell
            continue
        names, cell.source = directives(cell)
        if "hide" in names or not cell.source:
            continue
        if "code-fold" in names and not unfinished:
            cell.metadata.tags = ["hide-input"]
        if "export" in names:
            yield new_markdown_cell(EXPORTED.format(module))
        for output in cell.outputs:
            if alternative := output.get("metadata", {}).get(PNG, {}).get("alt"):
                cell.metadata.mystnb = {"image": {"alt": alternative}}
        yield cell
    if unfinished:
        yield new_markdown_cell("</details>")


def toctree(caption: str, names: list[str]) -> NotebookNode:
    options = f":hidden:\n:caption: {caption}"
    return new_markdown_cell("\n".join(["```{toctree}", options, "", *names, "```"]))


def api_page(module: str, name: str, description: str) -> str:
    return f"""{module}
{"=" * len(module)}

.. meta::
   :description: {module}: {description}

Built in :doc:`/{name}`.

.. automodule:: {module}
   :members:
"""


def write_sources(source: Path, extra: Path, live: Path, language: str) -> None:
    """Write what Sphinx reads into `source`, and what it hands on as it is into `extra`."""
    (source / "api").mkdir(parents=True)
    (extra / "notebooks").mkdir(parents=True)
    shelf_of, modules = shelves((ROOT / "README.md").read_text(encoding="utf-8")), []
    folder = ROOT / "nbs" if language == "en" else ROOT / "nbs" / language
    for name in chain(*shelf_of.values()):
        path = folder / f"{name}.ipynb"
        shutil.copy(path, extra / "notebooks")
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[0].source = TWIN.sub("", notebook.cells[0].source)
        description = re.search(r"^> (.+)$", notebook.cells[0].source, re.MULTILINE)[1]
        notebook.metadata.myst = {"html_meta": {"description": description}}
        if module := module_of(notebook):
            modules.append(f"api/{module}")
            text = api_page(module, name, description)
            (source / f"api/{module}.rst").write_text(text, encoding="utf-8")
        notebook.cells = list(readable(notebook))
        notebook.cells.insert(1, new_markdown_cell(LINKS[language].format(name)))
        if name == "index":
            front = notebook
        else:
            nbformat.write(notebook, source / path.name)
    if live.is_file():
        front.cells.insert(2, new_markdown_cell(LIVE.format(*LIVE_TEXTS[language])))
    if language == "en":
        shelf_of["Reference"] = [*modules, "genindex", "benchmarks"]
        shutil.copy(ROOT / "benchmarks" / "README.md", source / "benchmarks.md")
        shutil.copytree(ROOT / "benchmarks" / "figures", source / "figures")
        if live.is_file():
            shutil.copy(live, extra / "page.html")
    else:
        shelf_of = {SPANISH[caption]: names for caption, names in shelf_of.items()}
    for caption, names in shelf_of.items():
        front.cells.append(toctree(caption, [name for name in names if name != "index"]))
    nbformat.write(front, source / "index.ipynb")
    shutil.copy(ROOT / "nbs" / PICTURE, source)


def build(folder: Path, live: Path, language: str) -> int:
    """Build the edition of one language; 0 if nothing is wrong with it."""
    from sphinx.cmd.build import build_main

    with TemporaryDirectory() as tmp:
        source, extra = Path(tmp, "source"), Path(tmp, "extra")
        write_sources(source, extra, live, language)
        strict = ["-q", "-W", "--keep-going", "-j", "auto", "-d", f"{tmp}/doctrees"]
        settings = ["-c", str(SITE), "-D", f"html_extra_path={extra}", "-D", f"language={language}"]
        if language == "es":
            settings += ["-D", "html_title=revtrans en español"]
        return build_main([*strict, *settings, str(source), str(folder)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SITE / "_build")
    parser.add_argument(
        "--live",
        type=Path,
        default=ROOT / "revtrans-demo" / "page.html",
        help="the live page for the front, as `revtrans demo` writes it (default: %(default)s)",
    )
    options = parser.parse_args()
    folder = options.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    failed = build(folder, options.live, "en") or build(folder / "es", options.live, "es")
    if not failed:
        print(f"The web edition is in {folder}: open {folder / 'index.html'}.")
        if not options.live.is_file():
            print(f"There is no live page on its front: there is no {options.live}.")
    return failed


if __name__ == "__main__":
    sys.exit(main())
