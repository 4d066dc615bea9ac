"""Build the web edition from the stored outputs: python site/build.py [folder]

Nothing is run. The notebooks are copied into a folder of sources, as a reader wants them: hidden
cells and directives gone, exported cells marked with their module, solutions folded with their
code. Sphinx makes pages of them, and of the modules' docstrings and the benchmarks' tables.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHELVES = {  # the first figures of the notebooks' names, in the order of reading
    "The Transformer": "0[0-7]",
    "Studies": "0[89]|1",
    "Inside the library": "2|teaching",
}
PNG = "image/png"
DIRECTIVES = re.compile(r"(#\|.*\n?)*")


def directives(cell: NotebookNode) -> tuple[dict[str, str], str]:
    """The #| lines at the top of a code cell, by name, and the code below them."""
    top = DIRECTIVES.match(cell.source)[0]
    found = re.findall(r"^#\| ?([\w-]+):? ?(.*)$", top, re.MULTILINE)
    return dict(found), cell.source[len(top) :]


def module_of(notebook: NotebookNode) -> str | None:
    """The module that a notebook exports, if it does."""
    for cell in notebook.cells:
        if found := re.match(r"#\| default_exp (\S+)", cell.source):
            return f"revtrans.{found[1]}".removesuffix(".__init__")
    return None


def description(notebook: NotebookNode) -> str:
    """The line in a notebook's first cell that says what it is about."""
    return re.search(r"^> (.+)$", notebook.cells[0].source, re.MULTILINE)[1]


def readable(notebook: NotebookNode, name: str) -> Iterator[NotebookNode]:
    """The cells of a notebook as the web edition shows them."""
    module, open_details = module_of(notebook), False
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            if open_details:
                yield new_markdown_cell("</details>")
            following = notebook.cells[number + 1 : number + 2]
            folded = [c for c in following if c.cell_type == "code" and "code-fold" in directives(c)[0]]
            open_details = bool(folded) and cell.source.endswith("</details>")
            if open_details:  # the code of a solution folds with its words
                cell.source = cell.source.removesuffix("</details>")
            yield cell
            if number == 0:
                yield new_markdown_cell(
                    f'<p class="download"><a href="notebooks/{name}.ipynb" download>'
                    "Download this notebook</a></p>"
                )
            continue
        found, cell.source = directives(cell)
        if "hide" in found or not cell.source:
            continue
        if "code-fold" in found and not open_details:
            cell.metadata["tags"] = ["hide-input"]
        if "export" in found:
            yield new_markdown_cell(
                f':::{{container}} exported\nexported to [{module}](api/{module}.rst)\n:::'
            )
        for output in cell.outputs:
            if alternative := output.get("metadata", {}).get(PNG, {}).get("alt"):
                cell.metadata["mystnb"] = {"image": {"alt": alternative}}
        yield cell
    if open_details:
        yield new_markdown_cell("</details>")


def toctree(caption: str, names: list[str]) -> str:
    return "\n".join([f":::{{toctree}}\n:hidden:\n:caption: {caption}\n", *names, ":::"])


def write_sources(source: Path, extra: Path) -> None:
    """Write what Sphinx reads to `source`, and what it hands on as it is to `extra`."""
    (source / "api").mkdir(parents=True)
    (extra / "notebooks").mkdir(parents=True)
    paths = sorted((ROOT / "nbs").glob("*.ipynb"))
    modules = []
    for path in paths:
        shutil.copy(path, extra / "notebooks")
        notebook = nbformat.read(path, as_version=4)
        title = re.match(r"# (.+)", notebook.cells[0].source)[1]
        about = description(notebook)
        if module := module_of(notebook):
            modules.append(f"api/{module}")
            (source / "api" / f"{module}.rst").write_text(api_page(module, path.stem, title))
        notebook.metadata["myst"] = {"html_meta": {"description": about}}
        notebook.cells = list(readable(notebook, path.stem))
        if path.stem == "index":
            shelves = [
                toctree(name, [p.stem for p in paths if re.match(numbers, p.stem)])
                for name, numbers in SHELVES.items()
            ]
            index = notebook
        else:
            nbformat.write(notebook, source / path.name)
    shelves.append(toctree("Reference", [*modules, "benchmarks"]))
    index.cells.append(new_markdown_cell("\n\n".join(shelves)))
    nbformat.write(index, source / "index.ipynb")
    shutil.copy(ROOT / "benchmarks" / "README.md", source / "benchmarks.md")
    shutil.copytree(ROOT / "benchmarks" / "figures", source / "figures")


def api_page(module: str, notebook: str, title: str) -> str:
    heading = f"{module}\n{'=' * len(module)}\n\n"
    return heading + f"Built in :doc:`{title} </{notebook}>`.\n\n.. automodule:: {module}\n   :members:\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "_build")
    folder = parser.parse_args().folder.resolve()
    from sphinx.cmd.build import build_main

    shutil.rmtree(folder, ignore_errors=True)
    with TemporaryDirectory() as tmp:
        source, extra = Path(tmp, "source"), Path(tmp, "extra")
        write_sources(source, extra)
        settings = ["-c", str(HERE), "-D", f"html_extra_path={extra}", "-d", f"{tmp}/doctrees"]
        strict = ["-q", "-W", "--keep-going", "-j", "auto"]
        code = build_main([*strict, *settings, str(source), str(folder)])
    if not code:
        print(f"The web edition: open {folder / 'index.html'} in a browser.")
    return code


if __name__ == "__main__":
    sys.exit(main())
