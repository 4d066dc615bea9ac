"""Thousands of inputs, sensible and not, for all that a person calls with data of their own.

For each: either one of the library's own errors, or an answer that another computation confirms.
Anything else (a wrong answer, NaN, another exception) is printed and counted as `other`.
"""

import contextlib
import inspect
import io
import math
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import matplotlib
import matplotlib.pyplot as plt
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from revtrans import (
    attention,
    by_hand,
    cli,
    data,
    decoding,
    errors,
    exercises,
    files,
    plotting,
    training,
)
from revtrans import recurrent as lstm
from revtrans.data import Batch, ReversalTask, Vocab
from revtrans.errors import RevtransError
from revtrans.model import Transformer, TransformerConfig
from revtrans.pairs import PairsTask
from revtrans.schemes import SCHEMES

from .common import show

APART = ("check_heads", "check_file")  # they take two functions, and a path
SIZES = {"symbols": "abc", "max_length": 4, "d_model": 8, "n_heads": 2, "d_ff": 8, "n_layers": 1}
MODEL = Transformer(TransformerConfig(**SIZES)).eval()
LSTM = lstm.Recurrent(lstm.RecurrentConfig("abc", max_length=4, d_model=8)).eval()
TASK = ReversalTask("abc", max_length=4)
VOCAB = MODEL.vocab
LETTERS = "abcñ \u0303\u05d0\u0627😀👩\u200d🚀\u1100\u1161\u11a8\ufe0f\u200f\ud800\x00Z"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def tensors(draw, dtypes=(torch.float32, torch.float64, torch.int64, torch.bool, torch.int32)):
    """Small tensors of any kind."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    dtype = draw(st.sampled_from(dtypes))
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator(draw(st.integers(0, 9))), dtype=dtype)
    low, high = draw(st.sampled_from([(0, 2), (0, 6), (3, 6), (-2, 9)]))
    return torch.randint(low, high, shape, generator=generator(draw(st.integers(0, 9)))).to(dtype)


SMALL, FEW = st.integers(1, 3), st.integers(0, 3)


# Mostly the ids 0 to 5; now and then one that stands for nothing.
RANGE = st.sampled_from([(0, 6), (0, 6), (0, 6), (0, 9), (-2, 6)])


def ids() -> st.SearchStrategy:
    """Grids of ids."""
    return st.builds(
        lambda ends, rows, width, seed: torch.randint(
            *ends, (rows, width), generator=generator(seed)
        ),
        RANGE,
        SMALL,
        st.integers(1, 4),
        st.integers(0, 99),
    )


TEXT = st.text(LETTERS, max_size=6)
GOOD_TEXT = st.text("abc", max_size=4)
WORD = st.text("abcñ\u05d0😀 ", max_size=6)
SHARES = st.sampled_from([0, 0, 0.1, 0.3, 0.5])
WHOLE = st.one_of(
    st.integers(-2, 6), st.sampled_from([10**7, 10**18, -(10**18), 10**400, 10**5000])
)
NUMBER = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 1), st.integers(-2, 3)
)
THING = st.one_of(
    st.sampled_from([None, True, False, "", "abc", b"abc", object, 1j]),
    st.sampled_from([MODEL, LSTM, TASK, VOCAB, nn.Linear(2, 2), nn.Identity()]),
    WHOLE,
    NUMBER,
    TEXT,
    st.lists(st.one_of(WHOLE, TEXT), max_size=3),
    st.dictionaries(TEXT, WHOLE, max_size=2),
    tensors(),
)
SOURCE = st.builds(
    lambda texts: data.make_batch(VOCAB, texts, [t[::-1] for t in texts]),
    st.lists(GOOD_TEXT, min_size=1, max_size=4),
)


@st.composite
def labelled(draw, axes: int) -> tuple:
    """Weights with that many axes, and labels that fit them."""
    shape = [draw(SMALL) for _ in range(axes)]
    return torch.rand(shape), "qrst"[: shape[-2]], list("klmn"[: shape[-1]])


def finite(*found: torch.Tensor) -> None:
    assert all(tensor.isfinite().all() for tensor in found), "not finite"


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


# What an answer must satisfy, from the arguments and the answer.
def is_vocab(found: Vocab, symbols: str) -> None:
    assert found.symbols == nfc(symbols) and len(found) == 3 + len(found.symbols)
    text = found.symbols + found.symbols[::-1]
    assert found.decode(found.encode(text)) == text == nfc(text)


def is_encoded(found: list[int], text: str) -> None:
    assert "".join("abc"[i - 3] for i in found) == nfc(text)


def is_decoded(found: str, numbers: object) -> None:
    numbers = list(numbers)  # what stands after eos is not read
    numbers = numbers[: numbers.index(2)] if 2 in numbers else numbers
    assert found == "".join("abc"[i - 3] for i in numbers if i > 2)


def is_sample(found: Batch, n: int, _: object, split: str) -> None:
    assert len(found) == n
    for source, target in zip(found.source.tolist(), found.target.tolist()):
        text = VOCAB.decode(source)
        assert 1 <= len(text) <= 4 and VOCAB.decode(target) == text[::-1]
    assert (data.in_held_out(found.source, 0.1) == (split == "held_out")).all()


def is_task(found: ReversalTask, *_: object) -> None:
    for split in ("train", "held_out"):
        with contextlib.suppress(RevtransError):
            batch = found.sample(3, generator(), split)
            for source, target in zip(batch.source.tolist(), batch.target.tolist()):
                assert found.vocab.decode(target) == found.vocab.decode(source)[::-1]


def is_pairs(found: PairsTask, pairs: list, _: float) -> None:
    known = {(nfc(a), nfc(b)) for a, b in pairs}
    batch = found.sample(4, generator())
    for source, target in zip(batch.source.tolist(), batch.target.tolist()):
        assert (found.vocab.decode(source), found.vocab.decode(target)) in known


def is_config(found: object, *arguments: object) -> None:
    names = list(inspect.signature(type(found)).parameters)
    assert all(getattr(found, n) == value for n, value in zip(names, arguments) if value == value)
    if max(getattr(found, name, 0) for name in ("d_model", "d_ff", "n_layers")) < 20:
        with contextlib.suppress(RevtransError):  # a scheme may need even sizes
            built = (Transformer if isinstance(found, TransformerConfig) else lstm.Recurrent)(found)
            finite(built.eval()(torch.tensor([[3]]), torch.tensor([[1]])))


def is_written(found: torch.Tensor, of: object, source: torch.Tensor, steps, cache) -> None:
    written = torch.full((len(source), 1), 1)
    with torch.no_grad():
        for _ in range(found.shape[1]):
            logits = _full(of, source, written)
            over = (written == 2).any(1)
            best = logits.argmax(-1).masked_fill(over, 0)
            written = torch.cat([written, best[:, None]], 1)
    assert torch.equal(written[:, 1:], found)


def _full(of: torch.nn.Module, source: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
    if isinstance(of, Transformer):
        memory, mask = of.encode(source)[0], attention.padding_mask(source)
        return of.decode(written, memory, mask)[0][:, -1]
    return of.decode(written, *of.encode(source))[0][:, -1]


def _beam(of: torch.nn.Module, row: torch.Tensor, beam: int, steps: int) -> tuple[list, float]:
    """The best text of one source that a beam finds, and its log-probability: lists and sorting."""
    texts = [([1], 0.0)]
    for _ in range(steps):
        longer = []
        for ids, score in texts:
            if 2 in ids:
                longer.append(([*ids, 0], score))
                continue
            logits = _full(of, row[None], torch.tensor([ids]))[0]
            logs = logits.log_softmax(-1).tolist()
            longer += [([*ids, i], score + log) for i, log in enumerate(logs)]
        texts = sorted(longer, key=lambda text: -text[1])[:beam]
        if all(2 in ids for ids, _ in texts):
            break
    return texts[0][0][1:], texts[0][1]


def is_beam(found: tuple, of: object, source: torch.Tensor, beam: int, steps, cache) -> None:
    texts, scores = found
    finite(scores)
    assert len(texts) == len(source)
    for row, text, score in zip(source, texts.tolist(), scores.tolist()):
        ids, expected = _beam(of, row, beam, steps or of.config.max_length + 1)
        assert abs(score - expected) < 1e-3
        assert text[: len(ids)] == ids and not any(text[len(ids) :])


def is_reversed(found: object, of: object, text: object, beam: int) -> None:
    texts, answers = ([text], [found]) if isinstance(text, str) else (text, found)
    assert len(texts) == len(answers)
    for one, answer in zip(texts, answers):
        row = torch.tensor(VOCAB.encode(one), dtype=torch.int64)
        assert answer == VOCAB.decode(_beam(of, row, beam, of.config.max_length + 1)[0])


def is_maps(found: object, of: Transformer, source: object, target: object) -> None:
    for maps in [found] if isinstance(source, str) else found:
        batch = data.make_batch(VOCAB, [maps.source], [maps.target])
        seen = []

        def keep(module: nn.Module, given: tuple, found: tuple, seen: list = seen) -> None:
            seen.append(found[1])

        hooks = [layer.cross_attention.register_forward_hook(keep) for layer in of.decoder.layers]
        of.decode(
            batch.decoder_input, of.encode(batch.source)[0], attention.padding_mask(batch.source)
        )
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(maps.cross, torch.cat(seen))
        finite(maps.encoder, maps.decoder)


def is_drawn(found: object, *_: object) -> None:
    assert found is not None
    plt.close("all")


def is_trained(found: training.History, of: Transformer, task: object, options: dict) -> None:
    """The first loss is that of the fresh model on the first batch, and the weights have moved."""
    finite(*of.parameters())
    assert len(found.loss) == len(found.rate) == options["steps"]
    fresh, sizes = Transformer(of.config), options.get("batch_size", 32)
    batch = task.sample(sizes, generator(options.get("seed", 0)))
    smoothing = options.get("label_smoothing", 0.0)
    logits = fresh(batch.source, batch.decoder_input)
    loss = training.cross_entropy(logits, batch.labels, smoothing)
    assert math.isclose(found.loss[0], loss.item(), rel_tol=1e-4)
    moved = not torch.equal(of.embedding.weight, fresh.embedding.weight)
    assert moved or max(found.rate) < 1e-9, "such a rate is lost in rounding"


def is_by_hand(found: Transformer, symbols: str, n: int, wanted: Callable, sharp: float) -> None:
    finite(*found.parameters())
    if sharp > 2:  # ln 3: four symbols are told apart
        text = (symbols * n)[:n]
        right = "".join(text[wanted(n, t)] for t in range(n))
        assert decoding.reverse(found, text) == right


def _fit(task: object, options: dict) -> training.History:
    of, options = Transformer(TransformerConfig(**SIZES)), {"steps": 2, "eval_size": 4, **options}
    found = training.fit(of, task, **{"progress": False, **options})
    with torch.no_grad():
        is_trained(found, of, task, options)
    return found


def _saved(path: object, device: object) -> Transformer:
    with tempfile.TemporaryDirectory() as folder:
        inside = f"{folder}/{path}" if isinstance(path, str) else path
        files.save(MODEL, inside)
        return files.load(inside, device)


def is_the_model(found: Transformer, *_: object) -> None:
    pairs = zip(found.parameters(), MODEL.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def _command(words: list[str]) -> str:
    """What it prints. What is typed may name the files of a folder that is made afresh.

    Raises InputValueError if it ends with an error in one line.
    """
    with tempfile.TemporaryDirectory() as folder:
        files.save(MODEL, f"{folder}/model")
        (Path(folder) / "notes").write_text("no model")
        typed = [word.replace("@", folder) for word in words]
        out, err = io.StringIO(), io.StringIO()
        nothing = mock.patch.object(sys, "stdin", io.StringIO())
        with nothing, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main(typed)
            except SystemExit as ended:
                code = ended.code
        assert code in (0, 1, 2) and "Traceback" not in err.getvalue()
        last = err.getvalue().splitlines()[-1:]
        assert code != 1 or last[0].startswith("revtrans: error: ")
        if code:
            raise errors.InputValueError(last)
    return out.getvalue()


def is_printed(found: str, words: list[str]) -> None:
    """For a plain `reverse`, what the function gives; otherwise something is said."""
    texts = words[2:]
    if words[:2] == ["reverse", "@/model"] and not any(text.startswith("-") for text in texts):
        assert found.splitlines() == decoding.reverse(MODEL, texts)
    assert (found or not texts) and "nan" not in found


WORDS = st.one_of(
    st.sampled_from(
        ["@/model", "@/notes", "@/missing", "@", "@/new", "@/m.png", "--beam", "--out"]
    ),
    st.sampled_from(["--steps", "--seed", "--every", "--resume", "--device", "cpu", "gpu", "-1"]),
    st.sampled_from(
        ["--d-model", "--n-heads", "--max-length", "--symbols", "--positions", "--help"]
    ),
    st.sampled_from(
        ["0", "1", "2", "3", "1e9", "99999999999", "rotary", "abc", "ab", "", "ñ", "--"]
    ),
    TEXT,
)
TYPED = st.one_of(
    st.lists(WORDS, max_size=5).map(lambda words: ["reverse", "@/model", *words]),
    st.lists(WORDS, max_size=5).map(lambda words: ["map", "@/model", *words]),
    st.lists(WORDS, max_size=6).map(
        lambda words: ["train", "--out", "@/new", *words, "--steps", "1", "--d-model", "8"]
    ),
    st.lists(WORDS, max_size=4),
)
PATH = st.one_of(st.text("ab/.ñ\x00 ", max_size=8), st.sampled_from(["", ".", "..", "a" * 300]))
OPTIONS = {
    "steps": st.integers(1, 3),
    "batch_size": st.integers(1, 3),
    "lr": st.floats(1e-4, 0.1),
    "warmup": st.floats(0, 0.9),
    "clip": st.floats(0.1, 10),
    "weight_decay": st.floats(0, 3),
    "label_smoothing": st.floats(0, 0.9),
    "eval_every": st.integers(1, 3),
    "eval_size": st.integers(1, 3),
    "seed": st.integers(0, 2**63 - 1),
    "progress": st.just(False),
    "callback": st.none(),
    "schedule": st.sampled_from([training.learning_rate, lambda *a: math.nan, lambda *a: 1e30]),
}
CONFIG = [
    st.sampled_from(["abc", "a", "ñ😀"]),
    st.integers(1, 6),
    st.sampled_from([4, 8, 8, 6, 9]),
    st.sampled_from([1, 2, 2, 3]),
    st.integers(1, 8),
    st.integers(1, 2),
    st.floats(0, 0.9),
    st.sampled_from(["sinusoidal", "learned", *SCHEMES]),
    st.booleans(),
]
HISTORY = st.builds(training.History, st.lists(st.floats(0.1, 3), max_size=3))


def is_told(found: exercises.Report, name: str, thing: object) -> None:
    assert not found and found.mistake and found.message


# Each function with what each argument sensibly is, and what confirms its answer.
TARGETS: dict[str, tuple[Callable, list[st.SearchStrategy], Callable]] = {
    "Vocab": (Vocab, [TEXT], is_vocab),
    "Vocab.encode": (VOCAB.encode, [GOOD_TEXT], is_encoded),
    "Vocab.decode": (VOCAB.decode, [st.lists(st.integers(0, 5), max_size=6)], is_decoded),
    "ReversalTask": (
        ReversalTask,
        [st.sampled_from(["abc", "ab", "ñ"]), SMALL, st.integers(3, 5), SHARES],
        is_task,
    ),
    "ReversalTask.sample": (
        TASK.sample,
        [st.integers(1, 5), st.builds(generator), st.sampled_from(["train", "held_out"])],
        is_sample,
    ),
    "PairsTask": (
        PairsTask,
        [st.lists(st.tuples(WORD, WORD), min_size=1, max_size=9), SHARES],
        is_pairs,
    ),
    "TransformerConfig, Transformer": (TransformerConfig, CONFIG, is_config),
    "RecurrentConfig, Recurrent": (
        lstm.RecurrentConfig,
        [CONFIG[0], st.integers(1, 6), st.integers(1, 8), st.booleans()],
        is_config,
    ),
    "hand_made": (
        by_hand.hand_made,
        [
            st.sampled_from(["abc", "ab", "ñ"]),
            st.integers(1, 4),
            st.sampled_from([lambda n, t: n - 1 - t, lambda n, t: t, lambda n, t: n]),
            st.floats(1.0, 40.0),
        ],
        is_by_hand,
    ),
    "fit": (
        _fit,
        [st.just(TASK), st.fixed_dictionaries({}, optional=OPTIONS)],
        lambda found, *_: None,
    ),
    "save, load": (_saved, [PATH, st.sampled_from(["cpu", "gpu"])], is_the_model),
    "greedy": (
        decoding.greedy,
        [
            st.sampled_from([MODEL, LSTM]),
            SOURCE.map(lambda batch: batch.source),
            st.one_of(st.none(), st.integers(1, 5)),
            st.booleans(),
        ],
        is_written,
    ),
    "beam_search": (
        decoding.beam_search,
        [
            st.sampled_from([MODEL, LSTM]),
            SOURCE.map(lambda batch: batch.source),
            SMALL,
            st.one_of(st.none(), st.integers(1, 5)),
            st.booleans(),
        ],
        is_beam,
    ),
    "reverse, translate": (
        decoding.reverse,
        [
            st.sampled_from([MODEL, LSTM]),
            st.one_of(GOOD_TEXT, TEXT, st.lists(GOOD_TEXT, max_size=4)),
            SMALL,
        ],
        is_reversed,
    ),
    "attention_maps": (
        plotting.attention_maps,
        [
            st.just(MODEL),
            st.one_of(GOOD_TEXT, st.lists(GOOD_TEXT, min_size=1, max_size=2)),
            st.one_of(st.none(), GOOD_TEXT, st.lists(GOOD_TEXT, min_size=1, max_size=2)),
        ],
        is_maps,
    ),
    "plot_attention": (
        plotting.plot_attention,
        labelled(2),
        is_drawn,
    ),
    "plot_heads": (
        plotting.plot_heads,
        labelled(4),
        is_drawn,
    ),
    "plot_batch": (plotting.plot_batch, [st.just(VOCAB), ids()], is_drawn),
    "plot_history": (plotting.plot_history, [HISTORY], is_drawn),
    "the command line": (_command, [TYPED], is_printed),
    "PairsTask.from_function": (
        PairsTask.from_function,
        [st.just(str.swapcase), st.lists(WORD, min_size=1, max_size=9), SHARES],
        lambda found, function, sources, share: is_pairs(
            found, [(source, function(source)) for source in sources], share
        ),
    ),
    "checkers": (
        lambda name, thing: getattr(exercises, name)(thing),
        [
            st.sampled_from(
                [n for n in exercises.__all__ if n.startswith("check_") and n not in APART]
            ),
            THING,
        ],
        is_told,
    ),
}
SLOW = {"plot_attention": 5, "plot_heads": 20, "plot_batch": 5, "plot_history": 20}


def _arguments(sensible: st.SearchStrategy | list, name: str) -> st.SearchStrategy:
    """All as they should be, or one of them anything at all."""
    # A function of the user's that fails does so in its own words.
    thing = THING.filter(lambda value: not callable(value))
    if name == "fit":  # its options are one argument here: spoil one of them
        option = st.tuples(st.sampled_from(sorted(OPTIONS)), thing)
        spoiled = st.tuples(st.just(TASK), option.map(lambda pair: dict([pair])))
        return st.one_of(st.tuples(*sensible), spoiled, st.tuples(THING, st.just({})))
    whole = st.tuples(*sensible) if isinstance(sensible, list) else sensible
    if name in ("the command line", "checkers"):
        return whole
    other = thing if name in ("hand_made", "PairsTask", "PairsTask.from_function") else THING
    return st.one_of(whole, whole, st.tuples(whole, st.integers(0, 9), other).map(_spoil))


def _spoil(parts: tuple) -> tuple:
    arguments, i, thing = parts
    i %= len(arguments)
    return (*arguments[:i], thing, *arguments[i + 1 :])


def _study(name: str, function: Callable, confirm: Callable, counts: dict[str, int]) -> Callable:
    def study(given: tuple) -> None:
        counts["inputs"] += 1
        begin, answered = time.perf_counter(), False
        try:
            try:
                found = function(*given)
            finally:
                counts["slowest s"] = max(counts["slowest s"], time.perf_counter() - begin)
            answered = True
            with torch.no_grad():
                confirm(found, *given)
            counts["confirmed"] += 1
        except Exception as error:
            if isinstance(error, RevtransError) and not answered:
                counts["refused"] += 1
                return
            counts["other"] += 1
            said = f"{type(error).__name__}: {errors.shown(str(error))}"
            print(f"{name}, {', '.join(map(errors.shown, given))}: {said}", flush=True)
        finally:
            plt.close("all")

    return study


def inputs(n: int = 700, only: tuple[str, ...] = tuple(TARGETS)) -> list[dict]:
    """`n` inputs for each function (fewer for those that draw)."""
    matplotlib.use("Agg")
    rows = []
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):  # some write files
        for name in only:
            function, sensible, confirm = TARGETS[name]
            counts = {"inputs": 0, "refused": 0, "confirmed": 0, "other": 0, "slowest s": 0.0}
            how = settings(
                max_examples=max(n // SLOW.get(name, 1), 2),
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            how(given(_arguments(sensible, name))(_study(name, function, confirm, counts)))()
            rows.append({"function": name, **counts})
    summed = ("inputs", "refused", "confirmed", "other")
    total = {key: sum(row[key] for row in rows) for key in summed}
    rows.append({"function": "all", **total, "slowest s": max(row["slowest s"] for row in rows)})
    show(rows)
    return rows
