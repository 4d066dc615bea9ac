"""The checkers of the exercises, tried on answers of which it is known whether they are right.

The answers in `wild_answers.txt` were written before the catalogue of mistakes was read, and every
second one of a piece was held back when the catalogue was extended. Those in `blind_answers.txt`
came later, from authors who had only the goals. Those in `shown_answers.txt` were written for the
mistakes that none of the others makes: the tests judge them too, and the study leaves them out.
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
    mistake: str = ""  # what the checker calls it; '' if it accepts it

    def functions(self) -> list[Callable]:
        names = dict(USED)
        exec(self.code, names)
        return [names[f] for f in "fg"[: len(TOPICS[self.piece].names)]]

    def report(self) -> Report:
        topic = TOPICS[self.piece]
        return _judge(self.piece, topic.wrap(*self.functions()), topic)


def read_answers() -> list[Answer]:
    found, seen = [], Counter()
    for origin in ("wild", "blind", "shown"):
        path = Path(__file__).with_name(f"{origin}_answers.txt")
        text = path.read_text(encoding="utf-8")
        for block in text.split("\n## ")[1:]:
            head, code = block.split("\n", 1)
            piece, kind, what, *mistake = head.split(" | ")
            half = "held back" if seen[piece, kind] % 2 else "used"
            seen[piece, kind] += 1
            part = half if origin == "wild" else origin
            found.append(Answer(piece, kind == "right", what, code, part, *mistake))
    return found


def counted(some: list[Answer], mistakes: list[str]) -> list[dict]:
    """How often a checker that calls them so names, describes and accepts: a row for each part."""
    rows = {part: Counter() for part in ("used", "held back", "blind", "all")}
    for answer, mistake in zip(some, mistakes):
        accepted = "accepted" if not mistake else "described" if mistake in UNNAMED else "named"
        found = ("right", "right accepted") if answer.right else ("wrong", f"wrong {accepted}")
        found = found[: 1 + (not mistake or not answer.right)]
        for part in (answer.part, "all"):
            rows[part].update(found)
    columns = "wrong", "wrong named", "wrong described", "wrong accepted", "right", "right accepted"
    return [{"part": part, **{name: of[name] for name in columns}} for part, of in rows.items()]


def answers(n: int | None = None) -> list[dict]:
    """How the checkers judge `n` of the answers, or all: a row for each part, and one for all."""
    chosen = [answer for answer in read_answers() if answer.part != "shown"]
    if n is not None:
        chosen = random.Random(0).sample(chosen, n)
    table = counted(chosen, [answer.report().mistake for answer in chosen])
    show(table)
    return table
