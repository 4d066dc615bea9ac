"""Sphinx's settings for the web edition; build.py prepares what Sphinx reads."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

project = html_title = "revtrans"
language = "en"
copyright = "the revtrans authors, Apache 2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "edition"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
myst_heading_slug_func = "edition.slug"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
add_module_names = False

html_theme = os.environ.get("THEME","furo")
html_static_path = [str(HERE / "static")]
html_css_files = ["custom.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
