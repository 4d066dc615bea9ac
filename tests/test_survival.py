"""A few of the kills, spoiled files and inputs of benchmarks/, where the full counts are."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import survival

ROOT = Path(__file__).parent.parent


def test_two_kills_lose_nothing():
    rows = survival.kills(rounds=2, steps=20, seed=1)
    assert len(rows) == 2
    for row in rows:
        assert row["readable"] and row["equal"] and not row["left behind"]
    assert any(row["inside a write"] for row in rows)


WRONG = """
from dataclasses import replace
import torch
from benchmarks import inputs

def flipped(found):
    if isinstance(found, list):
        return [flipped(one) for one in found]
    return replace(found, cross=found.cross.flip(-1))

def standing_still(*given):
    torch.optim.AdamW.step = lambda *_: None  # from here on
    return right(*given)

WRONG = {
    "beam_search": lambda *given: (right(*given)[0], right(*given)[1] + 1),
    "reverse, translate": lambda *given: right(*given) * 2,
    "Vocab.encode": lambda text: right("".join(s for s in text if s in "abc")),
    "attention_maps": lambda *given: flipped(right(*given)),
    "PairsTask.from_function": lambda f, texts, share: right(str.upper, texts, share),
    "the command line": lambda words: right(words).replace("\\n", "a\\n"),
    "fit": standing_still,
}
for name, wrong in WRONG.items():
    right, *rest = inputs.TARGETS[name]
    inputs.TARGETS[name] = wrong, *rest
    n = 200 if name == "the command line" else 40  # few command lines are sensible
    assert inputs.inputs(n, only=(name,))[-1]["other"], name
"""


def run(code: str) -> None:
    """In a process of its own: there the library is as users run it, no annotation checked."""
    command = [sys.executable, "-c", f"{code}\nprint('done')"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout + done.stderr


@pytest.mark.parametrize("study", ["survival.files(n=150, seed=1)", "inputs.inputs(n=6)"])
def test_files_and_inputs_are_refused_by_name_or_answered_rightly(study):
    run(f"""
from benchmarks import inputs, survival
total = {study}[-1]
assert not total.get("other") and not total.get("code run")
assert total["refused"] > 0.2 * total.get("files", total.get("inputs"))
""")


def test_every_wrong_answer_is_noticed():
    run(WRONG)
