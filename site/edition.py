"""What the web edition shows in another way than Sphinx does by itself."""

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


def docstring(*event: object) -> None:
    """Ours are plain text with `code` in it; what is raised and the source get their own lines."""
    *_, lines = event
    parts = re.split(r"(`[^`]+`)", "\n".join(lines))
    parts[::2] = [re.sub(r"([*_|\\])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"`{part}`" for part in parts[1::2]]
    lines[:] = re.sub(r"\s+(?=Raises |Source: )", "\n\n", "".join(parts)).splitlines()


def describe(*event: object) -> None:
    """A page without a description of its own, such as the index, says what the series is."""
    *_, context, _ = event
    tags = context.get("metatags", "")
    if 'name="description"' not in tags:
        context["metatags"] = f'{tags}<meta name="description" content="{context["about"]}">'


def setup(app: Sphinx) -> dict[str, bool]:
    renderers = (formula, None)
    app.add_html_math_renderer("mathml", inline_renderers=renderers, block_renderers=renderers)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
