"""What the web edition shows in another way than Sphinx: formulas, docstrings, links to headings."""

import re

from docutils.nodes import SkipNode, math, math_block
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator


def slug(heading: str) -> str:
    """The name that Jupyter gives to a heading, so that links to it work in both."""
    return heading.replace(" ", "-")


def formula(translator: HTML5Translator, node: math | math_block) -> None:
    """Write a formula as MathML, which browsers show by themselves."""
    display = "block" if isinstance(node, math_block) else "inline"
    translator.body.append(convert(node.astext(), display=display))
    raise SkipNode


def docstring(app: Sphinx, what: str, name: str, of: object, options: dict, lines: list[str]) -> None:
    """Ours are plain text, where nothing but `code` is markup; a source gets its own paragraph."""
    text = re.sub(r"(`[^`]+`)|([*_|\\])", r"\1\\\2", "\n".join(lines)).replace("`\\", "`")
    text = re.sub(r"`[^`]+`", r"`\g<0>`", text)
    text = re.sub(r"\s+(?=(Raises|Source:|Returns) )", r"\n\n", text)
    lines[:] = text.splitlines()


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer(
        "mathml", inline_renderers=(formula, None), block_renderers=(formula, None)
    )
    app.connect("autodoc-process-docstring", docstring)
