"""Attention maps, the score of their anti-diagonal, and figures that show them upright."""

import base64
import json
import re
import warnings

import checks
import matplotlib.pyplot as plt
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from torch_peers import assert_close

from revtrans import plotting
from revtrans.data import Vocab
from revtrans.decoding import reverse
from revtrans.model import Transformer, TransformerConfig
from revtrans.plotting import (
    AttentionMaps,
    antidiagonal_score,
    attention_maps,
    font_with,
    plot_attention,
    plot_batch,
    plot_heads,
    plot_history,
)
from revtrans.schemes import SCHEMES
from revtrans.training import History

PARTS = ("encoder", "decoder", "cross")
TEXTS = ["abc", "edcba", "", "b"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def assert_same_maps(one: AttentionMaps, other: AttentionMaps) -> None:
    assert (one.source, one.target) == (other.source, other.target)
    for part in PARTS:
        assert_close(getattr(one, part), getattr(other, part))


def tick_labels(ax) -> tuple[list[str], list[str]]:
    """What stands beside the rows, and below the columns."""
    return tuple([tick.get_text() for tick in ticks] for ticks in
                 (ax.get_yticklabels(), ax.get_xticklabels()))  # fmt: skip


@pytest.mark.parametrize("targets", [None, ["c", "", "ab", "dddd"]])
def test_maps_are_cut_to_each_text_as_if_it_were_alone(trained, targets):
    alone = targets or [None] * len(TEXTS)
    for i, maps in enumerate(attention_maps(trained, TEXTS, targets)):
        n, t = len(maps.source), len(maps.target) + 1
        assert maps.source == TEXTS[i]
        assert maps.target == (targets[i] if targets else reverse(trained, TEXTS[i]))
        assert maps.encoder.shape == (1, 2, n, n)
        assert maps.decoder.shape == (1, 2, t, t)
        assert maps.cross.shape == (1, 2, t, n)
        assert_same_maps(maps, attention_maps(trained, TEXTS[i], alone[i]))
        assert maps.cross.untyped_storage().nbytes() == 4 * maps.cross.numel()  # no room for others


@pytest.mark.parametrize("positions", ["learned", *SCHEMES])
def test_maps_of_every_scheme_have_a_column_for_each_key(positions):
    """Slots beyond the ends hold the weight that is missing; only local schemes have them."""
    texts = ["abcde", "b", ""]
    for text, maps in zip(texts, attention_maps(checks.tiny(positions=positions), texts, texts)):
        n = len(text)
        assert maps.encoder.shape == (2, 2, n, n)
        assert maps.decoder.shape == (2, 2, n + 1, n + 1)
        assert maps.cross.shape == (2, 2, n + 1, n)
        for part in PARTS:
            assert (getattr(maps, part).sum(-1) <= 1 + 1e-5).all()
        assert (maps.decoder.triu(1) == 0).all()


def test_maps_of_a_model_in_half_precision_can_be_drawn():
    maps = attention_maps(checks.tiny().bfloat16(), "abc")
    figure = plot_heads(maps.cross.bfloat16(), maps.written, list(maps.source))
    assert len(figure.axes) == 5 and maps.cross.dtype == torch.float32


def test_maps_read_as_one_line_in_a_cell(trained):
    said = repr(attention_maps(trained, "abcde"))
    assert said == "AttentionMaps('abcde' → 'edcba', 1 layers of 2 heads)"


def test_maps_that_memory_would_not_hold_are_refused_and_figures_kept_small(plain):
    config = plain.model.TransformerConfig("ab", max_length=1001, d_model=8, n_heads=2, d_ff=8)
    model = plain.model.Transformer(config)
    for texts in (["a" * 1001], ["a" * 1001, "a"]), (["a"], ["b" * 1001]):
        with pytest.raises(ValueError, match=r"has 1001 symbols; .* at most 1000"):
            plain.plotting.attention_maps(model, *texts)
    with torch.no_grad():  # one that always writes b, and never ends
        model.decoder.norm.weight.zero_(), model.decoder.norm.bias.zero_()
        model.decoder.norm.bias += 9 * model.embedding.weight[4]
    assert len(plain.plotting.attention_maps(model, "ab").target) == 1000
    maps = plain.plotting.attention_maps(model, "ab", "a" * 201)
    with pytest.raises(ValueError, match="at most 200 symbols"):
        plain.plotting.show_attention(maps)
    wide = plot_attention(torch.ones(1, 300), "a", ["b"] * 300).figure
    assert wide.get_size_inches()[0] == 40


def test_maps_are_made_without_dropout_and_leave_the_mode():
    model = checks.tiny(dropout=0.5).train()
    assert_same_maps(attention_maps(model, "abc"), attention_maps(model, "abc"))
    assert model.training


def test_steps_are_labelled_by_what_they_read_and_write(trained):
    maps = attention_maps(trained, "abc")
    assert maps.read == ["⊢", "c", "b", "a"] and maps.written == ["c", "b", "a", "⊣"]


def test_the_best_head_of_a_trained_model_reads_backwards(trained):
    checks.best_head_reads_backwards(trained)


@pytest.mark.parametrize(
    "weights, score",
    [
        ([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], 1.0),
        ([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], 0.0),
        ([[0.25, 0.75], [0.5, 0.5]], 0.625),
        ([[0.0, 1.0]], 0.5),  # a missing step counts as 0
        ([[1.0], [1.0], [1.0]], 1.0),
    ],
)
def test_the_score_is_the_mean_attention_on_the_anti_diagonal(weights, score):
    assert antidiagonal_score(torch.tensor(weights)).item() == pytest.approx(score)


def test_an_empty_source_has_no_score():
    with pytest.raises(ValueError, match="empty source"):
        antidiagonal_score(torch.zeros(2, 1, 0))


def test_a_map_is_drawn_upright():
    checks.picture_is_upright(checks.tiny())


@pytest.mark.parametrize("vmax", [1.0, 0.5])
def test_a_map_is_drawn_on_the_given_axes_with_its_labels_and_values(vmax):
    weights = torch.tensor([[0.125, 0.25, 0.625], [0.5, 0.25, 0.25]], requires_grad=True)
    _, ax = plt.subplots()
    assert plot_attention(weights, ["x", "y"], ["a", "b", "c"], ax, vmax) is ax
    assert tick_labels(ax) == (["x", "y"], ["a", "b", "c"])
    (image,) = ax.images
    assert image.get_array().tolist() == weights.tolist() and image.get_clim() == (0, vmax)
    assert len(plt.get_fignums()) == 1 and ax.figure.axes == [ax]


def test_a_map_with_a_figure_of_its_own_has_a_colour_bar():
    ax = plot_attention(torch.eye(2), "ab", "cd")
    assert [one.get_ylabel() for one in ax.figure.axes] == ["", "attention weight"]


def test_labels_are_text_and_not_mathematics():
    labels = ["$x_$", "x", "$"]
    ax = plot_attention(torch.eye(3), labels, labels)
    batch = plot_batch(Vocab("$_"), torch.tensor([[3, 4, 3]]))
    texts = [*ax.get_xticklabels(), *ax.get_yticklabels(), *batch.texts]
    assert len(texts) == 9 and not any(text.get_parse_math() for text in texts)
    for figure in (ax.figure, batch.figure):
        figure.canvas.draw()


@pytest.fixture
def font_with_a_glyph(tmp_path):
    """The name of an installed font that has one symbol, a far one of the private area."""
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "mark"])
    builder.setupCharacterMap({0xF8F0: "mark"})
    builder.setupGlyf({name: TTGlyphPen(None).glyph() for name in (".notdef", "mark")})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "mark": (500, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Mark Only", "styleName": "Regular"})
    builder.setupPost()
    builder.save(tmp_path / "mark.ttf")
    before = font_manager.fontManager.ttflist[:]
    font_manager.fontManager.addfont(tmp_path / "mark.ttf")
    font_with.cache_clear()
    yield "Mark Only"
    font_manager.fontManager.ttflist[:] = before
    font_with.cache_clear()


def test_labels_are_drawn_in_a_font_that_has_them(font_with_a_glyph):
    ax = plot_attention(torch.eye(2), ["a", "\uf8f0"], ["b", "c"])
    assert font_with_a_glyph in ax.get_yticklabels()[1].get_fontfamily()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax.figure.canvas.draw()


def test_a_symbol_that_no_font_has_is_shown_by_its_code_and_told_once():
    ids = torch.tensor([[3, 4]])
    with pytest.warns(
        UserWarning, match="no installed font has '.U0010fffe': shown by its code"
    ) as told:
        ax = plot_batch(Vocab("a\U0010fffe"), ids)
        ax.figure.canvas.draw()
    assert len(told) == 1
    assert [text.get_text() for text in ax.texts] == ["a", "10FFFE"]
    with pytest.warns(UserWarning, match="10fffd") as told:
        plot_heads(torch.eye(2).expand(2, 2, 2, 2), "ab", "a\U0010fffd")
    assert len(told) == 1, "not once for each head"


@pytest.mark.parametrize("given_axes", [True, False])
def test_heads_are_drawn_in_a_grid_of_layers_and_heads(given_axes):
    weights = torch.rand(2, 3, 4, 5, generator=checks.seeded())
    axes = plt.subplots(2, 3)[1] if given_axes else None
    figure = plot_heads(weights, list("wxyz"), list("abcde"), ax=axes)
    assert isinstance(figure, Figure) and len(plt.get_fignums()) == 1
    assert not given_axes or figure is axes[0, 0].figure
    *maps, bar = figure.axes
    titles = [ax.get_title() for ax in maps]
    assert titles == [f"layer {layer}, head {head}" for layer in range(2) for head in range(3)]
    assert bar.get_ylabel() == "attention weight"
    for i, ax in enumerate(maps):
        assert_close(torch.tensor(ax.images[0].get_array()), weights.flatten(0, 1)[i])
        assert tick_labels(ax) == (list("wxyz"), list("abcde"))


@pytest.mark.parametrize("given_axes", [True, False])
def test_a_batch_is_drawn_with_its_symbols_and_grey_padding(given_axes):
    given = plt.subplots()[1] if given_axes else None
    ax = plot_batch(Vocab("ab"), torch.tensor([[1, 3, 4, 2], [1, 4, 2, 0]]), ax=given)
    assert not given_axes or ax is given
    assert [text.get_text() for text in ax.texts] == ["⊢", "a", "b", "⊣", "⊢", "b", "⊣", ""]
    (image,) = ax.images
    assert image.get_array().mask.tolist() == [[False] * 4, [False] * 3 + [True]]
    assert image.origin == "upper" and image.cmap.get_bad().tolist()[:3] == [0xBB / 255] * 3
    assert image.get_clim() == (0, 4), "an id has its colour whatever else is in the batch"
    assert image.get_array().filled(0).tolist() == [[1, 3, 4, 2], [1, 4, 2, 0]]


@pytest.mark.parametrize("given_axes", [True, False])
def test_a_history_is_drawn_by_step_on_a_pair_of_axes(given_axes):
    history = History([3.0, 2.0, 1.0], [0.1] * 3, [0, 2, 3], [0.0, 0.5, 1.0], [0.2, 0.6, 1.0])
    axes = plt.subplots(1, 2)[1] if given_axes else None
    figure = plot_history(history, ax=axes)
    assert isinstance(figure, Figure) and (not given_axes or figure is axes[0].figure)
    loss, shares = figure.axes
    assert loss.lines[0].get_ydata().tolist() == history.loss
    drawn = {line.get_label(): (*line.get_xdata(), *line.get_ydata()) for line in shares.lines}
    assert drawn == {
        "token accuracy": (*history.step, *history.token_accuracy),
        "exact match": (*history.step, *history.exact_match),
    }
    assert all(ax.get_title() and ax.get_xlabel() and ax.get_ylabel() for ax in figure.axes)


def test_maps_that_answer_are_html_with_a_still_picture_and_ask_for_nothing(trained):
    maps = attention_maps(trained, "abcde")
    bundle = plotting.show_attention(maps)._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    html = bundle["text/html"]
    still, script = html.split("<script>")
    assert f'<img src="data:image/png;base64,{bundle["image/png"]}" alt="' in still
    assert script.count("</script>") == 1 and "http" not in script.replace("http://www.w3.org", "")
    told = json.loads(re.search(r'"maps-\w+", (\{.*\})\);</script>$', html)[1])
    for name, expected in zip(told, (maps.cross, maps.encoder, maps.decoder), strict=True):
        weights = torch.tensor(told[name]["weights"]) / 1000
        torch.testing.assert_close(weights, expected, atol=6e-4, rtol=0)
        size = len(told[name]["queries"]), len(told[name]["keys"])
        assert weights.shape[2:] == size
    assert not plt.get_fignums()


def test_markup_in_the_letters_of_maps_that_answer_is_text():
    config = TransformerConfig("</scr", 5, d_model=8, n_heads=2, d_ff=8, n_layers=1)
    maps = attention_maps(Transformer(config).eval(), "</scr", "</scr")
    html = plotting.show_attention(maps).html
    assert html.count("</script>") == 1 and r"\u003c" in html
