"""The Spanish edition: the English code with Spanish words, around the translator's own prose.

Usage: python tests/spanish.py [--run] [notebook ...]     (default: all that have a table)

The prose of nbs/es/NAME.ipynb belongs to the translator. This script puts the English notebook's
code cells around it, in the English order, with the words of nbs/es/NAME.json in place of the
English ones, and without what would write the library. Its outputs stay where the code is as it
was; --run executes the notebook and stores fresh ones. The table has these parts:

    "cells": for each text cell, the digest of the English text that its Spanish renders
    "words": English strings and comments, as they stand in the code, and the Spanish ones
    "alts": for each cell that draws, the Spanish of its fig-alt
    "pictures": what the library and benchmarks/ write into this notebook's pictures, and the
        Spanish of it; a hidden cell on top of the notebook tells matplotlib
"""

import argparse
import hashlib
import io
import json
import re
import sys
import tokenize
from pathlib import Path

import nbformat
from nbformat import NotebookNode

NBS = Path(__file__).resolve().parent.parent / "nbs"
ES = NBS / "es"
TOLD = """\
#| hide
# Lo que la biblioteca escribe en las imágenes, en español.
from matplotlib.text import Text

WORDS = {words}


def in_spanish(text, s, given=Text.set_text):
    given(text, WORDS.get(s, s))


Text.set_text = in_spanish"""
LIBRARY = re.compile(r"(?m)^#\| (?:default_exp|export)\b.*\n?|^.*nbdev_export\(\).*\n?")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def english(name: str) -> NotebookNode:
    return nbformat.read(NBS / f"{name}.ipynb", as_version=4)


def table(name: str) -> dict:
    return json.loads((ES / f"{name}.json").read_text(encoding="utf-8"))


def reworded(source: str, words: dict[str, str]) -> str:
    """Code in which whole strings and comments are replaced, and nothing else."""
    lines, begins = [0], []
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    done, parts = 0, []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        start, end = (lines[row - 1] + column for row, column in (token.start, token.end))
        kind = tokenize.tok_name[token.type]
        if kind == "FSTRING_START":  # Python 3.11 has one token for all of it, later ones have many
            begins.append(start)
        elif kind == "FSTRING_END":
            start = begins.pop()
        if kind in ("STRING", "COMMENT", "FSTRING_END") and not begins:
            whole = source[start:end]
            parts += [source[done:start], words.get(whole, whole)]
            done = end
    return "".join([*parts, source[done:]])


def code(source: str, words: dict[str, str]) -> str:
    """The code of a cell of the Spanish notebook."""
    return LIBRARY.sub("", reworded(source, words)).strip("\n")


def made(name: str) -> NotebookNode:
    """The Spanish notebook: the translator's text cells, and the English code cells reworded."""
    path, ours = ES / f"{name}.ipynb", table(name)
    there = {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}
    notebook = english(name)
    for cell in notebook.cells:
        old = there.get(cell.id)
        if cell.cell_type == "markdown":
            if old is None:
                raise SystemExit(f"{path.name}: no Spanish text for the cell {cell.id}")
            cell.source = old.source
            continue
        cell.source, cell.outputs = code(cell.source, ours["words"]), []
        if cell.id in ours["alts"]:
            cell.metadata["revtrans"]["fig-alt"] = ours["alts"][cell.id]
        if old is not None and (old.source, old.metadata) == (cell.source, cell.metadata):
            cell.outputs = old.outputs
    notebook.cells = [cell for cell in notebook.cells if cell.source]
    if "pictures" in ours:
        words = json.dumps(ours["pictures"], indent=4, ensure_ascii=False)
        told = nbformat.v4.new_code_cell(TOLD.replace("{words}", words), id="pictures-in-spanish")
        notebook.cells.insert(1, told)
    return notebook


def write(name: str) -> None:
    nbformat.write(made(name), ES / f"{name}.ipynb")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", action="store_true", help="execute, and store fresh outputs")
    parser.add_argument("notebooks", nargs="*", help="names, such as 05_training")
    arguments = parser.parse_args(argv)
    names = arguments.notebooks or sorted(path.stem for path in ES.glob("*.json"))
    for name in names:
        write(name)
    if not arguments.run:
        return 0
    from check_notebooks import main as check

    return check(["--write", *(str(ES / f"{name}.ipynb") for name in names)])


if __name__ == "__main__":
    sys.exit(main())
