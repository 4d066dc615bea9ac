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


# In processes of their own: there the library is as users run it, without checked annotations.
@pytest.mark.parametrize("study", ["survival.files(n=150, seed=1)", "inputs.inputs(n=6)"])
def test_files_and_inputs_are_refused_by_name_or_answered_rightly(study):
    code = f"""
from benchmarks import inputs, survival
total = {study}[-1]
assert not total.get("other") and not total.get("code run")
assert total["refused"] > 0.2 * total.get("files", total.get("inputs"))
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout + done.stderr


WRONG = {
    "beam_search": "lambda *given: (right(*given)[0], right(*given)[1] + 1)",
    "reverse, translate": "lambda *given: right(*given) * 2",
    "Vocab.encode": "lambda text: right(''.join(s for s in text if s in 'abc'))",
    "attention_maps": "lambda *given: flipped(right(*given))",
    "fit": "standing_still",
    "PairsTask.from_function": "lambda f, texts, share: right(str.upper, texts, share)",
    "the command line": "lambda words: right(words).replace('\\n', 'a\\n')",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_noticed(name):
    n = 200 if name == "the command line" else 40  # few command lines are sensible
    code = f"""
from dataclasses import replace
import torch
from benchmarks import inputs

def flipped(found):
    if isinstance(found, list):
        return [flipped(one) for one in found]
    return replace(found, cross=found.cross.flip(-1))

def standing_still(*given):
    torch.optim.AdamW.step = lambda *_: None
    return right(*given)

right, sensible, confirm = inputs.TARGETS[{name!r}]
inputs.TARGETS[{name!r}] = {WRONG[name]}, sensible, confirm
assert inputs.inputs(n={n}, only=({name!r},))[-1]["other"]
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout + done.stderr
