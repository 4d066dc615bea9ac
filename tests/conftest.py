"""Two copies of the library: one with every annotation checked, one as users run it."""

import sys
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType, SimpleNamespace

import jaxtyping
import matplotlib
import pytest
import torch
from hypothesis import settings

matplotlib.use("Agg")
# At these sizes one thread is as fast as two, and many times faster if the cores are shared:
# two threads wait for each other at every operation.
torch.set_num_threads(1)
settings.register_profile("revtrans", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("revtrans")


def _import_and_forget() -> tuple[SimpleNamespace, ModuleType]:
    """All modules of the library, and learners' answers; the next import of them starts afresh."""
    package = import_module("revtrans")
    names = [m.name for m in iter_modules(package.__path__) if not m.name.startswith("_")]
    modules = SimpleNamespace(**{name: import_module(f"revtrans.{name}") for name in names})
    answers = import_module("benchmarks.answers")
    for name in [name for name in sys.modules if name.split(".")[0] in ("revtrans", "benchmarks")]:
        del sys.modules[name]
    return modules, answers


_plain, _plain_answers = _import_and_forget()
jaxtyping.install_import_hook("revtrans", "beartype.beartype")


@pytest.fixture(autouse=True)
def seeded_globally() -> None:
    """What a test draws from the global state (new layers, dropout) is the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def plain() -> SimpleNamespace:
    """The library without the import hook: its errors are those that users see."""
    return _plain


@pytest.fixture(scope="session")
def plain_answers() -> ModuleType:
    """`benchmarks.answers` on the library without the import hook, which is far quicker."""
    return _plain_answers


@pytest.fixture(scope="session")
def trained():
    """A small model that reverses strings of 1 to 5 of the letters a to e. Do not change it."""
    # Imported here, after the hook is in place.
    from revtrans.data import ReversalTask
    from revtrans.model import Transformer, TransformerConfig
    from revtrans.training import fit

    sizes = {"d_model": 32, "n_heads": 2, "d_ff": 64, "n_layers": 1}
    model = Transformer(TransformerConfig(symbols="abcde", max_length=5, **sizes), seed=1)
    task = ReversalTask("abcde", max_length=5)
    options = {"steps": 250, "batch_size": 64, "lr": 0.01, "seed": 1}
    history = fit(model, task, **options, eval_every=250, progress=False)
    assert history.exact_match[-1] >= 0.98
    return model
