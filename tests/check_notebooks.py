"""Run notebooks afresh and compare what they show with the outputs that are stored in them.

Usage: python tests/check_notebooks.py [--write] [notebook ...]     (default: all of nbs/)

Words must be the same, integers too; decimals may differ by 1 % plus one unit in the last digit.
Pictures must be the same but for a few pixels, and so must the words in them, which are stored
beside them. Errors, stderr and progress bars fail. Each runs in an empty folder, the last notebook
first. (What it may import, test_check_notebooks says; .ci/run ends by looking for files changed.)

A cell with `#| eval: false` at its top is not run, and its outputs are left alone. What else is to
be known of a cell stands in its metadata, where it is in no reader's way (in JupyterLab: property
inspector, Cell Metadata), as {"revtrans": {"tolerance": "0.3"}}:

    tolerance: 0.3    numbers, integers too, may differ by this fraction
    tolerance: off    numbers may differ at will (times), but neither their count nor the words
    figure: 0.2       this share of what a picture shows may be elsewhere, more than a few pixels
                      away, and the numbers among its words may differ: for what a training or a
                      clock has drawn
    fig-alt: …        what a picture shows, in words; every cell that draws needs it. It is stored
                      with the picture for programs that read aloud.

--write stores the fresh outputs of a notebook that runs without a fault, as nbdev_clean keeps
them. Fresh widgets are dropped: a live progress bar may show, but never be stored.
Cells are counted from 0, text cells too.
"""

import argparse
import base64
import html
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from time import perf_counter

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
from nbdev.clean import clean_nb
from nbdev.config import get_config
from nbdev.process import extract_directives
from nbformat import NotebookNode
from nbformat.v4 import new_output
from pictures import SHARE, changed, moved, prepare, words

NBS = Path(__file__).resolve().parent.parent / "nbs"
TIMEOUT = 600  # seconds for one cell
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|(?<!\.)\.[0-9]+"
# No number in a1, layer.2 or 1.2.3; no sign in 3-5 or x-5; no exponent in 7e1f.
NUMBER = rf"(?<!\w)(?<!\w\.)(?:(?<![)\]])[-+])?(?:{DIGITS})(?:[eE][-+]?[0-9]+(?!\w))?(?!\.?[0-9])"
TOKEN = re.compile(rf"{NUMBER}|(?:(?!{NUMBER})\S)+")
NOISE = re.compile(r" at 0x[0-9a-fA-F]+|\x1b\[[0-9;]*m|([-=_─═━])\1{2,}")  # the last: rules
PROGRESS = re.compile(r"\r|it/s\]|s/it\]|%\|.*\| *[0-9]+/")
WIDGET = "application/vnd.jupyter.widget-view+json"
PNG, SVG = "image/png", "image/svg+xml"


def unit(number: str) -> float:
    """One unit in the last printed digit of a decimal (0.01 for 1.25); 0 for an integer."""
    mantissa, _, exponent = number.lower().partition("e")
    digits = len(mantissa.partition(".")[2])
    return float(f"1e{int(exponent or 0) - digits}") if digits or exponent else 0.0


def same(stored: str, fresh: str, tolerance: float | None) -> bool:
    """Compare two tokens; a tolerance of None is the default one, infinity is off."""
    numbers = re.fullmatch(NUMBER, stored) and re.fullmatch(NUMBER, fresh)
    if stored == fresh or not numbers or tolerance == math.inf:
        return stored == fresh or bool(numbers)
    slack = min(unit(stored), unit(fresh))
    if tolerance is None and not slack:  # an integer
        return False
    a, b = (float(number.replace(",", "")) for number in (stored, fresh))
    return abs(a - b) <= (0.01 if tolerance is None else tolerance) * abs(a) + slack


def difference(stored: str, fresh: str, tolerance: float | None) -> tuple[str, str] | None:
    """Return a piece of each text from where they differ, or None."""
    texts = [NOISE.sub(r"\1\1\1", text).replace("−", "-") for text in (stored, fresh)]
    for pair in zip_longest(*map(TOKEN.finditer, texts)):
        if None in pair or not same(pair[0][0], pair[1][0], tolerance):
            starts = [token.start() if token else len(text) for token, text in zip(pair, texts)]
            return tuple(text[max(0, i - 40) : i + 80] for text, i in zip(texts, starts))
    return None


def shown(data: dict[str, str]) -> str:
    """What a reader sees of one display: its kind of picture, or its words."""
    if pictures := sorted(kind for kind in data if kind.startswith("image/")):
        return f"picture {' '.join(pictures)}"
    plain = data.get("text/plain", "")
    if plain and not re.fullmatch(r"\s*<.*>\s*", plain):  # a bare <… object> says nothing
        return plain
    if "text/html" not in data:
        return data.get("text/markdown", data.get("text/latex", plain))
    words = re.sub(r"(?is)<(style|script)\b.*?</\1>|<(?!img|svg)[^>]*>", " ", data["text/html"])
    return html.unescape(re.sub(r"(?i)<(img|svg)[^>]*>", r" picture \1 ", words))


def digest(outputs: list[NotebookNode]) -> list[str]:
    """All printed text joined, if any, then each display."""
    printed = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    displays = [shown(o.data) for o in outputs if "data" in o]
    return [printed, *displays] if printed.strip() else displays


def faults(outputs: list[NotebookNode]) -> Iterator[tuple[str, str]]:
    """What no output may hold, each with its text."""
    for output in outputs:
        data = output.get("data", {})
        text = output.get("text", data.get("text/plain", ""))
        if output.output_type == "error":
            yield "error", f"{output.ename}: {output.evalue}"
        elif output.get("name") == "stderr":
            yield "text on stderr", text
        elif WIDGET in data or PROGRESS.search(text):
            yield "widget or progress bar", text


def compare(
    stored: list[NotebookNode],
    fresh: list[NotebookNode],
    tolerance: float | None,
    share: float | None = None,
) -> Iterator[tuple[str, str, str]]:
    """Yield how one cell's outputs differ: what, and a piece of either text."""
    old, new = digest(stored), digest(fresh)
    if len(old) != len(new):
        yield f"{len(old)} outputs stored, {len(new)} fresh", " | ".join(old), " | ".join(new)
        return
    pieces = (difference(a, b, tolerance) for a, b in zip(old, new))
    yield from (("outputs differ", *piece) for piece in pieces if piece)
    for a, b in zip(*([o for o in of if PNG in o.get("data", {})] for of in (stored, fresh))):
        about = [of.get("metadata", {}).get(PNG, {}) for of in (a, b)]
        said, alternatives = ([of.get(key, "") for of in about] for key in ("words", "alt"))
        if piece := difference(*said, tolerance if share is None else math.inf):
            yield ("the words of pictures differ", *piece)
        if alternatives[0] != alternatives[1]:
            yield ("the text alternatives of pictures differ", *alternatives)
        how, allowed = (changed, SHARE) if share is None else (moved, share)
        found = how(*(base64.b64decode(of.data[PNG]) for of in (a, b)))
        if found > allowed:
            yield f"pictures differ: {found:.2%} {how.__name__} (allowed: {allowed:.2%})", "", ""


def about(cell: NotebookNode) -> dict[str, str]:
    """What a cell's metadata tell this check."""
    return cell.metadata.get("revtrans", {})


def tolerance_of(cell: NotebookNode, name: str = "tolerance") -> float | None:
    """The cell's own tolerance, for text or for its `figure`; ValueError if it cannot be read."""
    value = about(cell).get(name)
    if value is None or (value == "off" and name == "tolerance"):
        return value and math.inf
    value = str(value)
    if not re.fullmatch(r"0|0?\.[0-9]+", value):
        raise ValueError(f"{name} {value!r} is neither off nor a number from 0 up to 1")
    return float(value)


def describe(cell: NotebookNode) -> Iterator[str]:
    """Give a cell's pictures their text alternative and the words in them; yield what is wrong."""
    text = about(cell).get("fig-alt", "")
    for output in cell.outputs:
        if PNG in output.get("data", {}):
            if len(text) < 40:
                yield "a picture without a text alternative: fig-alt of 40 characters or more"
                return
            said = {"alt": text, "words": words(output.data.pop(SVG, ""))}
            output.metadata[PNG] = output.metadata.get(PNG, {}) | said


def tidy(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join each stream's pieces, and drop widgets: they live only as long as the kernel."""
    kept, streams = [], {}
    for output in outputs:
        if output.output_type == "stream" and output.name in streams:
            streams[output.name].text += output.text
        elif WIDGET not in output.get("data", {}):
            kept.append(output)
            if output.output_type == "stream":
                streams[output.name] = output
    return kept


def run(notebook: NotebookNode) -> Iterator[tuple[int, list[NotebookNode]]]:
    """Give each cell fresh outputs, up to an error; yield its number and its stored ones."""
    own = KernelSpecManager(kernel_dirs=[])  # this very python, whatever kernels are registered
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=own)
    client = NotebookClient(notebook, km=manager, timeout=TIMEOUT, force_raise_errors=True)
    client.extra_arguments = ["--log-level=ERROR"]  # no word on unencrypted local sockets
    env = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    with (
        tempfile.TemporaryDirectory() as env["IPYTHONDIR"],
        tempfile.TemporaryDirectory() as folder,
    ):
        prepare(env["IPYTHONDIR"])  # and nobody's own start-up files
        with client.setup_kernel(cleanup_kc=True, cwd=folder, env=env):
            for index, cell in enumerate(notebook.cells):
                skipped = extract_directives(cell, remove=False).get("eval:") == ["false"]
                if cell.cell_type != "code" or skipped:
                    continue
                stored, failure = cell.outputs, None
                try:
                    client.execute_cell(cell, index)
                except (CellControlSignal, DeadKernelError) as error:
                    failure = error
                    if not isinstance(error, CellExecutionError):  # that one is in the outputs
                        cell.outputs.append(new_output("error", ename=type(error).__name__))
                cell.outputs = tidy(cell.outputs)
                yield index, stored
                if failure:
                    return


def check(path: Path, write: bool = False) -> list[str]:
    """Run one notebook; return what is wrong with it. With write, store it if nothing is."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        return [f"{path.name} is no notebook: {str(error)[:160]}"]
    problems = []
    for index, stored in run(notebook):
        cell = notebook.cells[index]
        found = [(what, "", text) for what, text in faults(cell.outputs)]
        found += [(what, "", "") for what in describe(cell)]
        for name in about(cell).keys() - {"tolerance", "figure", "fig-alt"}:
            found.append((f"its metadata have {name!r}, which says nothing", "", ""))
        try:
            tolerance, share = tolerance_of(cell), tolerance_of(cell, "figure")
        except ValueError as error:
            found.append((str(error), "", ""))
        else:
            if not write:
                found += [(f"{what} is stored", text, "") for what, text in faults(stored)]
                found += compare(stored, cell.outputs, tolerance, share)
        code = [line for line in cell.source.splitlines() if not line.startswith("#|")]
        for what, *texts in found:
            problems.append(f"{path.name}, cell {index}: {what}\n    {next(iter(code), '')[:90]}")
            for label, text in zip(("stored:", "fresh: "), texts):
                problems[-1] += f"\n    {label} {' '.join(text.split())[:160]}" * any(texts)
    if write and not problems:
        notebook.metadata.pop("widgets", None)
        settings = get_config(path=Path(__file__).parent)
        keys = [settings.get(f"allowed_{of}metadata_keys", "").split() for of in ("", "cell_")]
        clean_nb(notebook, False, *keys, settings.clean_ids)
        part = path.with_suffix(".part")
        part.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        part.replace(path)
    return problems


def record(seconds: dict[Path, float]) -> None:
    """Keep the seconds of the series' own notebooks; index.ipynb and README.md show them."""
    own = {path.stem: round(value) for path, value in seconds.items() if path.parent == NBS}
    if own:
        file = NBS / "run_times.json"
        known = json.loads(file.read_text())["seconds"] | own
        file.write_text(json.dumps({"seconds": dict(sorted(known.items()))}, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Check or write the notebooks one by one; return 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="notebook")
    parser.add_argument("--write", action="store_true", help="store the fresh outputs")
    options = parser.parse_args(arguments)
    own = sorted(NBS.glob("*.ipynb"), reverse=not options.write)  # see record for the order
    paths = [path.resolve() for path in options.notebooks] or own or [NBS]
    for path in paths:
        if not path.is_file():
            parser.error(f"{path} is no notebook")
    rows = []
    for path in paths:
        start = perf_counter()
        problems = check(path, options.write)
        result = f"{len(problems)} to fix" if problems else "ok"
        rows.append((path.name, perf_counter() - start, result))
        if options.write:  # at once: index.ipynb comes last and shows the others' seconds
            record({path: rows[-1][1]})
        print(*problems, f"{path.name}: {result}", sep="\n", flush=True)
    failed = sum(result != "ok" for _, _, result in rows)
    seconds = sum(seconds for _, seconds, _ in rows)
    rows.append(("total", seconds, f"{failed} failed" if failed else "ok"))
    width = max(len(name) for name, _, _ in rows)
    print(f"\n{'notebook':{width}}  seconds  result")
    for name, seconds, result in rows:
        print(f"{name:{width}}  {seconds:7.1f}  {result}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
