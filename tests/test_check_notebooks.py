"""tests/check_notebooks.py must catch what it says it catches, and nothing else."""

import ast
import base64
import io
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import check_notebooks
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from check_notebooks import compare, difference, faults, main, tolerance_of
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pictures import SHARE, changed, moved, words
from PIL import Image
from series import NOTEBOOKS, ROOT


def code(source: str, **about: str) -> NotebookNode:
    return new_code_cell(source, metadata={"revtrans": about} if about else {})


def agree(stored: str, fresh: str, **about: str) -> bool:
    return difference(stored, fresh, tolerance_of(code("1", **about))) is None


def shown(plain: str, kind: str = "text/plain", text: str = "") -> NotebookNode:
    return new_output("display_data", {kind: text, "text/plain": plain})


def drawn(title: str = "An anti-diagonal", **options: object) -> str:
    """A small attention map, as a notebook stores it."""
    figure, ax = plt.subplots(figsize=(4, 3))
    ax.imshow(np.eye(5)[::-1], **{"cmap": "viridis", "origin": "upper", **options})
    ax.set_title(title)
    file = io.BytesIO()
    figure.savefig(file)
    plt.close(figure)
    return base64.b64encode(file.getvalue()).decode()


def printed(text: str, name: str = "stdout") -> NotebookNode:
    return new_output("stream", name=name, text=text)


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        ("a  b\n c", "a b c"),
        ("name  score\n----  -----\n a     9.5", "name   score\n----   ------\n a      9.45"),
        ("loss 0.500", "loss 0.504"),
        ("loss 5.00e-05", "loss 5.04e-05"),
        ("x -0.00", "x 0.00"),
        ("tensor([ 0.50, 0.25])", "tensor([0.50, 0.25])"),
        ("99.5% of 1,234.5 words", "99.9% of 1,235.1 words"),
        ("<object at 0x7f01>", "<object>"),
        ("\x1b[31mred\x1b[0m −1.5", "red -1.5"),
    ],
)
def test_agree(stored: str, fresh: str) -> None:
    assert agree(stored, fresh)


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        ("reversed: dcba", "reversed: dcab"),
        ("3 words", "4 words"),
        ("3 words.", "4 words."),
        ("1,000 words", "1,001 words"),
        ("tensor([1., 0.])", "tensor([0., 0.])"),
        ("loss 0.500", "loss 0.507"),
        ("loss 3.2e-5", "loss 3.2e-4"),
        ("loss 0.5", "loss -0.5"),
        ("loss 0.5", "loss nan"),
        ("nan", "inf"),
        ("1", "1.0"),
        ("a1", "a2"),
        ("layer.1", "layer.2"),
        ("torch 2.13.0", "torch 2.13.1"),
        ("rows 3-5", "rows 3-6"),
        ("0:01", "0:02"),
        ("12x", "13x"),
        ("12x", "12y"),
        ("7f9a", "7f9b"),
        ("---- 1", "1"),
        ("1 2", "1 2 3"),
        ("1 2 3", "1 2"),
    ],
)
def test_differ(stored: str, fresh: str) -> None:
    assert not agree(stored, fresh)


def test_a_cells_metadata_set_the_tolerance() -> None:
    assert agree("10 words, loss 1.0", "12 words, loss 1.25", tolerance="0.3")
    assert not agree("10 words", "14 words", tolerance="0.3")
    assert not agree("0 wrong", "1 wrong", tolerance="0.3")
    assert not agree("10 words", "12 letters", tolerance="0.3")
    assert agree("trained in 0:32, 40x faster", "trained in 1:07, 2x faster", tolerance="off")
    assert not agree("trained in 32 s", "trained in 32 h", tolerance="off")
    assert not agree("trained in 32 s", "trained in 32 5 s", tolerance="off")
    assert not agree("loss 0.5", "loss nan", tolerance="off")
    assert tolerance_of(code("1", tolerance=0.3)) == 0.3


@pytest.mark.parametrize("value", ["1.5", "30%", "wide", "-0.1", "nan", "0.1 0.2", ""])
def test_an_unreadable_tolerance_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=f"tolerance '{value}' is neither"):
        tolerance_of(code("1", tolerance=value))


def test_outputs_are_counted_and_read_as_a_reader_does() -> None:
    text = [printed("a\n"), printed("b\n")]
    figure, drawing = shown("<Figure>", "image/png", drawn()), shown("<Figure>", "image/svg+xml")
    styled = "<b>5</b> &lt;<style>p {}</style><img src='a'>"

    def differs(stored: list[NotebookNode], fresh: list[NotebookNode]) -> bool:
        return bool(list(compare(stored, fresh, None)))

    assert not differs(text, [printed("a b")])
    assert not differs([figure], [shown("<Figure size 9x9>", "image/png", drawn())])
    assert differs([figure], [shown("<Figure>", "image/png", drawn(origin="lower"))])
    assert differs([*text, figure], text) and differs(text, [*text, figure])
    assert differs([figure], [figure, figure]) and differs([figure], [drawing])
    assert not differs([shown("<HTML>", "text/html", styled)], [shown("5 < picture img")])
    assert differs([shown("<HTML>", "text/html", styled)], [shown("6 < picture img")])
    assert not differs([shown("six", "text/html", "<b>6</b>")], [shown("six")])


@pytest.mark.parametrize(
    "output",
    [
        new_output("error", ename="ValueError", evalue="no"),
        printed("UserWarning", "stderr"),
        printed("step 1\rstep 2"),
        shown("  0%|          | 0/1200 [00:00<?, ?it/s]"),
        shown("Output()", check_notebooks.WIDGET),
    ],
)
def test_faults(output: NotebookNode) -> None:
    assert len(list(faults([output]))) == 1


GOOD = {
    "word": "print('dcba', flush=True); print('twice')",
    "integer": "3",
    "decimal": "print(0.500)",
    "picture": "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.title('Up: $x$ < 2');",
    "seconds": "import time\nprint(f'{time.time()} s')",
    "widened": "print(10, 'steps')",
    "skipped": "#| eval: false\nraise SystemExit",
    "bar": "from tqdm.notebook import tqdm\nfor _ in tqdm(range(3), leave=False): pass",
    "silent": "import sys\nobject()",
    "python": "import os\nprint(sys.executable, os.listdir())",
    "last": "print('end')",
}
ABOUT = {
    "picture": {"fig-alt": "A line that rises from one to two, drawn from left to right."},
    "seconds": {"tolerance": "off"},
    "widened": {"tolerance": "0.3"},
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook whose outputs --write has stored, whatever backend and kernel are set."""
    path = tmp_path_factory.mktemp("nbs") / "good.ipynb"
    cells = [code(source, **ABOUT.get(name, {})) for name, source in GOOD.items()]
    cells.insert(0, new_markdown_cell("# Title"))
    cells[1 + list(GOOD).index("skipped")].outputs = [printed("left alone")]
    cells[1].metadata = {"tags": ["mine"], "jupyter": {"source_hidden": True}}
    nbformat.write(
        new_notebook(cells=cells, metadata={"kernelspec": {"name": "none", "display_name": "No"}}),
        path,
    )
    spec = path.parent / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["no-such-python"], "display_name": "no", "language": "python"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(path.parent))
        patch.setenv("MPLBACKEND", "agg")
        assert main(["--write", str(path)]) == 0
    return path


def outputs_of(notebook: NotebookNode, name: str) -> list[NotebookNode]:
    return notebook.cells[1 + list(GOOD).index(name)].outputs


def test_write_stores_what_nbdev_clean_keeps(good: Path) -> None:
    text = good.read_text(encoding="utf-8")
    clean = "import sys, nbdev.clean; nbdev.clean.nbdev_clean.__wrapped__(sys.argv[1])"
    subprocess.run([sys.executable, "-c", clean, str(good)], cwd=ROOT, check=True)
    assert good.read_text(encoding="utf-8") == text
    notebook = nbformat.read(good, as_version=4)
    nbformat.validate(notebook)
    assert outputs_of(notebook, "word") == [printed("dcba\ntwice\n")]
    assert outputs_of(notebook, "silent")[0].data["text/plain"] == "<object>"
    assert notebook.cells[1].metadata == {"jupyter": {"source_hidden": True}}  # see settings.ini
    assert outputs_of(notebook, "skipped") == [printed("left alone")]
    assert [*outputs_of(notebook, "picture")[0].data] == ["image/png", "text/plain"]
    about = outputs_of(notebook, "picture")[0].metadata["image/png"]
    assert about["alt"] == ABOUT["picture"]["fig-alt"]
    assert about["words"] == "Up: $x$ < 2"
    assert outputs_of(notebook, "bar") == []
    assert outputs_of(notebook, "python")[0].text == f"{sys.executable} []\n", "an empty folder"
    assert json.loads(text)["metadata"] == {"kernelspec": {"display_name": "none", "name": "none"}}


def test_small_changes_pass(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = nbformat.read(good, as_version=4)
    outputs_of(notebook, "decimal")[0].text = "0.6\n"
    outputs_of(notebook, "widened")[0].text = "8 steps\n"
    path = good.with_name("changed.ipynb")
    nbformat.write(notebook, path)
    text = path.read_text(encoding="utf-8")
    assert main([str(path)]) == 0, capsys.readouterr().out
    assert path.read_text(encoding="utf-8") == text
    assert capsys.readouterr().out.splitlines()[-1].split()[::2] == ["total", "ok"]


@pytest.mark.parametrize(
    "other",
    [
        {"title": "An anti-diagonel"},
        {"title": "A diagonal"},
        {"origin": "lower"},
        {"cmap": "cividis"},
        {"vmax": 2},
    ],
)
def test_a_picture_that_its_code_no_longer_draws_is_noticed(other: dict) -> None:
    stored, fresh = base64.b64decode(drawn()), base64.b64decode(drawn(**other))
    assert changed(stored, stored) == 0 and changed(stored, fresh) > SHARE


def test_a_picture_of_another_size_is_another_picture() -> None:
    wide, high = (_png(np.zeros((*size, 3), np.uint8)) for size in ((50, 90), (90, 50)))
    assert changed(wide, wide) == 0 and changed(wide, high) == 1


def test_a_little_everywhere_and_what_is_added_are_changes_too() -> None:
    grey = np.full((50, 90, 3), 128, np.uint8)
    wider = np.pad(grey, [(0, 0), (0, 3), (0, 0)])
    for other in (grey + 20, wider):
        assert changed(_png(grey), _png(other)) > SHARE


def curve(title: str = "Loss", shift: float = 0.0, **options: object) -> bytes:
    """A curve as a training may draw it."""
    figure, ax = plt.subplots(figsize=(6, 3))
    x = np.linspace(0, 1, 50)
    ax.plot(x, np.exp(-3 * x) + shift + 0.01 * np.sin(40 * x + 50 * shift), **options)
    ax.set(title=title, ylim=(0, 1.2))
    file = io.BytesIO()
    figure.savefig(file)
    plt.close(figure)
    return file.getvalue()


def test_a_curve_may_move_a_little_and_no_more() -> None:
    stored = curve()
    assert moved(stored, stored) == 0 and moved(stored, curve(shift=0.02)) < 0.1
    blank = _png(np.full((300, 600, 3), 255, np.uint8))
    assert changed(stored, blank) < 0.1 < 0.9 < moved(stored, blank) == moved(blank, stored)
    others = [curve(color="tab:red"), curve(shift=0.2), curve(linestyle="none")]
    assert min(moved(stored, other) for other in others) > 0.9


def test_a_map_that_is_turned_has_moved() -> None:
    stored = base64.b64decode(drawn())
    mirrored = _png(np.asarray(Image.open(io.BytesIO(stored)).convert("RGB"))[:, ::-1])
    assert moved(stored, base64.b64decode(drawn(vmax=1.02))) < 0.02 < 0.4 < moved(stored, mirrored)
    assert moved(stored, _png(np.zeros((50, 90, 3), np.uint8))) == 1


def test_the_words_of_a_picture_are_compared_whatever_may_move() -> None:
    def output(said: str) -> list[NotebookNode]:
        found = shown("<Figure>", "image/png", base64.b64encode(curve()).decode())
        found.metadata["image/png"] = {"words": said}
        return [found]

    for share in (None, 0.9):
        assert not list(compare(output("epoch 3 | loss"), output("epoch 3 | loss"), None, share))
        ((what, *pieces),) = compare(
            output("epoch 3 | loss"), output("epoch 3 | gain"), None, share
        )
        assert what == "the words of pictures differ" and "loss" in pieces[0]
    stale = output("epoch 3")
    stale[0].metadata["image/png"]["alt"] = "A pie chart of cheese."
    ((what, *_),) = compare(stale, output("epoch 3"), None)
    assert what == "the text alternatives of pictures differ"
    assert list(compare(output("epoch 3"), output("epoch 4"), None))
    assert not list(compare(output("epoch 3"), output("epoch 4"), None, 0.9))


def test_words_are_texts_with_letters() -> None:
    svg = "<!-- 0.5 --><g><!-- a --></g><!-- a &lt;\n loss --><text>no</text><!-- ñandú -->"
    svg += r"<!-- $\mathdefault{10^{3}}$ -->"
    assert words(svg) == "a < loss | ñandú" and words("") == ""


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    "code, what",
    [
        (
            "import urllib.request; urllib.request.urlopen('http://example.org')",
            "reach the network",
        ),
        ("import socket; socket.create_connection(('192.0.2.1', 80), 1)", "reach the network"),
        ("import socket; socket.gethostbyname('example.org')", "reach the network"),
        (
            "import socket; socket.socket(type=socket.SOCK_DGRAM).sendmsg("
            "[b'x'], [], 0, ('192.0.2.1', 9))",
            "reach the network",
        ),
        (f"open({str(ROOT / 'nbs' / 'new.txt')!r}, 'w')", "write into the repository"),
        (f"import os; os.mkdir({str(ROOT / 'new')!r})", "change the repository"),
        (f"import os; os.remove({str(ROOT / 'README.md')!r})", "change the repository"),
        (
            f"import os; open('x', 'w'); os.rename('x', {str(ROOT / 'nbs' / 'new.txt')!r})",
            "change the repository",
        ),
    ],
)
def test_a_notebook_reaches_neither_network_nor_repository(tmp_path, capsys, code, what) -> None:
    path = tmp_path / "bold.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(code)]), path)
    assert main([str(path)]) == 1
    assert f"a notebook may not {what}" in capsys.readouterr().out
    assert not (ROOT / "nbs" / "new.txt").exists() and (ROOT / "README.md").exists()


def test_each_notebook_imports_only_what_it_is_allowed_to() -> None:
    """What the library and its extra `check` require, the standard library, this repository."""
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    allowed = {part.split(">=")[0] for part in config["DEFAULT"]["requirements"].split()}
    allowed |= set(config["DEFAULT"]["check_requirements"].split())
    allowed |= {"numpy"}  # which matplotlib brings
    allowed |= {"revtrans", "benchmarks", "IPython", *sys.stdlib_module_names}
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                source = re.sub(r"(?m)^[%!].*$", "", cell.source)
                for node in ast.walk(ast.parse(source)):
                    names = []
                    if isinstance(node, ast.Import):
                        names = [alias.name for alias in node.names]
                    elif isinstance(node, ast.ImportFrom):
                        names = [node.module]
                    found = {name.split(".")[0] for name in names}
                    assert found <= allowed, f"{path.name}: {found - allowed}"


def test_each_fault_is_reported(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = nbformat.read(good, as_version=4)
    outputs_of(notebook, "word")[0].text = "dcbaa\ntwice\n"
    outputs_of(notebook, "integer")[0].data["text/plain"] = "4"
    outputs_of(notebook, "decimal")[0].text = "0.72\n"
    outputs_of(notebook, "picture").clear()
    outputs_of(notebook, "seconds").clear()
    outputs_of(notebook, "silent").append(printed("old warning", "stderr"))
    notebook.cells[-1].source = "print('end', file=sys.stderr)\n1 / 0"
    notebook.cells.append(new_code_cell("print('never run')"))
    path = good.with_name("bad.ipynb")
    nbformat.write(notebook, path)
    assert main([str(path)]) == 1
    report = capsys.readouterr().out
    number = {name: index for index, name in enumerate(GOOD, start=1)}
    for name, what in [
        ("word", "outputs differ\n    print('dcba'"),
        ("integer", "outputs differ\n    3\n    stored: 4\n    fresh:  3"),
        ("decimal", "outputs differ\n    print(0.500)\n    stored: 0.72\n    fresh:  0.5"),
        ("picture", "0 outputs stored, 1 fresh"),
        ("seconds", "0 outputs stored, 1 fresh\n    import time"),
        ("silent", "text on stderr is stored\n    import sys\n    stored: old warning"),
        ("last", "text on stderr\n"),
        ("last", "error\n"),
    ]:
        assert f"bad.ipynb, cell {number[name]}: {what}" in report
    assert "ZeroDivisionError: division by zero" in report and "never run" not in report
    for name in ("widened", "skipped", "bar", "python"):
        assert f"cell {number[name]}:" not in report
    assert report.splitlines()[-1].endswith("1 failed")


def test_every_stored_picture_has_its_words_and_its_alternative() -> None:
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    assert {"alt", "words"} <= output.metadata["image/png"].keys(), path.name


@pytest.mark.parametrize("alternative", [{}, {"fig-alt": "A line."}])
def test_a_picture_without_a_text_alternative_is_reported(tmp_path, capsys, alternative) -> None:
    path = tmp_path / "unseen.ipynb"
    cell = code("import matplotlib.pyplot as plt\nplt.plot([1, 2]);", **alternative)
    nbformat.write(new_notebook(cells=[cell]), path)
    assert main(["--write", str(path)]) == 1
    assert "a picture without a text alternative" in capsys.readouterr().out


def test_what_is_misspelt_in_the_metadata_is_reported(tmp_path, capsys) -> None:
    path = tmp_path / "misspelt.ipynb"
    nbformat.write(new_notebook(cells=[code("1", tolerence="0.3")]), path)
    assert main(["--write", str(path)]) == 1
    assert "its metadata have 'tolerence', which says nothing" in capsys.readouterr().out


def test_a_file_that_is_no_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "missing.ipynb")])
    assert "missing.ipynb is no notebook" in capsys.readouterr().err
    broken = tmp_path / "broken.ipynb"
    broken.write_text("<<<<<<< ours", encoding="utf-8")
    assert main([str(broken)]) == 1
