"""A page computes what the library computes, holds nothing but text, and asks for nothing."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from pictures import recoloured
from torch import Tensor

from revtrans import page
from revtrans.by_hand import hand_made
from revtrans.data import Vocab, pad_rows
from revtrans.decoding import reverse
from revtrans.model import Transformer, TransformerConfig
from revtrans.page import assemble, in_halves, moving_picture, random_texts, write_page
from revtrans.plotting import attention_maps

NODE = shutil.which("node")
LIVE = Path(page.__file__).parent / "live"
# Largest difference of a logit between the page's script (64-bit) and PyTorch (32-bit) on the same
# rounded weights.
BOUND = 1e-4
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


def random_model(symbols: str, max_length: int, seed: int = 0, **sizes) -> Transformer:
    """A model with weights large enough for its logits to tell symbols apart."""
    model = Transformer(TransformerConfig(symbols, max_length, **sizes), seed).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight *= 1.5
    return model


def rounded(model: Transformer) -> Transformer:
    """The model with its weights as 16 bits hold them."""
    copy = Transformer(model.config).eval()
    copy.load_state_dict({name: w.half().float() for name, w in model.state_dict().items()})
    return copy


def in_node(path: Path, cases: list[dict]) -> tuple[Tensor, list[list[int]]]:
    """All logits, one after the other, and the answers that were asked for."""
    asked, out = path.with_suffix(".json"), path.with_suffix(".logits")
    asked.write_text(json.dumps(cases))
    command = [NODE, Path(__file__).parent / "page_in_node.js", path, asked, out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.frombuffer(bytearray(out.read_bytes()), dtype=torch.float32), json.loads(
        done.stdout
    )


def case(model: Transformer, source: str, target: str, index: int = 0, **more) -> dict:
    nothing = {"encoder": [], "decoder": [], "cross": []}
    input_ = [Vocab.bos, *model.vocab.encode(target)]
    return {
        "model": index,
        "source": source,
        "input": input_,
        "off": nothing,
        "masked": True,
        **more,
    }


@torch.no_grad()
def logits_of(model: Transformer, one: dict) -> Tensor:
    source = torch.tensor([model.vocab.encode(one["source"])])
    return model(source, torch.tensor([one["input"]]))[0]


MODELS = {
    "small": lambda: random_model("abcñ", 12, d_model=16, n_heads=2, d_ff=32, n_layers=1),
    "emoji": lambda: random_model("ab😀ñ🦊漢", 20, 1, d_model=24, n_heads=3, d_ff=40, n_layers=2),
    "learned positions": lambda: random_model(
        "xyz<&>", 12, 2, d_model=16, n_heads=4, d_ff=32, positions="learned"
    ),
    "not tied": lambda: random_model("abcde", 10, 3, d_model=20, n_heads=1, d_ff=8, tied=False),
    "long": lambda: random_model("abcdefgh", 100, 4, d_model=32, n_heads=4, d_ff=64),
    "by hand": lambda: hand_made("abcñ😀", 8),
}
# With the trained one, more than a thousand strings in all.
STRINGS = {name: 40 if name == "long" else 200 for name in MODELS}


@torch.no_grad()
def all_logits(model: Transformer, sources: list[str], inputs: list[list[int]]) -> list[Tensor]:
    """The logits of each text's steps, computed as one padded batch."""
    source = pad_rows([model.vocab.encode(text) for text in sources])
    logits = model(source, pad_rows(inputs))
    return [row[: len(ids)] for row, ids in zip(logits, inputs)]


@needs_node
@pytest.mark.parametrize("name", [*MODELS, "trained"])
def test_the_script_computes_the_logits_and_answers_of_the_library(name, tmp_path, trained):
    model = MODELS[name]() if name in MODELS else trained
    write_page(model, tmp_path / "page.html")
    ours, texts = rounded(model), random_texts(model, STRINGS.get(name, 200))
    writes = [len(text) <= 20 for text in texts]
    cases = [case(model, text, text[::-1], write=w) for text, w in zip(texts, writes)]
    found, answers = in_node(tmp_path / "page.html", cases)
    expected = torch.cat(
        [one.flatten() for one in all_logits(ours, texts, [one["input"] for one in cases])]
    )
    assert (found - expected).abs().max() < BOUND
    assert max(map(len, texts)) == model.config.max_length

    texts = [text for text, w in zip(texts, writes) if w]
    own = all_logits(ours, texts, [[Vocab.bos, *ids[:-1]] for ids in answers])
    whole = 0
    for ids, written, logits in zip(answers, reverse(ours, texts), own, strict=True):
        best = logits.topk(2).values
        clear = int((best[:, 0] - best[:, 1] > 2 * BOUND).long().cumprod(0).sum())
        assert ids[:clear] == logits[:clear].argmax(-1).tolist()
        if clear == len(ids):  # no step in doubt: then the whole answer is the library's
            assert model.vocab.decode(ids) == written
            whole += 1
    assert whole >= 0.9 * len(texts), "hardly a step is in doubt"


@needs_node
@pytest.mark.parametrize("off", ["encoder", "decoder", "cross", "mask"])
def test_what_is_switched_off_is_off_as_in_the_library(off, tmp_path, trained, monkeypatch):
    write_page(trained, tmp_path / "page.html")
    ours, texts = rounded(trained), random_texts(trained, 8)
    usual = torch.cat([logits_of(ours, case(ours, text, text[::-1])) for text in texts])
    if off == "mask":
        changed = {"masked": False}
        monkeypatch.setattr("revtrans.model.causal_mask", lambda n, _: torch.ones(n, n).bool())
    else:  # head 1's results are another row, such as its mean
        width = trained.config.d_model // trained.config.n_heads
        row = torch.linspace(-1, 1, width)
        changed = {"off": {"encoder": [], "decoder": [], "cross": [], off: [[None, row.tolist()]]}}
        layers = ours.encoder.layers if off == "encoder" else ours.decoder.layers
        attention = layers[0].cross_attention if off == "cross" else layers[0].self_attention

        def replace(_, given):
            given[0][..., width : 2 * width] = row

        attention.output.register_forward_pre_hook(replace)
    cases = [case(trained, text, text[::-1], **changed) for text in texts]
    found, _ = in_node(tmp_path / "page.html", cases)
    expected = torch.cat([logits_of(ours, one) for one in cases])
    assert (found - expected.flatten()).abs().max() < BOUND
    assert (expected - usual).abs().max() > 0.1, "it is missed"


def data_of(html: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])


class Tags(HTMLParser):
    """Every tag of a page, with its attributes, and the text of each script by its id."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.scripts, self.inside = [], {}, None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id") if tag == "script" else None

    def handle_data(self, data):
        if self.inside:
            self.scripts[self.inside] = self.scripts.get(self.inside, "") + data


HOSTILE = "</script>!-é\"'&\\\u2028`${}\x01"


def test_markup_in_the_alphabet_and_in_texts_is_text(tmp_path):
    alphabet = "".join(dict.fromkeys(HOSTILE))
    sizes = {"d_model": 8, "n_heads": 2, "d_ff": 8, "n_layers": 1}
    model = Transformer(TransformerConfig(alphabet, 24, **sizes)).eval()
    texts = ["</script>", "<!--", "<script", HOSTILE]
    write_page(model, tmp_path / "hostile.html", examples=texts)
    hostile = Tags((tmp_path / "hostile.html").read_text("utf-8"))
    write_page(Transformer(TransformerConfig("ab", 24, **sizes)), tmp_path / "plain.html")
    plain = Tags((tmp_path / "plain.html").read_text("utf-8"))
    assert hostile.tags == plain.tags and hostile.scripts["page"] == plain.scripts["page"]
    data = json.loads(hostile.scripts["data"])
    assert data["learned"][0]["model"]["config"]["symbols"] == alphabet
    assert [source for source, _ in data["examples"]] == texts


def test_the_page_shows_text_as_text_and_asks_for_nothing():
    script = (LIVE / "page.js").read_text("utf-8") + (LIVE / "transformer.js").read_text("utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function("):
        assert way not in script
    for way in ("fetch(", "XMLHttpRequest", "WebSocket", "sendBeacon", "import(", "localStorage"):
        assert way not in script
    html = assemble({})
    assert "default-src 'none'" in html and "unsafe" not in html
    addresses = [a.get("src", a.get("href")) for _, a in Tags(html).tags]
    assert {one for one in addresses if one} == {"data:,"}


def test_both_languages_say_everything_that_is_asked_for_and_nothing_more():
    texts, spanish = json.loads((LIVE / "texts.json").read_text("utf-8")).values()
    assert texts.keys() == spanish.keys()
    for key in texts:
        holes = [sorted(re.findall(r"\{\w+\}", said[key])) for said in (texts, spanish)]
        assert holes[0] == holes[1], key
    script, html = ((LIVE / name).read_text("utf-8") for name in ("page.js", "page.html"))
    asked = set(re.findall(r'data-(?:say|label)="(\w+)"', html))
    quoted = set(re.findall(r'"(\w+)"', script))
    kinds = re.findall(r'"(\w+)"', re.search(r"KINDS = \[(.*?)\]", script)[1])
    assert asked <= texts.keys() <= asked | quoted | {f"{kind}About" for kind in kinds}


def test_moments_and_the_model_by_hand_lie_in_the_page(tmp_path):
    sizes = {"d_model": 8, "n_heads": 2, "d_ff": 8, "n_layers": 1}
    config = TransformerConfig("ab", 3, **sizes)
    moments = {step: Transformer(config, seed=step) for step in (50, 0)}
    write_page(Transformer(config, 3), tmp_path / "p.html", moments, hand_made("ab", 2))
    data = data_of((tmp_path / "p.html").read_text("utf-8"))
    assert [one["step"] for one in data["learned"]] == [0, 50, None]
    for one, model in zip(data["learned"], [moments[0], moments[50], Transformer(config, 3)]):
        assert one["model"] == in_halves(model)
    assert data["byHand"]["config"]["max_length"] == 2 and len(data["examples"]) == 32


def test_the_picture_of_readme_moves_and_is_small():
    svg = (Path(__file__).parent.parent / "nbs" / "attention.svg").read_text("utf-8")
    letters = "".join(re.findall(r"<text[^>]*>(.)</text>", svg))
    assert letters == "transformer" + "remrofsnart⊣" and len(svg.encode()) <= 500_000
    assert "prefers-reduced-motion" in svg and "<script" not in svg and "http" not in svg[60:]
    assert recoloured(svg, svg) == 0 and recoloured(svg, svg.replace(">r<", ">x<")) == 1
    assert 0 < recoloured(svg, svg.replace("rgb(68, 1, 84)", "rgb(253, 231, 37)")) < 1


def test_markup_in_a_picture_is_text():
    sizes = {"d_model": 8, "n_heads": 2, "d_ff": 8, "n_layers": 1}
    model = Transformer(TransformerConfig("<&>", 3, **sizes)).eval()
    svg = moving_picture(attention_maps(model, "<&>", ">&<"), 0, 0)
    assert "&lt;&amp;&gt; is written as &gt;&amp;&lt;" in svg and "<&" not in svg
