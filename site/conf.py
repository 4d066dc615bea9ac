"""Sphinx's settings for the web edition; build.py prepares what Sphinx reads."""

import sys
from configparser import ConfigParser
from pathlib import Path

SITE = Path(__file__).resolve().parent
sys.path[:0] = [str(SITE), str(SITE.parent)]

config = ConfigParser(delimiters=["="])
config.read(SITE.parent / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]

project = html_title = settings["title"]
copyright = settings["copyright"]
html_context = {"about": settings["description"]}
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "edition"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_heading_slug_func = "edition.slug"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
add_module_names = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["edition.css"]
html_js_files = ["edition.js"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
pygments_dark_style = "a11y-dark"
