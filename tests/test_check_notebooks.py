"""tests/check_notebooks.py must catch what it says it catches, and nothing else."""

import ast
import base64
import io
import re
import sys
from configparser import ConfigParser

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from check_notebooks import compare, difference, main, tolerance_of
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output
from pictures import SHARE, changed, moved
from PIL import Image
from series import NOTEBOOKS, ROOT


def code(source: str, **about: str) -> NotebookNode:
    return new_code_cell(source, metadata={"revtrans": about} if about else {})


def agree(stored: str, fresh: str, **about: str) -> bool:
    return difference(stored, fresh, tolerance_of(code("1", **about))) is None


def printed(text: str, name: str = "stdout") -> NotebookNode:
    return new_output("stream", name=name, text=text)


@pytest.mark.parametrize(
    ("stored", "fresh", "same"),
    [
        ("a  b\n c", "a b c", True),
        ("a  score\n-  -----\n1    9.5", "a   score\n-   ------\n1   9.45", True),
        ("<object at 0x7f01>", "<object>", True),
        ("\x1b[31mred\x1b[0m −1.5", "red -1.5", True),
        ("reversed: dcba", "reversed: dcab", False),
        ("3 words.", "4 words.", False),
        ("loss 0.500", "loss 0.504", True),
        ("loss 0.500", "loss 0.507", False),
        ("loss 3.2e-5", "loss 3.2e-4", False),
        ("loss 0.5", "loss -0.5", False),
        ("loss 0.5", "loss nan", False),
        ("tensor([1., 0.])", "tensor([0., 0.])", False),
        ("99.5% of 1,234.5 words", "99.9% of 1,235.1 words", True),
        ("1,000 words", "1,001 words", False),
        ("layer.1", "layer.2", False),
        ("torch 2.13.0", "torch 2.13.1", False),
        ("rows 3-5", "rows 3-6", False),
        ("1 2", "1 2 3", False),
    ],
)
def test_numbers_may_differ_a_little_and_words_may_not(stored: str, fresh: str, same: bool) -> None:
    assert agree(stored, fresh) == agree(fresh, stored) == same


def test_a_cells_metadata_set_the_tolerance() -> None:
    assert agree("10 words, loss 1.0", "12 words, loss 1.25", tolerance="0.3")
    assert not agree("10 words", "14 words", tolerance="0.3")
    assert agree("trained in 0:32, 40x faster", "trained in 1:07, 2x faster", tolerance="off")
    assert not agree("trained in 32 s", "trained in 32 h", tolerance="off")
    assert not agree("loss 0.5", "loss nan", tolerance="off")


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def drawn(title: str = "A title", shift: float | None = None, **options: object) -> bytes:
    """A small attention map; or, with a shift, a curve as a training may draw it."""
    figure, ax = plt.subplots(figsize=(4, 3))
    if shift is None:
        ax.imshow(np.eye(5)[::-1], **{"origin": "upper", **options})
    else:
        x = np.linspace(0, 1, 50)
        ax.plot(x, np.exp(-3 * x) + shift + 0.01 * np.sin(40 * x + 50 * shift), **options)
        ax.set_ylim(0, 1.2)
    ax.set_title(title)
    file = io.BytesIO()
    figure.savefig(file)
    plt.close(figure)
    return file.getvalue()


def test_pictures_are_as_far_from_each_other_as_they_look() -> None:
    a_map, curve = drawn(), drawn(shift=0)
    mirrored = png(np.asarray(Image.open(io.BytesIO(a_map)).convert("RGB"))[:, ::-1])
    grey = np.full((50, 90, 3), 128, np.uint8)
    for stored, fresh, measure, low, high in [
        (a_map, drawn("A titel"), changed, SHARE, 0.1),
        (a_map, drawn(origin="lower"), changed, SHARE, 1),
        (png(grey), png(grey + 20), changed, SHARE, 0.1),  # a little, and everywhere
        (png(grey), png(grey.transpose(1, 0, 2)), changed, 1, 1),
        (a_map, mirrored, moved, 0.4, 1),
        (curve, drawn(shift=0.02), moved, 0, 0.1),
        (curve, drawn(shift=0.2), moved, 0.9, 1),
        (curve, drawn(shift=0, color="tab:red"), moved, 0.9, 1),
        (curve, drawn(shift=0, linestyle="none"), moved, 0.9, 1),
    ]:
        assert measure(stored, stored) == 0
        assert low <= measure(stored, fresh) <= high


def test_a_figures_share_lets_its_lines_and_numbers_move_but_not_its_words() -> None:
    def output(words: str, shift: float = 0) -> list[NotebookNode]:
        data = {"image/png": base64.b64encode(drawn(shift=shift)).decode()}
        return [new_output("display_data", data, metadata={"image/png": {"words": words}})]

    stored, moving = output("epoch 3 | loss"), output("epoch 4 | loss", 0.02)
    assert len(list(compare(stored, moving, None))) == 2
    assert not list(compare(stored, moving, None, 0.1))
    assert list(compare(stored, output("epoch 3 | gain"), None, 0.1))


def test_each_notebook_imports_only_what_it_is_allowed_to() -> None:
    """What the library and its extra `check` require, and this repository; nothing that fetches."""
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    required = config["DEFAULT"]["requirements"] + " " + config["DEFAULT"]["check_requirements"]
    allowed = {part.split(">=")[0] for part in required.split()}
    allowed |= {"numpy", "revtrans", "benchmarks", "IPython"}  # matplotlib brings numpy
    allowed |= sys.stdlib_module_names - {"ftplib", "http", "socket", "ssl", "urllib"}
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        for node in ast.walk(ast.parse(re.sub(r"(?m)^[%!].*$", "", source))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, f"{path.name}: {names}"


def test_every_stored_picture_has_its_words_and_its_alternative() -> None:
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    assert {"alt", "words"} <= output.metadata["image/png"].keys(), path.name


ALT = "A line that rises from one to two, drawn from left to right."
DRAW = "import matplotlib.pyplot as plt\nplt.semilogy([1, 9]); plt.title('Up: $x$ < 2');"


def test_a_good_notebook_is_stored_and_each_fault_of_a_bad_one_is_reported(tmp_path, capsys):
    cells = [
        code("print('dcba', flush=True); print('twice')"),
        code("object()"),
        code("import os, sys\nprint(sys.executable, os.listdir())"),
        code(DRAW, **{"fig-alt": ALT}),
        code("import time\nprint(f'{time.time()} s')", tolerance="off"),
        code("#| eval: false\nraise SystemExit"),
        code("from tqdm.notebook import tqdm\nfor _ in tqdm(range(3), leave=False): pass"),
    ]
    path = tmp_path / "good.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    assert main(["--write", str(path)]) == 0
    notebook = nbformat.read(path, as_version=4)
    word, value, folder, picture, seconds, skipped, bar = (c.outputs for c in notebook.cells)
    assert word == [printed("dcba\ntwice\n")] and skipped == bar == []
    assert value[0].data["text/plain"] == "<object>"
    assert folder == [printed(f"{sys.executable} []\n")], "an empty folder"
    assert [*picture[0].data] == ["image/png", "text/plain"]
    assert picture[0].metadata["image/png"] == {"alt": ALT, "words": "Up: $x$ < 2"}

    word[0].text = "dcbaa\ntwice\n"
    picture[0].metadata["image/png"] = {"alt": "A pie chart of cheese.", "words": "Down"}
    seconds.clear()
    bar += [printed("old warning", "stderr"), printed("step 1\rstep 2")]
    notebook.cells += [
        code("x = 1", tolerence="0.3"),
        code("x = 2", tolerance="30%"),
        code(DRAW),
        code("print('end', file=sys.stderr)\n1 / 0"),
        code("print('never run')"),
    ]
    nbformat.write(notebook, path)
    before = path.read_bytes()
    assert main([str(path)]) == 1 and path.read_bytes() == before
    report = capsys.readouterr().out
    assert re.findall(r"(?m)^good\.ipynb, cell (\d+): (.*)", report) == [
        ("0", "outputs differ"),
        ("3", "the words of pictures differ"),
        ("3", "the text alternatives of pictures differ"),
        ("4", "0 outputs stored, 1 fresh"),
        ("6", "text on stderr is stored"),
        ("6", "widget or progress bar is stored"),
        ("6", "1 outputs stored, 0 fresh"),
        ("7", "its metadata have 'tolerence', which says nothing"),
        ("8", "tolerance '30%' is neither off nor a number from 0 up to 1"),
        ("9", "a picture without a text alternative: fig-alt of 40 characters or more"),
        ("9", "0 outputs stored, 1 fresh"),
        ("10", "text on stderr"),
        ("10", "error"),
    ]
    assert "print('twice')\n    stored: dcbaa twice\n" in report and "ZeroDivisionError" in report
