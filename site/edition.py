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


def finish(*event: object) -> None:
    """Give a page what it lacks: a description, and what programs that read aloud need."""
    *_, context, _ = event
    tags = context.get("metatags", "")
    if 'name="description"' not in tags:
        context["metatags"] = f'{tags}<meta name="description" content="{context["about"]}">'
    tree = context["furo_navigation_tree"]
    context["furo_navigation_tree"] = re.sub('role="heading"', r'\g<0> aria-level="2"', tree)
    body = context.get("body", "").replace(' aria-label="Toggle hidden content"', "")
    context["body"] = re.sub(r'<dt class="sig .*?</dt>', signature, body, flags=re.DOTALL)


def signature(found: re.Match) -> str:
    """A signature whose arguments are lines in it, and not a list of definitions without terms."""
    return re.sub("(</?)d[ld]>", r"\1span>", found[0])


def setup(app: Sphinx) -> dict[str, bool]:
    renderers = (formula, None)
    app.add_html_math_renderer("mathml", inline_renderers=renderers, block_renderers=renderers)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("html-page-context", finish, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
