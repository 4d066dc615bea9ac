"""Train a little, write a page, and what PyTorch computes for it: FOLDER gets both."""

import json
import sys
from pathlib import Path

import torch

from revtrans.attention import MultiHeadAttention
from revtrans.by_hand import hand_made
from revtrans.data import ReversalTask, Vocab
from revtrans.decoding import reverse
from revtrans.model import Transformer, TransformerConfig
from revtrans.page import random_texts, write_page
from revtrans.plotting import attention_maps, show_attention
from revtrans.training import fit


def rounded(model: Transformer) -> Transformer:
    copy = Transformer(model.config).eval()
    copy.load_state_dict({name: w.half().float() for name, w in model.state_dict().items()})
    return copy


@torch.no_grad()
def mean_result(model: Transformer, part: MultiHeadAttention, pairs: list) -> torch.Tensor:
    seen = []
    hook = part.output.register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))
    for source, target in pairs:
        ids = torch.tensor([model.vocab.encode(source)])
        model(ids, torch.tensor([[Vocab.bos, *model.vocab.encode(target)]]))
    hook.remove()
    return torch.cat(seen).mean(0)


def without(model: Transformer, part: MultiHeadAttention, head: int, row, text: str) -> str:
    width = model.config.d_model // model.config.n_heads
    here = slice(head * width, (head + 1) * width)

    def replace(_, given):
        given[0][..., here] = row[here]

    hook = part.output.register_forward_pre_hook(replace)
    written = reverse(model, text)
    hook.remove()
    return written


@torch.no_grad()
def first_step(model: Transformer, text: str) -> dict[str, float]:
    """The likeliest symbols of the first step, in percent."""
    source = torch.tensor([model.vocab.encode(text)])
    p = model(source, torch.tensor([[Vocab.bos]]))[0, -1].softmax(-1)
    names = ["▢", "⊢", "⊣", *model.vocab.symbols]
    return {names[i]: 100 * p[i].item() for i in p.topk(3).indices}


folder = Path(sys.argv[1])
torch.set_num_threads(1)
task = ReversalTask("abcdeñ😀", max_length=7)
model = Transformer(TransformerConfig(task.vocab.symbols, 7, d_model=32, n_heads=4, d_ff=64))
moments = {}


def keep(step: int, model: Transformer) -> None:
    moments[step] = rounded(model)


fit(model, task, steps=250, callback=keep, progress=False)
moments.pop(250)
texts = ["abcdeñ😀", *(text for text in random_texts(model) if len(text) > 3)][:12]
hand = hand_made(task.vocab.symbols, 7)
write_page(model, folder / "page.html", moments, hand, texts)
ours, found = rounded(model), []
pairs = [(text, reverse(model, text)) for text in texts]
for i, text in enumerate(texts):
    layer, head = divmod(i % 8, 4)
    part = ours.decoder.layers[layer].cross_attention
    rows = {"zero": torch.zeros(32), "mean": mean_result(ours, part, pairs)}
    gone = {way: without(ours, part, head, row, text) for way, row in rows.items()}
    off = {"layer": layer, "head": head, "written": gone}
    one = {"text": text, "written": reverse(ours, text), "first": first_step(ours, text)}
    found.append(one | {"off": off})
maps = attention_maps(ours, texts[0])
(folder / "maps.html").write_text(show_attention(maps).html, encoding="utf-8")
weight = round(maps.cross[1, 0, 1, 0].item(), 3)
first = reverse(moments[0], texts[0])
about = {"weight": weight, "texts": found, "moments": {"first": first, "byHand": texts[0][::-1]}}
(folder / "expected.json").write_text(json.dumps(about), encoding="utf-8")
changed = sum(set(one["off"]["written"].values()) != {one["written"]} for one in found)
print(f"{changed} of {len(found)} answers change without a head")
assert changed
