"""The checkers of the exercises, tried on answers of which it is known whether they are right.

The answers in `tests/wild_answers.txt` were written before the catalogue of mistakes was read, and
every second one of a piece was held back when the catalogue was extended. Those in
`tests/blind_answers.txt` came later, from authors who had only the goals.
"""

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from revtrans import attention, data, decoding
from revtrans.exercises import Report, _judge
from revtrans.exercises.mistakes import TOPICS

from .common import show

TESTS = Path(__file__).parent.parent / "tests"
UNNAMED = ("not known", "crash", "wrong type", "too long", "never the same", "not a tensor")
USED = {"math": math, "np": np, "torch": torch, "F": F, "nn": nn}
USED |= vars(data) | vars(attention) | vars(decoding)


@dataclass(frozen=True)
class Answer:
    piece: str
    right: bool
    what: str
    code: str
    part: str

    def report(self) -> Report:
        names = dict(USED)
        exec(self.code, names)
        topic = TOPICS[self.piece]
        return _judge(self.piece, topic.wrap(*(names[f] for f in "fg"[: len(topic.names)])), topic)


def read_answers() -> list[Answer]:
    found, seen = [], Counter()
    for origin in ("wild", "blind"):
        text = (TESTS / f"{origin}_answers.txt").read_text(encoding="utf-8")
        for block in text.split("\n## ")[1:]:
            head, code = block.split("\n", 1)
            piece, kind, what = head.split(" | ")
            half = "held back" if seen[piece, kind] % 2 else "used"
            seen[piece, kind] += 1
            part = half if origin == "wild" else "blind"
            found.append(Answer(piece, kind == "right", what, code, part))
    return found


def answers(n: int | None = None, said: Callable = lambda answer, report: None) -> list[dict]:
    """How the checkers judge `n` of the answers, or all: a row for each part, and one for all."""
    chosen = read_answers()
    if n is not None:
        chosen = random.Random(0).sample(chosen, n)
    rows = {part: Counter() for part in ("used", "held back", "blind", "all")}
    for answer in chosen:
        report = answer.report()
        said(answer, report)
        accepted = "accepted" if report else "described" if report.mistake in UNNAMED else "named"
        found = ("right", "right accepted") if answer.right else ("wrong", f"wrong {accepted}")
        found = found[: 1 + (bool(report) or not answer.right)]
        for part in (answer.part, "all"):
            rows[part].update(found)
    columns = "wrong", "wrong named", "wrong described", "wrong accepted", "right", "right accepted"
    table = [{"part": part, **{name: of[name] for name in columns}} for part, of in rows.items()]
    show(table)
    return table
