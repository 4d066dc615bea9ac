"""Every named mistake is recognised in code that was written apart from the catalogue."""

import math
import statistics
import threading
import time

import pytest
import torch
import torch.nn.functional as F

from revtrans import exercises
from revtrans.exercises import Report
from revtrans.mistakes import TOPICS

PAD, BOS, EOS = 0, 1, 2
CHECKERS = {
    "vocabulary": exercises.check_vocabulary,
    "batch": exercises.check_batch,
    "attention": exercises.check_attention,
    "padding mask": exercises.check_padding_mask,
    "causal mask": exercises.check_causal_mask,
    "heads": lambda pair: exercises.check_heads(*pair),
    "sinusoids": exercises.check_sinusoids,
    "encoder layer": exercises.check_encoder_layer,
    "decoder layer": exercises.check_decoder_layer,
    "loss": exercises.check_loss,
    "schedule": exercises.check_schedule,
    "greedy decoding": exercises.check_greedy,
    "cache": exercises.check_cache,
    "anti-diagonal score": exercises.check_antidiagonal_score,
}


def number(symbols, text, first=3, order=str, around=lambda ids: ids):
    place = {symbol: first + i for i, symbol in enumerate(order(symbols))}
    return around([place[symbol] for symbol in text])


def grid(rows, fill=PAD, left=False):
    width = max(len(row) for row in rows)
    padded = [
        ([fill] * (width - len(r)) + r) if left else (r + [fill] * (width - len(r))) for r in rows
    ]
    return torch.tensor(padded)


def my_batch(vocab, sources, targets, source=list, begin=(BOS,), end=(EOS,), shift=True, **how):
    read = [source(vocab.encode(text)) for text in sources]
    inputs, labels = [], []
    for text in targets:
        ids = [*begin, *vocab.encode(text), *end]
        inputs.append(ids[:-1] if shift else ids[1:])
        labels.append(ids[1:])
    return grid(read, **how), grid(inputs, **how), grid(labels, **how)


def no_eos(vocab, sources, targets):
    _, inputs, _ = my_batch(vocab, sources, targets, end=())
    return my_batch(vocab, sources, targets)[0], inputs, grid([vocab.encode(t) for t in targets])


def in_a_loop(query, key, value, mask=None, root=0.5, over=-1, hide="scores"):
    """Attention with a loop for each pair."""
    n, m = query.shape[-2], key.shape[-2]
    scores = torch.empty(*query.shape[:-1], m)
    for i in range(n):
        for j in range(m):
            product = (query[..., i, :] * key[..., j, :]).sum(-1)
            scores[..., i, j] = product * query.shape[-1] ** -root
    seen = torch.ones_like(scores).bool() if mask is None else mask.expand_as(scores)
    if hide == "scores":
        scores = torch.where(seen, scores, torch.tensor(-1e9))
    if hide == "score of 0":
        scores = torch.where(seen, scores, torch.tensor(1e-9))
    if hide == "seen" and mask is not None:
        scores = torch.where(seen, torch.tensor(-1e9), scores)
    if hide == "plus" and mask is not None:
        scores = scores + mask.float()
    weights = F.softmax(scores, dim=over)
    if hide == "weights":
        weights = torch.where(seen, weights, torch.tensor(0.0))
    return torch.einsum("...qk,...kd->...qd", weights, value), weights


def triangle(n_query, n_key=None, sees=lambda i, j: j <= i, end=True):
    n_key = n_key or n_query
    off = n_key - n_query if end else 0
    return torch.tensor([[sees(i + off, j) for j in range(n_key)] for i in range(n_query)])


def split(x, n_heads):
    return torch.stack(x.chunk(n_heads, dim=-1), dim=1)


def merge(x):
    return torch.cat(list(x.unbind(1)), dim=-1)


def table(n, d_model, first=0, base=10_000.0, power=2, even=math.sin, odd=math.cos):
    rows = []
    for position in range(first, first + n):
        row = []
        for i in range(d_model // 2):
            angle = position / base ** (power * i / d_model)
            row += [even(angle), odd(angle)]
        rows.append(row)
    return torch.tensor(rows)


def sines_first(n, d_model):
    found = table(n, d_model)
    return torch.cat([found[:, 0::2], found[:, 1::2]], 1)


def by_column(n, d_model):
    table = torch.zeros(n, d_model)
    for position in range(n):
        for i in range(0, d_model, 2):
            table[position, i] = math.sin(position / 10_000 ** (2 * i / d_model))
            table[position, i + 1] = math.cos(position / 10_000 ** (2 * (i + 1) / d_model))
    return table


def attend(attention, x, mask):
    return attention(query=x, key=x, value=x, mask=mask)[0]


def encoder(layer, x, mask, *, residual="af", second=None, forward=True):
    added = attend(layer.self_attention, layer.norm1(x), mask)
    x = x + added if "a" in residual else added
    if forward:
        added = layer.feed_forward((second or layer.norm2)(x))
        x = x + added if "f" in residual else added
    return x


def post_norm(layer, x, mask):
    x = layer.norm1(x + attend(layer.self_attention, x, mask))
    return layer.norm2(x + layer.feed_forward(x))


def from_the_normed(layer, x, mask):
    x = layer.norm1(x)
    x = layer.norm2(x + attend(layer.self_attention, x, mask))
    return x + layer.feed_forward(x)


def beside(layer, x, mask):
    attended = attend(layer.self_attention, layer.norm1(x), mask)
    return x + attended + layer.feed_forward(layer.norm2(x))


def decoder(
    layer, x, memory, self_mask, cross_mask, order="scf", norms=(1, 2, 3), keep="scf", normed=""
):
    norms = [getattr(layer, f"norm{i}", lambda x: x) for i in norms]
    for part in order:
        h = norms["scf".index(part)](x)
        if part == "s":
            found = attend(layer.self_attention, h, self_mask)
        elif part == "c":
            found = layer.cross_attention(h, memory, memory, cross_mask)[0]
        else:
            found = layer.feed_forward(h)
        x = found + (h if normed else x) if part in keep else found
    return x


def decoder_post_norm(layer, x, memory, self_mask, cross_mask):
    x = layer.norm1(x + attend(layer.self_attention, x, self_mask))
    x = layer.norm2(x + layer.cross_attention(x, memory, memory, cross_mask)[0])
    return layer.norm3(x + layer.feed_forward(x))


def asked_by_the_memory(layer, x, memory, self_mask, cross_mask, masked=False):
    x = x + attend(layer.self_attention, layer.norm1(x), self_mask)
    h = layer.norm2(x)
    mask = cross_mask if masked else None
    x = x + layer.cross_attention(query=memory, key=h, value=h, mask=mask)[0]
    return x + layer.feed_forward(layer.norm3(x))


def loss_in_a_loop(logits, labels, keep=lambda y: y != PAD, by="count"):
    total, count, rows = 0.0, 0, []
    for row, ys in zip(logits, labels):
        own = [-x.softmax(0)[y].log() for x, y in zip(row, ys.tolist()) if keep(y)]
        total, count = total + sum(own), count + len(own)
        rows.append(sum(own) / len(own))
    return {
        "count": total / count,
        "places": total / labels.numel(),
        "rows": sum(rows) / len(rows),
        "sum": total,
        "strings": total / len(labels),
        "bits": total / count / math.log(2),
        "minus": -total / count,
    }[by]


def rate(step, steps, peak, warmup, rise=1, fall="cosine", start=None):
    top = warmup * steps - 1
    if step < top and rise is not None:
        return peak * (step + rise) / (top + 1)
    place = (step - top) / (steps - top) if start is None else step / steps
    shape = {
        "cosine": math.cos(math.pi * max(place, 0) / 2) ** 2,
        "line": 1 - place,
        "flat": 1.0,
        "whole": math.cos(math.pi * place) ** 2,
    }
    return peak * shape[fall]


def held(step, steps, peak, warmup):
    warm = int(warmup * steps)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def write(
    model,
    source,
    max_steps,
    begin=BOS,
    best=torch.argmax,
    at=-1,
    stop="all",
    cut=slice(1, None),
    read=slice(None),
):
    rows = [[begin] for _ in source]
    for _ in range(max_steps):
        logits = model(source, torch.tensor([row[read] for row in rows]))
        for row, scores in zip(rows, logits):
            over = EOS in row[1:] and stop != "never"
            row.append(PAD if over else int(best(scores[at])))
        ended = [EOS in row[1:] for row in rows]
        if stop != "never" and (all(ended) or (stop == "first" and any(ended))):
            break
    return torch.tensor([row[cut] for row in rows])


def cache(
    join=lambda old, new: [*old, new],
    give=lambda parts: parts,
    project=True,
    axis=2,
    flip=False,
    shared=None,
    of=lambda attention, key, value: attention.project(key, value),
):
    class Cache:
        def __init__(self, max_steps):
            self.parts = [] if shared is None else shared

        def __call__(self, attention, key, value):
            new = of(attention, key, value)
            if not project:
                new = split(key, 2), split(value, 2)
            joined = join(self.parts, new[::-1] if flip else new)
            self.parts[:] = joined
            return tuple(torch.cat(of, axis) for of in zip(*give(self.parts)))

    return Cache


class late_projection:
    def __init__(self, max_steps):
        self.tokens = []

    def __call__(self, attention, key, value):
        self.tokens.append((key, value))
        return attention.project(*(torch.cat(of, dim=1) for of in zip(*self.tokens)))


def score(weights, column=lambda t, n: n - 1 - t, row=lambda t: t, by="columns", whole=False):
    n = weights.shape[-1]
    along = torch.stack([weights[..., row(t), column(t, n)] for t in range(n)], -1)
    if by == "max":
        return along.amax(-1)
    share = along.sum(-1) / {"columns": n, "rows": weights.shape[-2], "nothing": 1}[by]
    return share.mean() if whole else share


def fused(query, key, value, mask=None):
    weights = F.scaled_dot_product_attention(
        query, key, torch.eye(key.shape[-2]).expand(*key.shape[:-1], -1), mask
    )
    return F.scaled_dot_product_attention(query, key, value, mask), weights


def masks_exchanged(layer, x, memory, self_mask, cross_mask):
    return decoder(layer, x, memory, cross_mask, self_mask)


RIGHT = {
    "vocabulary": [number, lambda symbols, text: [3 + symbols.find(symbol) for symbol in text]],
    "batch": [my_batch],
    "attention": [in_a_loop, fused],
    "padding mask": [lambda ids: torch.stack([row.ne(PAD) for row in ids])[:, None, :]],
    "causal mask": [triangle],
    "heads": [(split, merge)],
    "sinusoids": [table],
    "encoder layer": [encoder],
    "decoder layer": [decoder],
    "loss": [
        loss_in_a_loop,
        lambda x, y: F.cross_entropy(x.transpose(1, 2), y, ignore_index=PAD),
    ],
    "schedule": [rate],
    "greedy decoding": [write],
    "cache": [cache()],
    "anti-diagonal score": [score, lambda w: w.flip(-1).diagonal(0, -2, -1).mean(-1)],
}
WRONG = {
    "vocabulary": {
        "special ids not left free": lambda *given: number(*given, first=0),
        "only pad left free": lambda *given: number(*given, first=1),
        "alphabet sorted": lambda *given: number(*given, order=sorted),
        "numbered as they come": lambda symbols, text: [
            3 + list(dict(zip(text, text))).index(s) for s in text
        ],
        "alphabet not used": lambda symbols, text: [ord(s) - 94 for s in text],
        "alphabet made from the text": lambda symbols, text: number(
            "".join(sorted(set(text))), text
        ),
        "code points": lambda symbols, text: list(map(ord, text)),
        "repeated symbols dropped": lambda symbols, text: number(
            symbols, list(dict(zip(text, text)))
        ),
        "bos and eos added": lambda *given: number(*given, around=lambda ids: [BOS, *ids, EOS]),
    },
    "batch": {
        "labels not shifted": lambda *given: my_batch(*given, shift=False),
        "targets not used": lambda vocab, s, t: my_batch(vocab, s, [one[::-1] for one in s]),
        "no eos": no_eos,
        "no bos": lambda *given: my_batch(*given, begin=()),
        "padded on the left": lambda *given: my_batch(*given, left=True),
        "padded with eos": lambda *given: my_batch(*given, fill=EOS),
        "bos and eos in the source": lambda *given: my_batch(
            *given, source=lambda ids: [BOS, *ids, EOS]
        ),
    },
    "attention": {
        "not scaled": lambda *given: in_a_loop(*given, root=0.0),
        "scaled by d instead of √d": lambda *given: in_a_loop(*given, root=1.0),
        "softmax on the wrong axis": lambda *given: in_a_loop(*given, over=-2),
        "axes counted from the front": lambda *given: in_a_loop(*given, over=2),
        "mask inverted": lambda *given: in_a_loop(*given, hide="seen"),
        "mask applied after the softmax": lambda *given: in_a_loop(*given, hide="weights"),
        "hidden scores set to zero": lambda *given: in_a_loop(*given, hide="score of 0"),
        "mask added as numbers": lambda *given: in_a_loop(*given, hide="plus"),
        "results exchanged": lambda *given: fused(*given)[::-1],
        "padding attended": lambda *given: in_a_loop(*given, hide="nothing"),
    },
    "padding mask": {
        "mask inverted": lambda ids: ids.eq(PAD).unsqueeze(1),
        "axis for the queries missing": lambda ids: ids.ne(PAD),
        "queries hidden instead of keys": lambda ids: ids.ne(PAD).unsqueeze(2),
        "not boolean": lambda ids: ids.clamp(max=1).unsqueeze(1).float(),
        "bos and eos hidden too": lambda ids: ids.gt(2).unsqueeze(1),
    },
    "causal mask": {
        "the future seen": lambda *n: triangle(*n, sees=lambda i, j: j >= i),
        "one step of the future seen": lambda *n: triangle(*n, sees=lambda i, j: j <= i + 1),
        "blind to itself": lambda *n: triangle(*n, sees=lambda i, j: j < i),
        "mask inverted": lambda *n: triangle(*n, sees=lambda i, j: j > i),
        "aligned at the first key": lambda *n: triangle(*n, end=False),
        "not boolean": lambda *n: triangle(*n).int().float(),
        "everything seen": lambda *n: triangle(*n, sees=lambda i, j: True),
    },
    "heads": {
        "split by view without transpose": (
            lambda x, h: x.view(len(x), h, x.shape[1], x.shape[2] // h),
            merge,
        ),
        "heads left behind the length": (lambda x, h: torch.stack(x.chunk(h, -1), 2), merge),
        "heads interleaved": (lambda x, h: torch.stack([x[..., i::h] for i in range(h)], 1), merge),
        "merged without transpose": (
            split,
            lambda x: x.flatten().view(len(x), x.shape[2], -1),
        ),
        "heads merged in the wrong order": (
            split,
            lambda x: torch.stack(x.unbind(1), -1).flatten(2),
        ),
    },
    "sinusoids": {
        "sine and cosine not interleaved": sines_first,
        "sine and cosine exchanged": lambda n, d: table(n, d, even=math.cos, odd=math.sin),
        "positions from one": lambda n, d: table(n, d, first=1),
        "frequencies fall twice as fast": lambda n, d: table(n, d, power=4),
        "a frequency for each column": by_column,
        "all the same frequency": lambda n, d: table(n, d, power=0),
        "another base": lambda n, d: table(n, d, base=1000.0),
    },
    "encoder layer": {
        "norm on the wrong side": post_norm,
        "no residual": lambda *given: encoder(*given, residual=""),
        "no residual around attention": lambda *given: encoder(*given, residual="f"),
        "no residual around feed-forward": lambda *given: encoder(*given, residual="a"),
        "mask inverted": lambda layer, x, mask: encoder(
            layer, x, None if mask is None else mask.logical_not()
        ),
        "residual from the normed": from_the_normed,
        "the same norm twice": lambda layer, x, mask: encoder(layer, x, mask, second=layer.norm1),
        "padding attended": lambda layer, x, mask: encoder(layer, x, None),
        "no feed-forward": lambda *given: encoder(*given, forward=False),
        "feed-forward beside attention": beside,
    },
    "decoder layer": {
        "norm on the wrong side": decoder_post_norm,
        "the future seen": lambda layer, x, m, _, cross: decoder(layer, x, m, None, cross),
        "padding attended": lambda layer, x, m, own, _: decoder(layer, x, m, own, None),
        "masks exchanged": masks_exchanged,
        "cross-attention's query and key exchanged": asked_by_the_memory,
        "cross-attention before self-attention": lambda *given: decoder(*given, order="csf"),
        "no norm before cross-attention": lambda *given: decoder(*given, norms=(1, 0, 3)),
        "no residual around cross-attention": lambda *given: decoder(*given, keep="sf"),
        "no residual": lambda *given: decoder(*given, keep=""),
        "residual from the normed": lambda *given: decoder(*given, normed="scf"),
        "the same norm everywhere": lambda *given: decoder(*given, norms=(1, 1, 1)),
        "memory normed": lambda layer, x, m, *masks: decoder(layer, x, layer.norm2(m), *masks),
        "no masks": lambda layer, x, m, *_: decoder(layer, x, m, None, None),
        "no feed-forward": lambda *given: decoder(*given, order="sc"),
        "no cross-attention": lambda *given: decoder(*given, order="sf"),
    },
    "loss": {
        "no gradient": lambda x, y: loss_in_a_loop(x, y).item(),
        "axes exchanged by view": lambda x, y: F.cross_entropy(
            x.view(x.shape[0], x.shape[2], x.shape[1]), y, ignore_index=PAD
        ),
        "padding counted": lambda x, y: F.cross_entropy(x.flatten(0, 1), y.flatten()),
        "averaged over padding": lambda x, y: loss_in_a_loop(x, y, by="places"),
        "mean of the rows' means": lambda x, y: loss_in_a_loop(x, y, by="rows"),
        "divided by the number of strings": lambda x, y: loss_in_a_loop(x, y, by="strings"),
        "sum instead of mean": lambda x, y: loss_in_a_loop(x, y, by="sum"),
        "softmax twice": lambda x, y: loss_in_a_loop(x.softmax(-1), y),
        "bits instead of nats": lambda x, y: loss_in_a_loop(x, y, by="bits"),
        "sign lost": lambda x, y: loss_in_a_loop(x, y, by="minus"),
    },
    "schedule": {
        "no warm-up": lambda *given: rate(*given, rise=None),
        "first step without effect": lambda *given: rate(*given, rise=0),
        "peak held too long": held,
        "linear fall": lambda *given: rate(*given, fall="line"),
        "never falls": lambda *given: rate(*given, fall="flat"),
        "cosine over all steps": lambda *given: rate(*given, start=0),
        "a whole cosine": lambda *given: rate(*given, fall="whole"),
        "peak forgotten": lambda step, steps, peak, warmup: rate(step, steps, 1.0, warmup),
    },
    "greedy decoding": {
        "started with eos": lambda *given: write(*given, begin=EOS),
        "the least likely symbol": lambda *given: write(*given, best=torch.argmin),
        "the first position read": lambda *given: write(*given, at=0),
        "only the newest symbol read": lambda *given: write(*given, read=slice(-1, None)),
        "never stops": lambda *given: write(*given, stop="never"),
        "stops with the first row": lambda *given: write(*given, stop="first"),
        "stops one symbol early": lambda *given: write(*given, cut=slice(1, -1)),
        "bos left in front": lambda *given: write(*given, cut=slice(0, None)),
    },
    "cache": {
        "forgets the first position": cache(
            give=lambda parts: parts[1:] if len(parts) > 1 else parts
        ),
        "only the newest kept": cache(join=lambda old, new: [new]),
        "newest in front": cache(join=lambda old, new: [new, *old]),
        "kept twice": cache(join=lambda old, new: [*old, new, new]),
        "keys and values exchanged": cache(flip=True),
        "not projected": cache(project=False),
        "joined along the heads": cache(axis=1),
        "all projected again": late_projection,
        "shared by all caches": cache(shared=[]),
    },
    "anti-diagonal score": {
        "the main diagonal": lambda w: score(w, column=lambda t, n: t),
        "the last row counted": lambda w: score(w, by="rows"),
        "counted from the last row": lambda w: score(w, row=lambda t: t + 1),
        "one column beside": lambda w: score(w, column=lambda t, n: (n - t) % n),
        "sum instead of mean": lambda w: score(w, by="nothing"),
        "the largest instead of the mean": lambda w: score(w, by="max"),
        "heads averaged": lambda w: score(w, whole=True),
    },
}


def test_the_table_has_every_topic_and_every_mistake():
    assert RIGHT.keys() == WRONG.keys() == TOPICS.keys() == CHECKERS.keys()
    for name, topic in TOPICS.items():
        assert WRONG[name].keys() == topic.mistakes.keys() and len(topic.mistakes) >= 5, name
    public = {name for name in exercises.__all__ if name.startswith("check_")}
    assert len(public) == len(CHECKERS)


@pytest.mark.parametrize("name, version", [(n, v) for n, vs in RIGHT.items() for v in vs])
def test_a_right_version_in_another_style_passes(name, version):
    report = CHECKERS[name](version)
    assert report and report.mistake == "" and report.message == f"{name}: right. ✓"


@pytest.mark.parametrize("name, mistake", [(n, m) for n, ms in WRONG.items() for m in ms])
def test_a_mistake_is_called_by_its_name(name, mistake):
    report = CHECKERS[name](WRONG[name][mistake])
    assert report.mistake == mistake and not report
    sentence = TOPICS[name].mistakes[mistake][0]
    head, _, numbers = report.message.partition("\n")
    assert head == f"{name}: {mistake}. {sentence}"
    assert "expected" in numbers and "yours" in numbers
    assert sentence[0].isupper() and sentence.endswith(".") and len(sentence) < 200


# Other ways of writing the same mistakes, as people write them.
ALSO = [
    (
        "batch",
        "labels not shifted",
        lambda v, s, t: (my_batch(v, s, t)[0], *[my_batch(v, t, t)[0]] * 2),
    ),
    (
        "batch",
        "no eos",
        lambda v, s, t: (my_batch(v, s, t)[0], whole(v, t, end=()), my_batch(v, t, t)[0]),
    ),
    ("schedule", "no warm-up", lambda s, n, p, w: p * math.cos(math.pi * s / n / 2) ** 2),
    (
        "schedule",
        "linear fall",
        lambda s, n, p, w: held(s, n, p, w) if s < w * n else p * (n - s) / (n - w * n),
    ),
    (
        "decoder layer",
        "cross-attention's query and key exchanged",
        lambda *g: asked_by_the_memory(*g, masked=True),
    ),
    ("loss", "no gradient", lambda x, y: F.cross_entropy(x.detach().mT, y, ignore_index=PAD)),
    (
        "attention",
        "not known",
        lambda q, k, v, mask=None: in_a_loop(q, k, v, None if mask is None else mask[..., -1:, :]),
    ),
    ("vocabulary", "wrong type", lambda symbols, text: tuple(number(symbols, text))),
    ("cache", "not known", cache(of=lambda attention, key, value: attention.project(key, key))),
    ("schedule", "not known", lambda s, n, p, w: rate(s, 10, p, 0.4)),
    ("batch", "labels not shifted", lambda v, s, t: (my_batch(v, s, t)[0], *[whole(v, t)] * 2)),
    ("causal mask", "the future seen", lambda n, m=None: torch.ones(n, m or n).triu().bool()),
    ("causal mask", "mask inverted", lambda n, m=None: torch.ones(n, m or n).triu(1) > 0),
    ("causal mask", "blind to itself", lambda n, m=None: torch.ones(n, m or n).tril(-1) > 0),
    (
        "causal mask",
        "one step of the future seen",
        lambda n, m=None: torch.ones(n, m or n).tril(1) > 0,
    ),
    ("padding mask", "not boolean", lambda ids: ids.ne(PAD).unsqueeze(1).long()),
    (
        "heads",
        "split by view without transpose",
        (
            lambda x, h: x.view(len(x), h, x.shape[1], -1),
            lambda x: x.reshape(len(x), x.shape[2], -1),
        ),
    ),
    (
        "schedule",
        "first step without effect",
        lambda *given: (
            held(*given)
            if given[0] >= given[3] * given[1]
            else given[2] * given[0] / (given[3] * given[1])
        ),
    ),
]


def whole(vocab, texts, end=(EOS,)):
    return grid([[BOS, *vocab.encode(text), *end] for text in texts])


@pytest.mark.parametrize("name, mistake, version", ALSO)
def test_a_mistake_may_be_written_in_several_ways(name, mistake, version):
    assert CHECKERS[name](version).mistake == mistake


@pytest.mark.parametrize("name", TOPICS)
def test_the_catalogue_itself_tells_its_mistakes_apart(name):
    topic = TOPICS[name]
    assert exercises._judge(name, topic.right, topic).mistake == ""
    for mistake, (_, *versions) in topic.mistakes.items():
        for wrong in versions:
            assert exercises._judge(name, wrong, topic).mistake == mistake


def todo(*given):
    raise NotImplementedError


def crash(*given):
    raise ValueError("no idea")


@pytest.mark.parametrize("name", TOPICS)
@pytest.mark.parametrize(
    "answer, mistake",
    [
        (todo, "to do"),
        (crash, "crash"),
        (lambda *given: None, "wrong type"),
        (lambda *given: "text", "wrong type"),
        (lambda *given: {}, "wrong type"),
        (lambda *given: torch.eye(2).to_sparse(), "wrong type"),
        (lambda *given: torch.zeros(2, device="meta"), "wrong type"),
        (lambda *given: torch.zeros(2) * 1j, "wrong type"),
        (lambda *given: torch.zeros(7, 7, 7), "not known"),
        (lambda *given: torch.tensor(math.nan), "not known"),
        (lambda *given: (), "not known"),
    ],
)
def test_anything_may_come_back(name, answer, mistake):
    report = exercises._judge(name, answer, TOPICS[name])
    assert isinstance(report, Report) and not report
    assert report.mistake == mistake or {report.mistake, mistake} == {"wrong type", "not known"}
    assert report.message.startswith(f"{name}: ") and "failed" not in report.message


def test_a_crash_names_the_learners_own_line():
    def my_loss(logits, labels):
        return F.cross_entropy(logits, labels)

    message = exercises.check_loss(my_loss).message
    assert "RuntimeError" in message and "in my_loss, line" in message
    assert "return F.cross_entropy(logits, labels)" in message


@pytest.mark.parametrize(
    "name, version, said",
    [
        ("attention", lambda q, k, v: (v, q), "TypeError: "),
        ("loss", torch.nn.CrossEntropyLoss(ignore_index=0), "RuntimeError: "),
        ("cache", lambda steps: lambda *given: None, "TypeError: cannot unpack"),
        ("cache", lambda: None, "TypeError: "),
        ("schedule", lambda *given: statistics.mean([]), "in <lambda>, line"),
        (
            "greedy decoding",
            lambda model, source, n: write(model, source, n + 9, stop="never"),
            "write",
        ),
    ],
)
def test_a_crash_that_is_not_in_a_line_of_the_learner_is_told_too(name, version, said):
    report = CHECKERS[name](version)
    assert report.mistake == "crash" and said in report.message
    assert "exercises.py" not in report.message and " in _" not in report.message


@pytest.mark.parametrize("catch", [(), Exception, BaseException])
def test_a_loop_without_end_is_stopped(monkeypatch, catch):
    monkeypatch.setattr(exercises, "SECONDS", 0.3)

    def for_ever(ids):
        while True:
            try:
                math.sqrt(2)
            except catch:
                pass

    start, threads = time.perf_counter(), threading.active_count()
    assert exercises.check_padding_mask(for_ever).mistake == "too long"
    assert time.perf_counter() - start < 5 and threading.active_count() == threads


def test_what_changes_its_inputs_is_told_and_spoils_nothing():
    def careless(ids):
        mask = (ids != PAD)[:, None]
        ids.zero_()
        return mask

    def clears(vocab, sources, targets):
        found = my_batch(vocab, sources, targets)
        sources.clear()
        return found

    def unweighted(layer, x, mask):
        layer.norm1.weight.zero_()
        return encoder(layer, x, mask)

    assert exercises.check_padding_mask(careless).mistake == "input changed"
    assert exercises.check_batch(clears).mistake == "input changed"
    assert exercises.check_encoder_layer(unweighted).mistake == "input changed"
    assert exercises.check_padding_mask(lambda ids: (ids != PAD)[:, None])


def test_a_checker_leaves_the_global_state():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    for name, version in ((n, vs[0]) for n, vs in RIGHT.items()):
        assert CHECKERS[name](version)
    assert torch.equal(state, torch.get_rng_state()) and threads == torch.get_num_threads()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("thing", [3, None, "abc", torch.zeros(2)])
def test_only_functions_are_checked(plain, thing):
    for check in (plain.exercises.check_attention, plain.exercises.check_cache):
        with pytest.raises(plain.errors.InputTypeError, match="hand over a function for"):
            check(thing)


def test_a_report_draws_expected_beside_got_where_there_is_something_to_draw():
    report = exercises.check_attention(WRONG["attention"]["not scaled"])
    figure = report.plot()
    assert [ax.get_title() for ax in figure.axes[:2]] == ["expected", "yours"]
    drawn = [torch.tensor(ax.images[0].get_array().tolist()) for ax in figure.axes[:2]]
    torch.testing.assert_close(drawn[0], report.expected.reshape(drawn[0].shape))
    assert not torch.equal(*drawn)
    mask = exercises.check_causal_mask(WRONG["causal mask"]["mask inverted"]).plot()
    assert mask.axes[0].images[0].get_array().tolist() == torch.ones(3, 3).tril().tolist()
    assert exercises.check_batch(WRONG["batch"]["padded on the left"]).plot() is not None
    broken = exercises.check_attention(lambda q, k, v, mask=None: (v, q @ k.mT * math.nan))
    assert broken.plot() is not None and "not finite" in broken.message
    empty = exercises.check_padding_mask(lambda ids: (ids != PAD)[:, None, :0])
    nothing = [exercises.check_attention(in_a_loop), exercises.check_loss(todo)]
    nothing += [exercises.check_loss(WRONG["loss"]["padding counted"]), empty]
    assert not any(report.plot() for report in nothing)
