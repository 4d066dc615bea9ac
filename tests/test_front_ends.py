"""Our template for nbconvert keeps what a notebook folds, and says what its pictures show."""

import nbformat
import pytest
from bs4 import BeautifulSoup
from check_notebooks import about
from nbconvert import HTMLExporter
from series import NOTEBOOKS, ROOT

PATHS = [path for path in NOTEBOOKS if path.stem in ("02_attention", "03_positions")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_our_template_folds_what_jupyterlab_folds_and_names_pictures(path):
    notebook = nbformat.read(path, as_version=4)
    plain, _ = HTMLExporter().from_notebook_node(notebook)
    exporter = HTMLExporter(template_name="folded", extra_template_basedirs=[str(ROOT / "site")])
    page, _ = exporter.from_notebook_node(notebook)
    folded = [c for c in notebook.cells if c.metadata.get("jupyter", {}).get("source_hidden")]
    assert page.count("<details>") - plain.count("<details>") == len(folded) > 0
    soup, named = BeautifulSoup(page, "html.parser"), 0
    for details in soup.find_all("details"):
        summary = details.find("summary").get_text()
        named += summary == "</>" and details.find("div", class_="jp-CodeCell") is not None
    assert named == len(folded)
    said = [about(c)["fig-alt"] for c in notebook.cells if "fig-alt" in about(c)]
    assert [image["alt"] for image in soup.find_all("img")] == said
    for cell in notebook.cells:  # as a reader's own run leaves them
        for output in cell.get("outputs", []):
            output.metadata = {}
    page, _ = exporter.from_notebook_node(notebook)
    assert [image["alt"] for image in BeautifulSoup(page, "html.parser").find_all("img")] == said
