"""Each notebook on a second device: `python tests/second_device/notebooks.py [NAME ...]`.

Every cell runs as it stands but for a reader's `.to(device)`: behind each model that is made, in
the notebooks that build one or train it by hand, and in the others where one is trained. Ends
with 1 if a cell fails, and says which do.
"""

import ast
import contextlib
import io
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from device import NAME, begin
from nbformat import read

NBS = Path(__file__).parents[2] / "nbs"
# Not the pages that make no model, and not 24, whose programs choose a device themselves.
NAMES = [
    *("01_recurrence", "04_encoder_decoder", "05_training", "06_decoding", "07_attention_maps"),
    *("08_claims_measured", "09_longer", "10_by_hand", "11_mechanism", "12_all_strings"),
    *("13_your_task", "20_packing", "21_errors", "22_files", "23_devices", "25_page"),
    *("27_mistakes", "index", "teaching"),
]
PLACE = {"fit": 0, "resumable_fit": 1}  # where these take the model


def moved(node: ast.expr) -> ast.Call:
    return ast.Call(ast.Attribute(node, "to", ast.Load()), [ast.Constant(NAME)], [])


class Moved(ast.NodeTransformer):
    """The reader's `.to(device)`, for `Transformer(…)` or for `fit(model, …)`."""

    def __init__(self, *called: str):
        self.called, self.count = called, 0

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        name = getattr(node.func, "id", None)
        if name not in self.called:
            return node
        self.count += 1
        if name not in PLACE:
            return moved(node)
        node.args[PLACE[name]] = moved(node.args[PLACE[name]])
        return node


def failures(name: str) -> list[str]:
    """What goes wrong there, cell by cell."""
    os.environ["MPLBACKEND"] = "agg"
    os.chdir(NBS)
    begin()
    found, there, said = [], {"__name__": "__main__"}, io.StringIO()
    by_hand = "20_packing", "21_errors", "23_devices", "27_mistakes", "teaching"
    made = "04" <= name < "08" or name in by_hand
    reader = Moved(*(("Transformer", "Peeking") if made else PLACE))
    for cell in read(NBS / f"{name}.ipynb", as_version=4).cells:
        if cell.cell_type != "code" or "nbdev_export()" in cell.source:
            continue
        tree = ast.fix_missing_locations(reader.visit(ast.parse(cell.source)))
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                exec(compile(tree, f"{name}, cell {cell.id}", "exec"), there)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            if isinstance(error, AssertionError):
                first += f", after: {' | '.join(said.getvalue().splitlines()[-2:])}"
            found.append(f"{cell.id}: {type(error).__name__}: {first}")
    return found if reader.count else ["no model was moved"]


if __name__ == "__main__":
    names, wrong = sys.argv[1:] or NAMES, 0
    options = {"mp_context": get_context("spawn"), "max_tasks_per_child": 1}
    with ProcessPoolExecutor(max(2, os.cpu_count() // 2), **options) as pool:
        for name, found in zip(names, pool.map(failures, names)):
            print(name, *(found or ["ok"]), sep="\n  ", flush=True)
            wrong += len(found)
    sys.exit(bool(wrong))
