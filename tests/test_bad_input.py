"""Bad input at the boundary: the error names the wrong value and what is allowed, before any work.

The pieces (attention, masks, layers, losses) check nothing: their annotations are their contract.
"""

import json
import math
from types import SimpleNamespace

import pytest
import torch

SIZES = {"symbols": "abc", "max_length": 4, "d_model": 8, "n_heads": 2, "d_ff": 8, "n_layers": 1}


def model(plain: SimpleNamespace):
    return plain.model.Transformer(plain.model.TransformerConfig(**SIZES))


# Each row is what a user types; `names` below says what stands for what.
VOCAB = [
    ("Vocab('abc').encode('abñ')", ValueError, ["'ñ'", "position 2", "'abc'"]),
    ("Vocab('abc').encode(5)", TypeError, ["string", "int", "5"]),
    ("Vocab(['a'])", TypeError, ["symbols", "string", "list"]),
    ("Vocab('')", ValueError, ["alphabet is empty"]),
    ("Vocab('abca')", ValueError, ["'a' is repeated", "position 3"]),
    ("Vocab('ñn\u0303')", ValueError, ["'ñ' is repeated", "position 1"]),
    ("Vocab('q\u0303')", ValueError, ["position 1", "combining tilde", "stand alone"]),
    ("Vocab('👩\u200d🚀')", ValueError, ["position 1", "zero width joiner", "stand alone"]),
    ("Vocab('👍\U0001f3fd')", ValueError, ["position 1", "fitzpatrick", "stand alone"]),
    ("Vocab('🇪🇸')", ValueError, ["position 0", "regional indicator", "stand alone"]),
    ("Vocab('\u1161')", ValueError, ["position 0", "hangul jungseong a", "stand alone"]),
    ("Vocab(chr(0xD800))", ValueError, ["position 0", "a surrogate", "stand alone"]),
    ("Vocab('abc').decode([3, 6])", ValueError, ["6 is no id", "0 to 5"]),
    ("Vocab('abc').decode([-1])", ValueError, ["-1 is no id", "0 to 5"]),
    ("Vocab('abc').decode([10**5000])", ValueError, ["is no id", "0 to 5"]),
    ("Vocab('abc').decode('abc')", TypeError, ["whole numbers"]),
]
TASKS = [
    ("ReversalTask('abc', 0)", ValueError, ["min_length", "at least 1", "0"]),
    ("ReversalTask('abc', 3, 2)", ValueError, ["min_length", "at most 2", "3"]),
    ("ReversalTask(max_length=10**9)", ValueError, ["max_length", "10,000", "1000000000"]),
    ("ReversalTask(held_out=0.6)", ValueError, ["held_out", "0.5", "0.6"]),
    ("ReversalTask(held_out=nan)", ValueError, ["held_out", "nan"]),
    ("TASK.sample(0, torch.Generator())", ValueError, ["at least 1", "0"]),
    ("TASK.sample(1, 5)", TypeError, ["generator", "torch.Generator", "5"]),
    ("TASK.sample(1, torch.Generator(), 'x')", ValueError, ["'train', 'held_out'", "'x'"]),
    ("make_batch(Vocab('ab'), 'ab', 'ba')", TypeError, ["sources", "list of strings", "'ab'"]),
    ("make_batch(Vocab('a'), ['a'], [])", ValueError, ["1 sources and 0 targets"]),
    ("PairsTask(5)", TypeError, ["pairs", "5"]),
    ("PairsTask([])", ValueError, ["at least one", "pair"]),
    ("PairsTask({'hola': 'hello'})", TypeError, ["a dict", ".items()"]),
    ("PairsTask(['ab'], 0)", ValueError, ["item 0", "'ab'"]),
    ("PairsTask([('a', 'b'), ('a', 2)], 0)", ValueError, ["item 1", "('a', 2)"]),
    ("PairsTask([('a', 'b')], 0.5)", ValueError, ["held_out=0.5", "no pair of 1", "'train'"]),
    ("PairsTask([('a', 'b')], lambda text: False)", ValueError, ["no pair of 1", "'held_out'"]),
    ("PairsTask([('a', 'b')], 2)", ValueError, ["held_out", "0.5", "2"]),
    ("PairsTask([('a', 'b')], 0).texts('x')", ValueError, ["'train', 'held_out'", "'x'"]),
    ("PairsTask.from_function(5, ['a'])", TypeError, ["function", "5"]),
    ("PairsTask.from_function(str, 'abc')", TypeError, ["sources", "'abc'"]),
    ("PairsTask.from_function(str, ['a', 5])", TypeError, ["item 1", "string", "5"]),
    ("PairsTask.from_function(int, ['1'])", TypeError, ["return a string", "'1'", "returned 1"]),
]
CONFIG = [
    *(
        (f"TransformerConfig({field}={value!r})", ValueError, [field, "at least 1", repr(value)])
        for field in ("max_length", "d_model", "n_heads", "d_ff", "n_layers")
        for value in (0, 2.0)
    ),
    ("TransformerConfig(d_model=10)", ValueError, ["d_model 10", "divisible", "n_heads 4"]),
    ("TransformerConfig(d_model=9, n_heads=3)", ValueError, ["even", "9"]),
    ("TransformerConfig(max_length=10**9)", ValueError, ["max_length", "10,000", "1000000000"]),
    ("TransformerConfig(n_layers=True)", ValueError, ["n_layers", "True"]),
    ("TransformerConfig(tied='no')", TypeError, ["tied", "True or False", "'no'"]),
    ("TransformerConfig(dropout=1)", ValueError, ["dropout", "below 1"]),
    ("TransformerConfig(positions='x')", ValueError, ["'sinusoidal', 'learned'", "'x'"]),
    ("TransformerConfig('')", ValueError, ["alphabet is empty"]),
    ("Transformer(5)", TypeError, ["TransformerConfig", "int"]),
    ("Transformer(TransformerConfig(), -1)", ValueError, ["seed", "at least 0", "-1"]),
]
FIT = [
    *(
        (f"fit(MODEL, TASK, {option}={value})", ValueError, [option, str(value)])
        for option, values in {
            "steps": (0, 1.5),
            "batch_size": (0,),
            "eval_every": (0,),
            "eval_size": (0,),
            "seed": (-1,),
            "lr": (0, -0.1, math.nan, math.inf, "'x'"),
            "clip": (0, math.nan),
            "warmup": (-0.1, 1, math.nan),
            "weight_decay": (-0.1, math.nan),
            "label_smoothing": (-0.1, 1),
            "accumulate": (0,),
            "precision": ("'fp16'",),
        }.items()
        for value in values
    ),
    ("fit(MODEL, TASK, steps=10**5000)", ValueError, ["steps", "at most 1,000,000", "type int"]),
    ("fit(MODEL, TASK, batch_size=8, accumulate=9)", ValueError, ["accumulate", "at most 8", "9"]),
    ("fit(MODEL, TASK, torch.zeros(0))", TypeError, ["progress", "True or False", "tensor"]),
    ("fit(MODEL, TASK, schedule=5)", TypeError, ["schedule", "function", "5"]),
    ("torch.no_grad()(fit)(MODEL, TASK)", ValueError, ["gradients", "no_grad"]),
    ("fit(FROZEN, TASK)", ValueError, ["no weights to train", "frozen"]),
    ("fit(MODEL, 5)", TypeError, ["task", "int"]),
    ("fit(5, TASK)", TypeError, ["model", "int"]),
    ("fit(LINEAR, TASK)", TypeError, ["model with a vocabulary", "Linear"]),
    ("fit(EMPTY, TASK)", TypeError, ["no parameters"]),
    ("fit(MODEL, ReversalTask('abd'))", ValueError, ["'abc'", "'abd'"]),
    ("fit(MODEL, ReversalTask('abc', 1, 5))", ValueError, ["max_length 5", "model's 4"]),
    ("fit(MODEL, ReversalTask('abc', 1, 4, 0))", ValueError, ["'held_out' holds nothing"]),
]
DECODING = [
    ("reverse(MODEL, 'abcab')", ValueError, ["'abcab'", "5 symbols", "at most 4"]),
    ("reverse(MODEL, ['ab', 'xa'])", ValueError, ["'x'", "position 0", "'abc'"]),
    ("reverse(MODEL, 'aBc')", ValueError, ["'B'", "position 1 of 'aBc'", "try lower case"]),
    ("reverse(MODEL, ['ab', 7])", TypeError, ["string", "7"]),
    ("reverse(MODEL, None)", TypeError, ["string", "None"]),
    ("reverse(5, 'abc')", TypeError, ["model", "int"]),
    ("reverse(MODEL, '', 0)", ValueError, ["beam", "at least 1", "0"]),
    ("reverse(MODEL, 'a', 1001)", ValueError, ["beam", "at most 1,000", "1001"]),
    ("beam_search(MODEL, BOS, -1)", ValueError, ["beam", "at least 1", "-1"]),
    ("beam_search(MODEL, BOS, 2, 0)", ValueError, ["max_steps", "at least 1", "0"]),
    ("greedy(MODEL, BOS, 6)", ValueError, ["max_steps", "at most 5", "6"]),
    ("greedy(MODEL, BOS * 9)", ValueError, ["source holds 9", "0 to 5"]),
    ("greedy(MODEL, BOS.float())", TypeError, ["source", "int64", "float32"]),
    ("greedy(LINEAR, BOS)", TypeError, ["model with a vocabulary", "Linear"]),
    ("greedy(MODEL, BOS, temperature=-1.0)", ValueError, ["temperature must be above", "-1.0"]),
    ("greedy(MODEL, BOS, temperature=nan)", ValueError, ["temperature must be above", "nan"]),
    ("beam_search(MODEL, BOS, 2, length_penalty=-1)", ValueError, ["length_penalty", "-1"]),
]
PLOTS = [
    ("antidiagonal_score([1.0])", TypeError, ["weights", "tensor"]),
    ("plot_attention(torch.ones(2, 3), 'xy', 'abc', 5)", TypeError, ["Axes", "int"]),
    ("plot_attention(torch.ones(2, 3), 'x', 'abc')", ValueError, ["(2, 3)", "(1, 3)"]),
    ("plot_attention(torch.ones(2, 3), 'xy', 'abc', [])", TypeError, ["Axes", "list"]),
    ("plot_heads(MAPS, 'xy', 'ab', [[1, 2], [3, 4]])", TypeError, ["2 by 2 Axes", "list"]),
    ("plot_batch(Vocab('abc'), BOS, 5)", TypeError, ["Axes", "int"]),
    ("plot_history(History(), [None, None])", TypeError, ["2 Axes", "list"]),
    ("plot_batch(5, BOS)", TypeError, ["Vocab", "int"]),
    ("plot_history(5)", TypeError, ["History", "int"]),
    ("attention_maps(MODEL, 'x')", ValueError, ["'x'", "position 0"]),
    ("attention_maps(MODEL, 'abcab')", ValueError, ["'abcab'", "5 symbols", "at most 4"]),
    ("attention_maps(MODEL, 'a', 'abcab')", ValueError, ["'abcab'", "5 symbols", "at most 4"]),
    ("attention_maps(MODEL, ['a', 'b'], ['a'])", ValueError, ["2 sources and 1 targets"]),
]
OTHERS = [
    ("check_attention(5)", TypeError, ["your attention", "5"]),
    ("check_heads(len, None)", TypeError, ["split", "merge", "None"]),
    ("RecurrentConfig(max_length=0)", ValueError, ["max_length", "whole number", "0"]),
    ("RecurrentConfig(d_model=2.5)", ValueError, ["d_model", "whole number", "2.5"]),
    ("hand_made('abc', 0)", ValueError, ["max_length", "at least 1", "0"]),
    ("hand_made('abc', 10**6)", ValueError, ["max_length", "at most 400"]),
    ("hand_made('', 3)", ValueError, ["alphabet is empty"]),
    ("hand_made('abc', 3, sharpness=0)", ValueError, ["sharpness", "above 0", "0"]),
    ("hand_made('abc', 3, wanted=5)", TypeError, ["wanted", "function", "5"]),
    ("hand_made('abc', 3, wanted=lambda n, t: n)", ValueError, ["wanted(1, 0) is 1", "0 to 0"]),
    ("hand_made('abc', 3, wanted=lambda n, t: 0.5)", ValueError, ["wanted(1, 0) is 0.5"]),
    ("hand_made('abc', 3, wanted=lambda n, t: 0 / n)", ValueError, ["wanted(1, 0) is 0.0"]),
    ("prove_exact('a model')", TypeError, ["model must be a model"]),
]
FILES = [
    ("save(5, 'new')", TypeError, ["a Transformer", "5"]),
    ("save(MODEL, 5)", TypeError, ["a path must be a string or a Path", "5"]),
    ("save(MODEL, b'x')", TypeError, ["a path must be a string or a Path", "b'x'"]),
    ("load(None)", TypeError, ["a path must be a string or a Path", "None"]),
    ("load('missing')", OSError, ["there is no saved model at missing"]),
    ("load('.')", OSError, ["there is no saved model at ."]),
    ("load('missing', 'gpu')", ValueError, ["'gpu' is not usable here; 'cpu' always is"]),
    ("write_page(HOOKED, 'page.html')", ValueError, ["the library's, as they are"]),
    ("write_page(MODEL, 'page.html', {5: OTHER})", ValueError, ["after 5 steps"]),
    ("write_page(MODEL, 'page.html', {'x': MODEL})", ValueError, ["a moment's step", "'x'"]),
    ("write_page(MODEL, 'page.html', None, OTHER)", ValueError, ["by hand", "'ab'"]),
    ("write_page(MODEL, 'page.html', None, None, ['añ'])", ValueError, ["position 1 of 'añ'"]),
    ("write_page(MODEL, 'page.html', None, None, ['abcab'])", ValueError, ["reads at most 4"]),
    ("write_page(MODEL, 'no/page.html')", OSError, ["there is no folder"]),
]


@pytest.fixture
def names(plain):
    """All names of the library, and short ones for a model and what to call it with."""
    found = {name: value for module in vars(plain).values() for name, value in vars(module).items()}
    empty, ours, hooked = torch.nn.Identity(), model(plain), model(plain)
    empty.vocab, empty.config = ours.vocab, ours.config
    hooked.encoder.layers[0].norm1.register_forward_hook(lambda *_: None)
    return {
        **found,
        "MODEL": ours,
        "OTHER": found["hand_made"]("ab", 4),
        "HOOKED": hooked,
        "MAPS": torch.full((2, 2, 2, 2), 0.5),
        "TASK": plain.data.ReversalTask("abc", max_length=4),
        "BOS": torch.ones(1, 1).long(),
        "LINEAR": torch.nn.Linear(2, 2),
        "EMPTY": empty,
        "FROZEN": model(plain).requires_grad_(False),
        "nan": math.nan,
        "inf": math.inf,
    }


@pytest.mark.parametrize(
    "typed, error, parts", [*VOCAB, *TASKS, *CONFIG, *FIT, *DECODING, *PLOTS, *OTHERS, *FILES]
)
def test_the_error_names_what_was_wrong_and_what_is_allowed(
    names, tmp_path, monkeypatch, typed, error, parts
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.html").write_text("before")
    with pytest.raises(error) as caught:
        eval(typed, names)
    message = str(caught.value)
    assert isinstance(caught.value, names["RevtransError"])
    assert all(part in message for part in parts), message
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"], "no file is touched"


NORM = "encoder.norm.weight"


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda config, tensors: config.update(d_modle=8), "d_modle"),
        (lambda config, tensors: config.update(d_model=0), "d_model"),
        (lambda config, tensors: tensors.pop(NORM), NORM),
        (lambda config, tensors: tensors.update(more=torch.zeros(1)), "more"),
        (lambda config, tensors: tensors.update({NORM: torch.zeros(3)}), NORM),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_no_model(plain, tmp_path, change, named):
    """All else that may be wrong with a file is made up in benchmarks/survival.py."""
    ours, path = model(plain), tmp_path / "model"
    config, tensors = dict(vars(ours.config)), ours.state_dict()
    change(config, tensors)
    plain.files.write_file(path, "model", tensors, config=json.dumps(config))
    with pytest.raises(plain.errors.FileError) as caught:
        plain.files.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path} does not fit its configuration: ") and named in message


@pytest.mark.parametrize("options", [{"steps": 0}, {"lr": math.nan}, {"eval_size": 0}])
def test_fit_refuses_before_it_changes_anything(plain, options):
    ours, called = model(plain), []
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    task = plain.data.ReversalTask("abc", max_length=4)
    with pytest.raises(ValueError):
        plain.training.fit(ours, task, **options, callback=lambda *_: called.append(1))
    assert not called and ours.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("bad", ["abcab", "x", 7])
@pytest.mark.parametrize("beam", [1, 2])
def test_reverse_refuses_a_list_with_one_bad_text_before_it_decodes(plain, monkeypatch, bad, beam):
    def fail(*arguments, **options):
        pytest.fail("decoding began")

    for name in ("greedy", "beam_search"):
        monkeypatch.setattr(plain.decoding, name, fail)
    with pytest.raises((ValueError, TypeError)):
        plain.decoding.reverse(model(plain), ["ab", bad, "c"], beam)
