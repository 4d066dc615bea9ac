"""Every named mistake is recognised in code that was written apart from the catalogue."""

import math
import signal
import threading
import time

import nbformat
import pytest
import torch
import torch.nn.functional as F

from benchmarks import answers as wild
from revtrans import attention, exercises
from revtrans.exercises import Report
from revtrans.exercises.mistakes import TOPICS

PAD, BOS, EOS = 0, 1, 2


def check(name, version) -> Report:
    short = name.replace(" decoding", "").replace("-", "").replace(" ", "_")
    functions = version if isinstance(version, tuple) else (version,)
    return getattr(exercises, f"check_{short}")(*functions)


def number(symbols, text, first=3, around=lambda ids: ids):
    place = {symbol: first + i for i, symbol in enumerate(symbols)}
    return around([place[symbol] for symbol in text])


def grid(rows, fill=PAD, left=False):
    width = max(len(row) for row in rows)
    short = [[fill] * (width - len(row)) for row in rows]
    return torch.tensor([s + row if left else row + s for s, row in zip(short, rows)])


def my_batch(vocab, sources, targets, begin=(BOS,), end=(EOS,), inputs=slice(None, -1), **how):
    rows = [[*begin, *vocab.encode(text), *end] for text in targets]
    read = grid([vocab.encode(text) for text in sources], **how)
    return read, grid([row[inputs] for row in rows], **how), grid([row[1:] for row in rows], **how)


def in_a_loop(query, key, value, mask=None, root=0.5, over=-1, hide="scores", low=-1e9):
    """Attention with a loop for each pair."""
    scores = torch.empty(*query.shape[:-1], key.shape[-2])
    for i in range(query.shape[-2]):
        for j in range(key.shape[-2]):
            product = (query[..., i, :] * key[..., j, :]).sum(-1)
            scores[..., i, j] = product * query.shape[-1] ** -root
    seen = torch.ones_like(scores).bool() if mask is None else mask.expand_as(scores)
    if hide == "scores":
        scores = torch.where(seen, scores, torch.tensor(low))
    if hide == "seen" and mask is not None:
        scores = torch.where(seen, torch.tensor(low), scores)
    if hide == "plus" and mask is not None:
        scores = scores + mask.float()
    weights = F.softmax(scores, dim=over)
    if hide == "weights":
        weights = torch.where(seen, weights, torch.tensor(0.0))
    return torch.einsum("...qk,...kd->...qd", weights, value), weights


def fused(query, key, value, mask=None):
    one_hot = torch.eye(key.shape[-2]).expand(*key.shape[:-1], -1)
    weights = F.scaled_dot_product_attention(query, key, one_hot, mask)
    return F.scaled_dot_product_attention(query, key, value, mask), weights


def scaled_late(query, key, value, mask=None):
    output, weights = in_a_loop(query, key, value, mask, root=0.0)
    return output / math.sqrt(query.shape[-1]), weights / math.sqrt(query.shape[-1])


def triangle(n, sees=lambda i, j: j <= i):
    return torch.tensor([[sees(i, j) for j in range(n)] for i in range(n)])


def split(x, n_heads):
    return torch.stack(x.chunk(n_heads, dim=-1), dim=1)


def merge(x):
    return torch.cat(list(x.unbind(1)), dim=-1)


def table(positions, d_model, base=10_000.0, power=2, even=math.sin, odd=math.cos, column=0):
    rows = []
    for position in positions.tolist():
        pairs = [(position / base ** (power * i / d_model), i) for i in range(d_model // 2)]
        rows.append([])
        for angle, i in pairs:
            rows[-1] += [even(angle), odd(position / base ** ((power * i + column) / d_model))]
    return torch.tensor(rows)


def attend(part, x, mask):
    return part(query=x, key=x, value=x, mask=mask)[0]


def encoder(layer, x, mask, keep="af", norms=(1, 2), normed=False, parts="af"):
    norms = [getattr(layer, f"norm{i}", lambda x: x) for i in norms]
    for part, norm in zip(parts, norms):
        h = norm(x)
        found = attend(layer.self_attention, h, mask) if part == "a" else layer.feed_forward(h)
        x = found + (h if normed else x) if part in keep else found
    return x


def decoder(layer, x, memory, own, other, keep="scf", norms=(1, 2, 3), normed="", parts="scf"):
    norms = [getattr(layer, f"norm{i}", lambda x: x) for i in norms]
    for part in parts:
        h = norms["scf".index(part)](x)
        if part == "s":
            found = attend(layer.self_attention, h, own)
        elif part == "c":
            found = layer.cross_attention(h, memory, memory, other)[0]
        else:
            found = layer.feed_forward(h)
        x = found + (h if normed else x) if part in keep else found
    return x


def encoder_post_norm(layer, x, mask):
    x = layer.norm1(x + attend(layer.self_attention, x, mask))
    return layer.norm2(x + layer.feed_forward(x))


def decoder_post_norm(layer, x, memory, own, other):
    x = layer.norm1(x + attend(layer.self_attention, x, own))
    x = layer.norm2(x + layer.cross_attention(x, memory, memory, other)[0])
    return layer.norm3(x + layer.feed_forward(x))


def asked_by_the_memory(layer, x, memory, own, other, masked=False):
    x = x + attend(layer.self_attention, layer.norm1(x), own)
    h = layer.norm2(x)
    x = x + layer.cross_attention(memory, h, h, other if masked else None)[0]
    return x + layer.feed_forward(layer.norm3(x))


def stale(layer, x, memory, own, other):
    h = layer.norm1(x)
    x = x + attend(layer.self_attention, h, own)
    x = x + layer.cross_attention(h, memory, memory, other)[0]
    return x + layer.feed_forward(layer.norm3(x))


def loss_in_a_loop(logits, labels, keep=lambda y: y != PAD, by="count", smooth=0.0):
    total, count, rows = 0.0, 0, []
    for row, ys in zip(logits, labels):
        own = [
            -(1 - smooth) * x.log_softmax(0)[y] - smooth * x.log_softmax(0).mean()
            for x, y in zip(row, ys.tolist())
            if keep(y)
        ]
        total, count = total + sum(own), count + len(own)
        rows.append(sum(own) / len(own))
    means = {"places": labels.numel(), "sum": 1, "count": count}
    return sum(rows) / len(rows) if by == "rows" else total / means[by]


def rate(step, steps, peak, warmup, rise=1, fall="cosine", start=None, last=0):
    top = max(warmup * steps - 1, 0)
    if step < top and rise is not None:
        return peak * (step + rise) / (top + 1)
    place = (step - top) / (steps - last - top) if start is None else step / steps
    falls = {
        "cosine": math.cos(math.pi * max(place, 0) / 2) ** 2,
        "line": 1 - place,
        "root": ((top + 1) / (step + 1)) ** 0.5,
    }
    return peak * falls[fall]


def held(step, steps, peak, warmup):
    warm = int(warmup * steps)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def write(model, source, n, begin=BOS, at=-1, stop="all", cut=(1, None), read=None):
    rows = [[begin] for _ in source]
    for _ in range(n):
        logits = model(source, torch.tensor([row[read:] for row in rows]))
        for row, scores in zip(rows, logits):
            over = EOS in row[1:] and stop != "never"
            row.append(PAD if over else int(scores[at].argmax()))
        ended = [EOS in row[1:] for row in rows]
        if stop != "never" and (all(ended) or (stop == "first" and any(ended))):
            break
    return torch.tensor([row[slice(*cut)] for row in rows])


def cached(attention, x, kept, give=lambda old, new: old + new, see=lambda kept: kept, flip=1):
    """A step that keeps a list of heads' keys and values, position by position."""
    query, *new = (
        split(part(x), attention.n_heads)
        for part in (attention.query, attention.key, attention.value)
    )
    kept = give(kept or [], [new])
    keys, values = (torch.cat(side, 2) for side in list(zip(*see(kept)))[::flip])
    return attention.output(merge(fused(query, keys, values)[0])), kept


def raw(attention, x, kept):
    kept = [*(kept or []), x]
    tokens = split(torch.cat(kept, 1), attention.n_heads)
    query = split(attention.query(x), attention.n_heads)
    return attention.output(merge(fused(query, tokens, tokens)[0])), kept


def projects_all(attention, x, kept):
    tokens = x if kept is None else torch.cat([kept, x], dim=1)
    return attention(x, tokens, tokens)[0], tokens


def score(weights, column=lambda t, n: n - 1 - t, row=0, by="columns"):
    n = weights.shape[-1]
    along = torch.stack([weights[..., row + t, column(t, n)] for t in range(n)], -1)
    return along.sum(-1) / {"columns": n, "rows": weights.shape[-2], "nothing": 1}[by]


def masks(change):
    """A decoder layer that gets other masks; c is causal, p is padding."""
    return lambda layer, x, memory, c, p: decoder(layer, x, memory, *change(c, p))


def but(version, **how):
    return lambda *given: version(*given, **how)


RIGHT = {
    "vocabulary": [number, lambda symbols, text: [3 + symbols.find(symbol) for symbol in text]],
    "batch": [my_batch],
    "attention": [in_a_loop, fused, but(in_a_loop, low=-math.inf), but(in_a_loop, low=-3e38)],
    "padding mask": [lambda ids: torch.stack([row.ne(PAD) for row in ids])[:, None, None, :]],
    "causal mask": [triangle, lambda n: torch.arange(n) <= torch.arange(n)[:, None]],
    "heads": [(split, merge), (attention.split_heads, lambda x: x.permute(0, 2, 1, 3).flatten(2))],
    "sinusoids": [table],
    "encoder layer": [encoder],
    "decoder layer": [decoder],
    "loss": [loss_in_a_loop, lambda x, y: F.cross_entropy(x.mT, y, ignore_index=PAD)],
    "schedule": [rate],
    "greedy decoding": [write],
    "cache": [cached],
    "anti-diagonal score": [score, lambda w: w.flip(-1).diagonal(0, -2, -1).mean(-1)],
}
# For each mistake one or more versions.
WRONG = {
    "vocabulary": {
        "counted from another number": [but(number, first=i) for i in (0, 1, 2, 4)],
        "alphabet not used": [lambda symbols, text: [ord(s) - 94 for s in text]],
        "alphabet made from the text": [
            lambda symbols, text: number("".join(sorted(set(text))), text),
            lambda symbols, text: [3 + list(dict(zip(text, text))).index(s) for s in text],
        ],
        "bos and eos added": [but(number, around=lambda ids: [BOS, *ids, EOS])],
    },
    "batch": {
        "labels not shifted": [
            but(my_batch, inputs=slice(1, None)),
            lambda v, s, t: (my_batch(v, s, t)[0], *[my_batch(v, t, t)[0]] * 2),
            lambda v, s, t: (my_batch(v, s, t)[0], *[my_batch(v, s, t, (BOS, BOS))[2]] * 2),
        ],
        "shifted the wrong way": [lambda *given: [my_batch(*given)[i] for i in (0, 2, 1)]],
        "targets not used": [
            lambda v, s, t: my_batch(v, s, [one[::-1] for one in s]),
            lambda v, s, t: my_batch(v, s, s),
        ],
        "no eos": [but(my_batch, end=())],
        "no bos": [but(my_batch, begin=())],
        "padded with eos": [but(my_batch, fill=EOS)],
        "bos and eos in the source": [
            lambda v, s, t: (my_batch(v, s, s, inputs=slice(None))[1], *my_batch(v, s, t)[1:])
        ],
        "padded on the left": [
            lambda v, s, t: (
                my_batch(v, s, t, left=True)[0],
                *((full := my_batch(v, s, t, inputs=slice(None), left=True)[1])[:, :-1],),
                full[:, 1:],
            )
        ],
        "length first": [lambda *given: [x.T for x in my_batch(*given)]],
    },
    "attention": {
        "not scaled": [but(in_a_loop, root=0.0), but(in_a_loop, root=0.0, low=-math.inf)],
        "scaled by d instead of √d": [but(in_a_loop, root=1.0)],
        "scaled after the softmax": [scaled_late],
        "softmax on the wrong axis": [
            but(in_a_loop, over=-2),
            but(in_a_loop, over=-3),
            but(in_a_loop, over=0),
            but(in_a_loop, over=1),
        ],
        "axes counted from the front": [but(in_a_loop, over=2)],
        "mask inverted": [but(in_a_loop, hide="seen", low=x) for x in (-1e9, -3e38, -math.inf)],
        "mask applied after the softmax": [but(in_a_loop, hide="weights")],
        "hidden scores set to zero": [but(in_a_loop, low=1e-9), but(in_a_loop, low=0.0)],
        "hidden scores only lowered": [but(in_a_loop, low=-100.0), but(in_a_loop, low=-10.0)],
        "mask added as numbers": [but(in_a_loop, hide="plus")],
        "padding attended": [but(in_a_loop, hide="nothing")],
        "results exchanged": [lambda *given: fused(*given)[::-1]],
    },
    "padding mask": {
        "mask inverted": [lambda ids: ids.eq(PAD)[:, None, None]],
        "axes missing": [lambda ids: ids.ne(PAD), lambda ids: ids.ne(PAD).unsqueeze(1)],
        "queries hidden instead of keys": [lambda ids: ids.ne(PAD)[:, None, :, None]],
        "not boolean": [
            lambda ids: ids.clamp(max=1)[:, None, None],
            lambda ids: ids.ne(PAD)[:, None, None].float(),
        ],
        "bos and eos hidden too": [lambda ids: ids.gt(2)[:, None, None]],
    },
    "causal mask": {
        "the future seen": [but(triangle, sees=lambda i, j: j >= i)],
        "one step of the future seen": [but(triangle, sees=lambda i, j: j <= i + 1)],
        "blind to itself": [but(triangle, sees=lambda i, j: j < i)],
        "mask inverted": [but(triangle, sees=lambda i, j: j > i)],
        "not boolean": [
            lambda n: triangle(n).int(),
            lambda n: triangle(n).double(),
            lambda n: torch.zeros(n, n).masked_fill(~triangle(n), -math.inf),
        ],
        "everything seen": [but(triangle, sees=lambda i, j: True)],
    },
    "heads": {
        "split by view without transpose": [
            (lambda x, h: x.view(len(x), h, x.shape[1], x.shape[2] // h), merge),
        ],
        "heads left behind the length": [(lambda x, h: torch.stack(x.chunk(h, -1), 2), merge)],
        "heads interleaved": [
            (lambda x, h: torch.stack([x[..., i::h] for i in range(h)], 1), merge)
        ],
        "merged without transpose": [(split, lambda x: x.flatten().view(len(x), x.shape[2], -1))],
        "heads merged in the wrong order": [
            (split, lambda x: torch.stack(x.unbind(1), -1).flatten(2))
        ],
    },
    "sinusoids": {
        "sine and cosine not interleaved": [
            lambda p, d: torch.cat([table(p, d)[:, 0::2], table(p, d)[:, 1::2]], 1)
        ],
        "sine and cosine exchanged": [but(table, even=math.cos, odd=math.sin)],
        "positions from one": [lambda p, d: table(p + 1, d)],
        "positions not used": [lambda p, d: table(torch.arange(len(p)), d)],
        "wrong exponents": [but(table, power=4), but(table, power=1)],
        "a frequency for each column": [but(table, column=1), but(table, power=4, column=2)],
    },
    "encoder layer": {
        "norm on the wrong side": [encoder_post_norm],
        "a norm missing": [but(encoder, norms=n) for n in ((0, 2), (1, 0), (0, 0))],
        "the same norm twice": [but(encoder, norms=(1, 1))],
        "no residual": [but(encoder, keep="")],
        "a residual missing": [but(encoder, keep="f"), but(encoder, keep="a")],
        "residual from the normed": [but(encoder, normed=True)],
        "padding attended": [lambda layer, x, mask: encoder(layer, x, None)],
        "mask inverted": [
            lambda layer, x, mask: encoder(layer, x, None if mask is None else mask.logical_not())
        ],
        "no feed-forward": [but(encoder, parts="a")],
    },
    "decoder layer": {
        "norm on the wrong side": [decoder_post_norm],
        "a norm missing": [
            but(decoder, norms=n) for n in ((0, 2, 3), (1, 0, 3), (1, 2, 0), (0, 0, 0))
        ],
        "the same norm again": [but(decoder, norms=(1, 1, 1))],
        "the future seen": [masks(lambda c, p: (None, p))],
        "padding attended": [masks(lambda c, p: (c, None))],
        "masks exchanged": [masks(lambda c, p: (p, c))],
        "one mask for both": [masks(lambda c, p: (c, c)), masks(lambda c, p: (p, p))],
        "cross-attention's query and key exchanged": [
            asked_by_the_memory,
            but(asked_by_the_memory, masked=True),
        ],
        "a stale query": [stale],
        "no residual": [but(decoder, keep="")],
        "a residual missing": [but(decoder, keep=k) for k in ("cf", "sf", "sc")],
        "residual from the normed": [but(decoder, normed="scf")],
        "no cross-attention": [but(decoder, parts="sf")],
        "no feed-forward": [but(decoder, parts="sc")],
    },
    "loss": {
        "no gradient": [
            lambda x, y: loss_in_a_loop(x, y).item(),
            lambda x, y: F.cross_entropy(x.detach().mT, y, ignore_index=PAD),
        ],
        "axes exchanged by view": [
            lambda x, y: F.cross_entropy(
                x.view(x.shape[0], x.shape[2], x.shape[1]), y, ignore_index=PAD
            )
        ],
        "padding counted": [lambda x, y: F.cross_entropy(x.flatten(0, 1), y.flatten())],
        "eos left out": [but(loss_in_a_loop, keep=lambda y: y not in (PAD, EOS))],
        "averaged over padding": [but(loss_in_a_loop, by="places")],
        "mean of the rows' means": [but(loss_in_a_loop, by="rows")],
        "sum instead of mean": [but(loss_in_a_loop, by="sum")],
        "softmax twice": [lambda x, y: loss_in_a_loop(x.softmax(-1), y)],
        "no softmax": [lambda x, y: F.nll_loss(x.mT, y, ignore_index=PAD)],
        "smoothing left on": [
            but(loss_in_a_loop, smooth=0.1),
            lambda x, y: F.cross_entropy(x.mT, y, ignore_index=PAD, label_smoothing=0.1),
        ],
    },
    "schedule": {
        "no warm-up": [
            but(rate, rise=None),
            lambda s, n, p, w: p * math.cos(math.pi * s / n / 2) ** 2,
        ],
        "first step without effect": [but(rate, rise=0)],
        "last step without effect": [but(rate, last=1)],
        "peak held too long": [held],
        "linear fall": [but(rate, fall="line")],
        "Noam's schedule": [but(rate, fall="root")],
        "cosine over all steps": [but(rate, start=0)],
    },
    "greedy decoding": {
        "started with eos": [but(write, begin=EOS)],
        "the first position read": [but(write, at=0)],
        "only the newest symbol read": [but(write, read=-1)],
        "never stops": [but(write, stop="never")],
        "stops with the first row": [but(write, stop="first")],
        "one step too few": [lambda model, source, n: write(model, source, n - 1)],
        "stops one symbol early": [but(write, cut=(1, -1))],
        "bos left in front": [but(write, cut=(0, None))],
    },
    "cache": {
        "past not read": [but(cached, see=lambda kept: kept[-1:])],
        "only the newest kept": [
            lambda *g: (lambda output, kept: (output, kept[-1:]))(*cached(*g))
        ],
        "newest not read": [but(cached, see=lambda kept: kept[:-1] or kept)],
        "the first position lost": [but(cached, see=lambda kept: kept[1:] or kept)],
        "keys and values exchanged": [but(cached, flip=-1)],
        "not projected": [raw],
        "all projected again": [projects_all],
    },
    "anti-diagonal score": {
        "the main diagonal": [but(score, column=lambda t, n: t)],
        "the last row counted": [but(score, by="rows")],
        "counted from the last row": [but(score, row=1)],
        "one column beside": [but(score, column=lambda t, n: (n - t) % n)],
        "sum instead of mean": [but(score, by="nothing")],
        "heads averaged": [lambda w: score(w).mean()],
    },
}


def test_the_tables_have_every_topic_and_every_mistake():
    assert RIGHT.keys() == WRONG.keys() == TOPICS.keys()
    for name, topic in TOPICS.items():
        assert WRONG[name].keys() <= topic.mistakes.keys(), name
        for _, several in topic.mistakes.values():
            assert all(edits[0][0] in topic.code for edits in several), name


@pytest.mark.parametrize("name, i", [(n, i) for n, vs in RIGHT.items() for i in range(len(vs))])
def test_a_right_version_in_another_style_passes(name, i):
    report = check(name, RIGHT[name][i])
    assert report and report.mistake == "" and repr(report) == f"{name}: right. ✓"


@pytest.mark.parametrize(
    "name, mistake", [(n, m) for n, topic in TOPICS.items() for m in topic.mistakes]
)
def test_a_mistake_is_called_by_its_name(name, mistake):
    sentence, ours = TOPICS[name].mistakes[mistake]
    assert sentence.endswith(".") and len(sentence) < 130
    for version in WRONG[name].get(mistake, []):
        report = check(name, version)
        head, _, numbers = report.message.partition("\n")
        assert not report and head == f"{mistake}. {sentence}"
        assert "trial" in numbers and "given" in numbers
        compared = "expected" in numbers and "yours" in numbers
        assert compared != ("it ended with" in numbers), "the numbers, or how it ended"
    assert ours
    for edits in ours:
        version = TOPICS[name].made(*edits)
        assert exercises._judge(name, version, TOPICS[name]).mistake == mistake


@pytest.mark.parametrize(
    "name, version, mistake",
    [
        (
            "heads",
            (split, lambda x: x.transpose(1, 2).view(x.shape[0], x.shape[2], -1)),
            "a view of what is not contiguous",
        ),
        (
            "loss",
            lambda x, y: F.cross_entropy(x.view(-1, x.size(-1)), y.view(-1), ignore_index=0),
            "a view of what is not contiguous",
        ),
        ("attention", lambda q, k, v, mask=None: (v, q.view(*q.shape[:-2], -1)), "crash"),
    ],
)
def test_what_crashes_in_the_real_model_crashes_here(name, version, mistake):
    assert "view size is not compatible" in (report := check(name, version)).message
    assert report.mistake == mistake and "in <lambda>, line" in report.message


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


def test_two_mistakes_at_once_get_both_names():
    report = check("attention", but(in_a_loop, root=0.0, hide="seen", low=-math.inf))
    assert report.mistake == "not scaled, and mask inverted"
    later = check("batch", but(my_batch, begin=(), fill=EOS))
    assert later.mistake == "no bos, and padded with eos"
    assert check("decoder layer", but(decoder, norms=(1, 1, 1), keep="sc")).mistake == (
        "the same norm again, and a residual missing"
    )


@pytest.mark.parametrize("made", [torch.Tensor.tolist, torch.Tensor.numpy])
def test_right_numbers_that_are_no_tensor_are_told(made):
    def pair(*given):
        return tuple(made(part.contiguous()) for part in fused(*given))

    told = [
        exercises.check_causal_mask(lambda n: made(triangle(n))),
        exercises.check_sinusoids(lambda p, d: made(table(p, d))),
        exercises.check_batch(lambda *given: tuple(map(made, my_batch(*given)))),
        exercises.check_attention(pair),
    ]
    for report in told:
        assert report.mistake == "not a tensor" and "hand over a tensor" in report.message
    wrong = exercises.check_causal_mask(lambda n: made(triangle(n, lambda i, j: j >= i)))
    assert wrong.mistake == "the future seen"
    assert exercises.check_vocabulary(lambda *given: torch.tensor(number(*given)))


def test_no_two_sizes_of_a_trial_are_mistaken_for_each_other():
    def by_the_batch(attention, x, kept):
        kept = [*(kept or []), x]
        q, k, v = (
            split(part(torch.cat(kept, 1)), attention.n_heads)
            for part in (attention.query, attention.key, attention.value)
        )
        weights = (q[:, :, -1:] @ k.mT / len(x) ** 0.5).softmax(-1)
        return attention.output(merge(weights @ v)), kept

    assert "values are not" in check("cache", by_the_batch).message


def test_what_is_being_compiled_gets_its_time(monkeypatch):
    monkeypatch.setattr(exercises, "SECONDS", 0.05)
    assert exercises.check_attention(torch.compile(in_a_loop, backend="eager"))


@pytest.mark.parametrize(
    "name, version, said",
    [
        ("attention", lambda *g: [part * 3 for part in fused(*g)], "3 times what they should be"),
        ("sinusoids", lambda p, d: table(p, d).flip(1), "the right ones in other places"),
        ("attention", but(in_a_loop, root=0.4), "It is wrong without a mask"),
        (
            "attention",
            lambda q, k, v, mask=None: in_a_loop(q, k, v, None if q.dim() > 3 else mask),
            "It is right without a mask and with padding hidden and with very low scores."
            " It is wrong with heads in front.",
        ),
        (
            "attention",
            lambda q, k, v, mask=None: (fused(q, k, v, mask)[0], in_a_loop(q, k, v, mask)[1] + 0.1),
            "The last axis does not sum to one.",
        ),
        ("attention", but(in_a_loop, low=-5.0), "Some that should be 0 are not."),
        (
            "causal mask",
            lambda n: triangle(n)[:, None],
            "The shape should be (3, 3), and is (3, 1, 3).",
        ),
        ("vocabulary", lambda *g: number(*g)[1:], "given    text = 'ca'"),
        (
            "attention",
            lambda q, k, v, mask=None: in_a_loop(q, k, v, None if q.dim() > 3 else mask),
            "trial 3 of 4, with heads in front",
        ),
        ("schedule", lambda s, *how: rate(s + 1, *how), "They are shifted by one place."),
        ("sinusoids", lambda p, d: -table(p, d), "They have the wrong sign."),
        ("sinusoids", lambda p, d: table(p, d) + 1, "too high or too low by 1."),
        (
            "heads",
            (lambda x, h: split(x, h).transpose(0, 2), merge),
            "in another order it would be right",
        ),
        ("causal mask", lambda n: triangle(n).flatten(), "are right, and lie in another form"),
        (
            "decoder layer",
            lambda layer, x, m, own, other: decoder(layer, x, m, own, other) + x.mean(1, True),
            "Its numbers change with another last token where none should.",
        ),
        (
            "decoder layer",
            lambda layer, x, m, own, other: decoder(layer, x, m, own, other) + m.mean(1, True),
            "change with another vector at the memory's padding where none should",
        ),
    ],
)
def test_what_has_no_name_is_described(name, version, said):
    report = check(name, version)
    assert report.mistake == "not known" and said in report.message


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
def test_anything_may_come_back(name, answer, mistake):
    report = exercises._judge(name, answer, TOPICS[name])
    assert isinstance(report, Report) and not report
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
        found = my_batch(vocab, sources, targets)
        sources.clear()
        return found

    def unweighted(layer, x, mask):
        layer.norm1.weight.zero_()
        return encoder(layer, x, mask)

    shared = []

    def remembers(attention, x, kept):
        shared.append(x)
        tokens = torch.cat(shared, dim=1)
        return attention(x, tokens, tokens)[0], None

    assert exercises.check_padding_mask(careless).mistake == "input changed"
    assert exercises.check_batch(clears).mistake == "input changed"
    assert exercises.check_encoder_layer(unweighted).mistake == "input changed"
    assert exercises.check_cache(remembers).mistake == "never the same"
    assert exercises.check_encoder_layer(lambda *g: F.dropout(encoder(*g))).mistake == (
        "never the same"
    )


def test_a_checker_leaves_the_global_state():
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def sets(ids):
        torch.manual_seed(3)
        torch.set_default_dtype(torch.float64)
        return (ids != PAD)[:, None, None]

    assert exercises.check_padding_mask(sets) and torch.get_default_dtype() == torch.float32
    for name, versions in RIGHT.items():
        assert check(name, versions[0])
    assert torch.equal(state, torch.get_rng_state()) and threads == torch.get_num_threads()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("things", [(3,), (None,), (torch.zeros(2),), (), (split, merge)])
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
    report = check("attention", WRONG["attention"]["not scaled"][0])
    figure = report.plot()
    assert [ax.get_title() for ax in figure.axes[:2]] == ["expected", "yours"]
    drawn = [torch.tensor(ax.images[0].get_array().tolist()) for ax in figure.axes[:2]]
    torch.testing.assert_close(drawn[0], report.expected.reshape(drawn[0].shape))
    assert not torch.equal(*drawn)
    broken = check("attention", lambda q, k, v, mask=None: (v, q @ k.mT * math.nan))
    assert broken.plot() is not None and "not finite" in broken.message
    nothing = [check("attention", fused), check("loss", todo)]
    nothing += [check("loss", WRONG["loss"]["padding counted"][0])]
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
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name, text", [("no.py", None), ("a.ipynb", "[]"), ("b.py", "def")])
def test_a_file_that_cannot_be_read_is_one_error(plain, tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(plain.errors.FileError, match=name):
        plain.exercises.check_file(tmp_path / name)


def test_answers_that_were_written_apart_are_judged_as_they_should(capsys):
    seen = []
    *_, total = wild.answers(80, lambda answer, report: seen.append((answer, report)))
    assert total["wrong accepted"] == 0 and total["wrong named"] >= 0.6 * total["wrong"]
    assert total["right accepted"] >= 0.97 * total["right"] and len(seen) == 80
    for answer, report in seen:
        assert report or answer.right or report.message, answer.what
