"""Every named mistake is recognised in code that was written apart from the catalogue."""

import math
import random
import signal
import threading
import time
import warnings
from itertools import combinations

import nbformat
import pytest
import torch
import torch.nn.functional as F

from benchmarks import common
from revtrans import exercises
from revtrans.attention import causal_mask, merge_heads, split_heads
from revtrans.attention import scaled_dot_product_attention as attend
from revtrans.exercises import Report
from revtrans.exercises.mistakes import TOPICS
from revtrans.positions import sinusoids
from revtrans.training import learning_rate

PAD, RIGHT = 0, {name: topic.right for name, topic in TOPICS.items()}


def check(name, *functions, exercises=exercises) -> Report:
    short = name.replace(" decoding", "").replace("-", "").replace(" ", "_")
    return getattr(exercises, f"check_{short}")(*functions)


@pytest.mark.filterwarnings("ignore")  # one of the answers writes x.T, which warns
@pytest.mark.parametrize("name", TOPICS)
def test_answers_written_apart_are_judged_as_stored_and_show_every_mistake(plain_answers, name):
    known, seen = plain_answers.TOPICS[name].mistakes, set()
    for answer in plain_answers.read_answers():
        if answer.piece == name:
            report = answer.report()
            assert report.mistake == answer.mistake, answer.what
            assert answer.right or report.mistake, answer.what
            seen.add(report.mistake)
            head, _, numbers = report.message.partition("\n")
            if report:
                assert repr(report) == f"{name}: right. ✓"
            elif report.mistake in known:
                assert head == f"{report.mistake}. {known[report.mistake][0]}"
                assert "trial" in numbers and "given" in numbers
                compared = "expected" in numbers and "yours" in numbers
                assert compared != ("it ended with" in numbers), "the numbers, or how it ended"
    assert {"", *known} <= seen


@pytest.mark.parametrize("name", TOPICS)
def test_the_catalogue_agrees_with_itself(plain_answers, name):
    topic = plain_answers.TOPICS[name]
    for mistake, (sentence, versions) in topic.mistakes.items():
        assert versions and sentence.endswith(".") and len(sentence) < 130
        for edits in versions:
            assert edits[0][0] in topic.code
            assert plain_answers._judge(name, topic.made(*edits), topic).mistake == mistake


def test_the_stored_results_count_what_the_checkers_say_of_these_answers(plain_answers):
    counted = plain_answers.counted
    answers = [one for one in plain_answers.read_answers() if one.part != "shown"]
    assert counted(answers, [one.mistake for one in answers]) == common.read("answers")["rows"]
    assert sum(row["wrong"] + row["right"] for row in plain_answers.answers(5)[:-1]) == 5


@pytest.mark.parametrize(
    "name, functions, mistake",
    [
        (
            "heads",
            (split_heads, lambda x: x.transpose(1, 2).view(x.shape[0], x.shape[2], -1)),
            "a view of what is not contiguous",
        ),
        (
            "loss",
            [lambda x, y: F.cross_entropy(x.view(-1, x.size(-1)), y.view(-1), ignore_index=0)],
            "a view of what is not contiguous",
        ),
        ("attention", [lambda q, k, v, mask=None: (v, q.view(*q.shape[:-2], -1))], "crash"),
    ],
)
def test_what_crashes_in_the_real_model_crashes_here(name, functions, mistake):
    report = check(name, *functions)
    assert "view size is not compatible" in report.message and report.mistake == mistake
    assert "in <lambda>, line" in report.message


@pytest.mark.parametrize("low", [-1e9, -math.inf, -3.4028234663852886e38, -1e30])
@pytest.mark.parametrize("over", [0, 1, -2, -3, None])
def test_the_wrong_axis_is_recognised_however_scores_are_hidden(over, low):
    def mine(query, key, value, mask=None):
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        scores = scores if mask is None else scores.masked_fill(~mask, low)
        weights = scores if over is None else scores.softmax(over)
        return weights @ value, weights

    report = exercises.check_attention(mine)
    if over is None:
        assert report.mistake == ("no softmax" if low != -1e30 else "not known")
        assert low != -1e30 or "The last axis does not sum to one." in report.message
    else:
        assert report.mistake == "softmax on the wrong axis"


@pytest.mark.parametrize(
    "name, first, second",
    [
        ("attention", "not scaled", "mask inverted"),
        ("batch", "no bos", "padded with eos"),
        ("decoder layer", "the same norm again", "a residual missing"),
    ],
)
def test_two_mistakes_at_once_get_both_names(name, first, second):
    known = TOPICS[name].mistakes
    edits = known[first][1][0] + known[second][1][0]
    assert check(name, TOPICS[name].made(*edits)).mistake == f"{first}, and {second}"


@pytest.mark.parametrize("made", [torch.Tensor.tolist, torch.Tensor.numpy])
@pytest.mark.parametrize("name", ["causal mask", "sinusoids", "batch", "attention"])
def test_right_numbers_that_are_no_tensor_are_told(name, made):
    def mine(*given):
        found = RIGHT[name](*given)
        return made(found) if torch.is_tensor(found) else tuple(made(x.contiguous()) for x in found)

    report = check(name, mine)
    assert report.mistake == "not a tensor" and "hand over a tensor" in report.message


def test_a_list_for_a_tensor_or_a_tensor_for_a_list_hides_no_mistake_and_makes_none():
    upside_down = exercises.check_causal_mask(lambda n: causal_mask(n).mT.tolist())
    assert upside_down.mistake == "the future seen"
    assert exercises.check_vocabulary(lambda *given: torch.tensor(RIGHT["vocabulary"](*given)))


def lengths(rows):
    return max(map(len, rows))


def axes(x):
    return dict(enumerate(x.shape))


def at_heads(d_head):
    """What somebody may divide by, and what is right."""
    return {"d": d_head, "√d": d_head**0.5, "d/2": d_head / 2, "log2 d": math.log2(d_head)}


# For each topic, from a trial: the sizes that an answer may read in it.
SIZES = {
    "vocabulary": lambda symbols, text: {"first id": 3, "symbols": len(symbols), "n": len(text)},
    "batch": lambda vocab, sources, targets: {
        "texts": len(sources),
        "source": lengths(sources),
        "labels": lengths(targets) + 1,
        "symbols": len(vocab),
    },
    "attention": lambda query, key, value, mask=None: {
        "batch": len(query),
        **({"heads": query.shape[1]} if query.dim() > 3 else {}),
        "queries": query.shape[-2],
        "keys": key.shape[-2],
        "width": value.shape[-1],
        **at_heads(query.shape[-1]),
    },
    "padding mask": lambda ids: axes(ids),
    "causal mask": lambda length: {"length": length},
    "heads": lambda x, n_heads: {
        **axes(x),
        "heads": n_heads,
        "d_head": x.shape[-1] // n_heads,
    },
    "sinusoids": lambda positions, d_model: {"rows": len(positions), "d_model": d_model},
    "encoder layer": lambda layer, x, mask: axes(x),
    # The memory is as long as x, so a mask in the wrong place fits.
    "decoder layer": lambda layer, x, memory, own, other: axes(x),
    "loss": lambda logits, labels: {
        **axes(logits),
        "places": labels.numel(),
        "real": int((labels != PAD).sum()),
    },
    "schedule": lambda step, steps, peak, warmup: {
        "step": step,
        "steps": steps,
        "peak": peak,
        "warmup": warmup,
        "rise": warmup * steps,
    },
    "greedy decoding": lambda model, source, max_steps: {
        **axes(source),
        "with eos": source.shape[1] + 1,
        "steps": max_steps,
    },
    "cache": lambda attention, tokens: {
        **axes(tokens),
        "heads": attention.n_heads,
        **at_heads(tokens.shape[-1] // attention.n_heads),
    },
    "anti-diagonal score": lambda weights: dict(enumerate(weights.shape[::-1])),
}
# Those that may be the same in all trials: no answer needs them, or only one trial has them.
FIXED = {
    "vocabulary": ["first id"],
    "attention": ["heads"],
    "encoder layer": [0, 1, 2],
    "decoder layer": [0, 1, 2],
    "cache": [0, 1, 2],
    "anti-diagonal score": [3],
}


@pytest.mark.parametrize("name", TOPICS)
def test_no_two_sizes_are_the_same_in_all_trials_and_none_is_always_the_same(name):
    found = [SIZES[name](*given) for given in TOPICS[name].trials()]
    sizes = list({size: None for one in found for size in one})
    for a, b in combinations(sizes, 2):
        assert any(one[a] != one[b] for one in found if a in one and b in one), (a, b)
    for a in sizes:
        several = {one[a] for one in found if a in one}
        assert len(several) > 1 or a in FIXED.get(name, []), (a, several)


def scaled(by):
    """Attention whose scores are divided by what `by` makes of d_head."""
    return lambda q, *rest: attend(q * q.shape[-1] ** 0.5 / by(q.shape[-1]), *rest)


def grid_of_one_width(*parts):
    width = max(part.shape[1] for part in parts)
    return [F.pad(part, (0, width - part.shape[1])) for part in parts]


@pytest.mark.parametrize(
    "name, functions",
    [
        *(("attention", [scaled(by)]) for by in (lambda d: d // 2, lambda d: 2, math.log2)),
        ("heads", (lambda x, h: x.view(*x.shape[:2], h, 2).transpose(1, 2), merge_heads)),
        ("heads", (split_heads, lambda x: x.transpose(1, 2).reshape(len(x), -1, x.shape[1] * 2))),
        ("vocabulary", [lambda symbols, text: [len(symbols) + symbols.index(s) for s in text]]),
        ("batch", [lambda *given: grid_of_one_width(*RIGHT["batch"](*given))]),
        ("loss", [lambda x, y: F.cross_entropy(x.reshape(-1, 5), y.flatten(), ignore_index=PAD)]),
        ("greedy decoding", [lambda model, source, n: RIGHT["greedy decoding"](model, source, 5)]),
    ],
)
def test_what_is_right_for_one_size_alone_is_not_right(plain, name, functions):
    assert not check(name, *functions, exercises=plain.exercises)


@pytest.mark.parametrize(
    "by",
    [
        lambda q, x, heads: len(x),
        lambda q, x, heads: q.shape[-1] ** 1 / 2,
        lambda q, x, heads: 2,
        lambda q, x, heads: heads,
        lambda q, x, heads: math.log2(q.shape[-1]),
    ],
)
def test_no_other_size_can_stand_for_that_of_a_cached_head(by):
    def cached_step(attention, x, kept):
        kept = [*(kept or []), x]
        q, k, v = (
            split_heads(part(torch.cat(kept, 1)), attention.n_heads)
            for part in (attention.query, attention.key, attention.value)
        )
        weights = (q[:, :, -1:] @ k.mT / by(q, x, attention.n_heads)).softmax(-1)
        return attention.output(merge_heads(weights @ v)), kept

    assert "values are not" in check("cache", cached_step).message


def test_what_is_being_compiled_gets_its_time(monkeypatch):
    monkeypatch.setattr(exercises, "SECONDS", 0.5)
    compiled = []

    def slow(graph, inputs):
        time.sleep(0 if compiled else 1)
        compiled.append(graph)
        return graph.forward

    assert exercises.check_attention(torch.compile(RIGHT["attention"], backend=slow))
    monkeypatch.setattr(exercises, "COMPILING", "a wait that is not one")

    def seeds_for_ever(ids):
        while True:
            torch.manual_seed(3)  # since something was compiled, torch's compiler wraps it

    assert exercises.check_padding_mask(seeds_for_ever).mistake == "too long"


@pytest.mark.parametrize(
    "name, version, said",
    [
        ("attention", lambda *g: [part * 3 for part in attend(*g)], "3 times what they should be"),
        ("sinusoids", lambda p, d: sinusoids(p, d).flip(1), "the right ones in other places"),
        ("attention", scaled(lambda d: d**0.4), "It is wrong without a mask"),
        (
            "attention",
            lambda q, k, v, mask=None: attend(q, k, v, None if q.dim() > 3 else mask),
            "It is right without a mask and with padding hidden and with very low scores."
            " It is wrong with heads in front.",
        ),
        (
            "attention",
            lambda q, k, v, mask=None: attend(q, k, v, None if q.dim() > 3 else mask),
            "trial 3 of 4, with heads in front",
        ),
        (
            "attention",
            lambda *g: (attend(*g)[0], attend(*g)[1] + 0.1),
            "The last axis does not sum to one.",
        ),
        (
            "attention",
            TOPICS["attention"].made(("-1e9", "-5.0")),
            "Some that should be 0 are not.",
        ),
        (
            "causal mask",
            lambda n: causal_mask(n)[:, None],
            "The shape should be (3, 3), and is (3, 1, 3).",
        ),
        ("causal mask", lambda n: causal_mask(n).flatten(), "are right, and lie in another form"),
        ("vocabulary", lambda *g: RIGHT["vocabulary"](*g)[1:], "given    text = 'ca'"),
        ("schedule", lambda s, *how: learning_rate(s + 1, *how), "They are shifted by one place."),
        ("sinusoids", lambda p, d: -sinusoids(p, d), "They have the wrong sign."),
        ("sinusoids", lambda p, d: sinusoids(p, d) + 1, "too high or too low by 1."),
        (
            "decoder layer",
            lambda layer, x, m, *g: RIGHT["decoder layer"](layer, x, m, *g) + x.mean(1, True),
            "Its numbers change with another last token where none should.",
        ),
        (
            "decoder layer",
            lambda layer, x, m, *g: RIGHT["decoder layer"](layer, x, m, *g) + m.mean(1, True),
            "change with another vector at the memory's padding where none should",
        ),
    ],
)
def test_what_has_no_name_is_described(plain, name, version, said):
    report = check(name, version, exercises=plain.exercises)
    assert report.mistake == "not known" and said in report.message


def test_axes_in_another_order_are_told():
    report = exercises.check_heads(lambda x, h: split_heads(x, h).transpose(0, 2), merge_heads)
    assert report.mistake == "not known" and "in another order it would be right" in report.message


def todo(*given):
    raise NotImplementedError


class Mute(Exception):
    def __str__(self):
        raise ValueError

    __repr__ = __str__


def crash(*given):
    raise Mute


@pytest.mark.parametrize("name", TOPICS)
@pytest.mark.parametrize(
    "answer, mistake",
    [
        (todo, "to do"),
        (crash, "crash"),
        (lambda *given: None, "wrong"),
        (lambda *given: "text", "wrong"),
        (lambda *given: {}, "wrong"),
        (lambda *given: torch.eye(2).to_sparse(), "wrong"),
        (lambda *given: torch.zeros(2, device="meta"), "wrong"),
        (lambda *given: torch.zeros(2) * 1j, "wrong"),
        (lambda *given: torch.zeros(7, 7, 7), "wrong"),
        (lambda *given: torch.zeros(1).expand(10**9), "wrong"),
        (lambda *given: torch.tensor(math.nan), "wrong"),
        (lambda *given: (), "wrong"),
    ],
)
def test_anything_may_come_back(plain_answers, name, answer, mistake):
    report = plain_answers._judge(name, answer, plain_answers.TOPICS[name])
    assert isinstance(report, plain_answers.Report) and not report
    assert report.mistake in ([mistake] if mistake != "wrong" else ["wrong type", "not known"])


def test_a_crash_names_the_learners_own_line():
    def my_loss(logits, labels):
        return F.cross_entropy(logits, labels)

    message = exercises.check_loss(my_loss).message
    assert "RuntimeError" in message and "in my_loss, line" in message
    assert "return F.cross_entropy(logits, labels)" in message
    for name, version in (("loss", torch.nn.CrossEntropyLoss()), ("cache", lambda: None)):
        report = check(name, version)
        assert report.mistake == "crash" and " in _" not in report.message


@pytest.mark.parametrize("catch", [(), Exception, BaseException])
@pytest.mark.parametrize("by_hand", [False, True], ids=["time", "Ctrl-C"])
def test_a_loop_without_end_is_stopped(monkeypatch, catch, by_hand):
    monkeypatch.setattr(exercises, "SECONDS", 5.0 if by_hand else 0.3)

    def for_ever(ids):
        while True:
            try:
                math.sqrt(2)
            except catch:
                pass

    start, threads = time.perf_counter(), threading.active_count()
    if by_hand:
        timer = threading.Timer(
            0.3, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]
        )
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup ignores it
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            exercises.check_padding_mask(for_ever)
        timer.join()
        signal.signal(signal.SIGINT, before)
    else:
        assert exercises.check_padding_mask(for_ever).mistake == "too long"
    assert time.perf_counter() - start < 4 and threading.active_count() == threads


def test_what_changes_its_inputs_or_never_gives_the_same_is_told():
    def careless(ids):
        mask = (ids != PAD)[:, None, None]
        ids.zero_()
        return mask

    def clears(vocab, sources, targets):
        found = RIGHT["batch"](vocab, sources, targets)
        sources.clear()
        return found

    def unweighted(layer, x, mask):
        layer.norm1.weight.zero_()
        return RIGHT["encoder layer"](layer, x, mask)

    shared = []

    def remembers(attention, x, kept):
        shared.append(x)
        tokens = torch.cat(shared, dim=1)
        return attention(x, tokens, tokens)[0], None

    assert exercises.check_padding_mask(careless).mistake == "input changed"
    assert exercises.check_batch(clears).mistake == "input changed"
    assert exercises.check_encoder_layer(unweighted).mistake == "input changed"
    assert exercises.check_cache(remembers).mistake == "never the same"
    drops = exercises.check_encoder_layer(lambda *g: F.dropout(RIGHT["encoder layer"](*g)))
    assert drops.mistake == "never the same"


def test_a_checker_leaves_the_global_state(plain, plain_answers, monkeypatch):
    def state():
        numbers = torch.get_rng_state().tolist(), random.getstate()
        how = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
        return repr((numbers, how, warnings.filters))

    exercises = plain.exercises  # beartype, in the other, draws numbers too

    def sets(ids):
        torch.manual_seed(3)
        random.seed(3)
        torch.set_default_dtype(torch.float64)
        warnings.simplefilter("error")
        return (ids != PAD)[:, None, None]

    def for_ever(ids):
        while sets(ids) is not None:
            pass

    before = state()
    assert exercises.check_padding_mask(sets) and state() == before
    monkeypatch.setattr(exercises, "SECONDS", 0.3)
    assert exercises.check_padding_mask(for_ever).mistake == "too long" and state() == before
    monkeypatch.undo()
    accepted = [answer for answer in plain_answers.read_answers() if not answer.mistake]
    one_of_each = {answer.piece: answer for answer in accepted}
    assert one_of_each.keys() == TOPICS.keys()
    for name, answer in one_of_each.items():
        assert check(name, *answer.functions(), exercises=exercises)
    assert state() == before


@pytest.mark.parametrize("things", [(3,), (None,), (torch.zeros(2),), (), (attend, attend)])
def test_only_the_right_number_of_functions_is_checked(plain, things):
    with pytest.raises(plain.errors.InputTypeError, match="hand over your attention, not"):
        plain.exercises.check_attention(*things)
    assert "output, weights" in plain.exercises.check_attention.__doc__


def test_a_report_is_wrapped_at_words_and_keeps_its_lines():
    numbers = "\n".join(f"{' [' if row else '[['}{'0.5, ' * 20}]," for row in range(2))
    report = repr(Report("mask", "wrong", "more-or-less " * 30 + "\n" + numbers))
    prose = report.removesuffix("\n" + numbers).splitlines()
    assert len(prose) > 3 and max(map(len, prose)) <= 88
    assert " ".join(prose) == "mask: " + " ".join(["more-or-less"] * 30)


def test_a_report_draws_expected_beside_got_where_there_is_something_to_draw():
    report = check("attention", scaled(lambda d: 1))
    figure = report.plot()
    assert [ax.get_title() for ax in figure.axes[:2]] == ["expected", "yours"]
    drawn = [torch.tensor(ax.images[0].get_array().tolist()) for ax in figure.axes[:2]]
    torch.testing.assert_close(drawn[0], report.expected.reshape(drawn[0].shape))
    assert not torch.equal(*drawn)
    broken = check("attention", lambda q, k, v, mask=None: (v, q @ k.mT * math.nan))
    assert broken.plot() is not None and "not finite" in broken.message
    nothing = [check("attention", attend), check("loss", todo)]
    nothing += [check("loss", lambda x, y: F.cross_entropy(x.mT, y))]
    nothing += [check("padding mask", lambda ids: (ids != PAD)[:, None, None, :0])]
    assert not any(report.plot() for report in nothing)


ANSWERS = """
import torch
import not_installed

%timeit 1 + 1
expensive = torch.zeros(1) / 0 if open("never") else 0
SIGN = 1

def my_causal_mask(length):
    print("a line of the learner's own")
    return helper(length)

def helper(length):
    return SIGN * torch.ones(length, length).triu().bool() > 0

my_padding_mask = lambda ids: (ids != 0)[:, None, None, :]

def my_loss(logits, labels):
    raise NotImplementedError

def my_greedy(model, source, max_steps):
    import os
    os._exit(7)

def my_score(weights):
    return undefined
"""


@pytest.mark.parametrize("suffix", [".py", ".ipynb"])
def test_a_file_of_answers_is_checked_piece_by_piece(tmp_path, capfd, suffix):
    path, text = tmp_path / f"answers{suffix}", ANSWERS
    if suffix == ".py":  # once is enough: it takes the checker's own five seconds
        text += "\ndef my_schedule(step, steps, peak, warmup):\n    while True:\n        pass\n"
    if suffix == ".ipynb":
        cells = [nbformat.v4.new_code_cell(part) for part in text.split("\n\n")]
        text = nbformat.writes(nbformat.v4.new_notebook(cells=cells))
    path.write_text(text)
    found = {report.topic: report for report in exercises.check_file(path)}
    assert found.keys() == TOPICS.keys() and not (tmp_path / "never").exists()
    assert found["padding mask"] and found["causal mask"].mistake == "the future seen"
    assert (found["loss"].mistake, found["attention"].mistake) == ("to do", "missing")
    assert "ended with code 7" in found["greedy decoding"].message
    assert "return undefined" in found["anti-diagonal score"].message
    if suffix == ".py":
        assert "had not ended after 5 seconds" in found["schedule"].message
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name, text", [("no.py", None), ("a.ipynb", "[]"), ("b.py", "def")])
def test_a_file_that_cannot_be_read_is_one_error(plain, tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(plain.errors.FileError, match=name):
        plain.exercises.check_file(tmp_path / name)
