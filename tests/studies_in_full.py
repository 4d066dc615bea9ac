"""That the study of inputs notices wrong answers: too long for every commit.

Run by .ci/full: `pytest tests/studies_in_full.py`.
"""

from test_survival import run

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


def test_every_wrong_answer_is_noticed():
    run(WRONG)
