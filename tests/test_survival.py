"""A few of the spoiled files and inputs of benchmarks/, where the full counts and the kills are."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


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
