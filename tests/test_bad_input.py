"""Bad input: the error names the wrong value and what was allowed, and comes before any work."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

SIZES = {"symbols": "abc", "max_length": 4, "d_model": 8, "n_heads": 2, "d_ff": 8, "n_layers": 1}


def model(plain: SimpleNamespace):
    return plain.model.Transformer(plain.model.TransformerConfig(**SIZES))


# Each row is what a user types; `names` below says what stands for what.
VOCAB = [
    ("Vocab('abc').encode('abñ')", ValueError, ["'ñ'", "position 2", "'abc'"]),
    ("Vocab('abc').encode('A')", ValueError, ["'A'", "position 0", "'abc'"]),
    ("Vocab('abc').encode(5)", TypeError, ["string", "int", "5"]),
    ("Vocab('abc').encode(None)", TypeError, ["string", "NoneType"]),
    ("Vocab(['a'])", TypeError, ["symbols", "string", "list"]),
    ("Vocab('')", ValueError, ["alphabet is empty"]),
    ("Vocab('abca')", ValueError, ["'a' is repeated", "position 3"]),
    ("Vocab('ñn\u0303')", ValueError, ["'ñ' is repeated", "position 1"]),
    ("Vocab('q\u0303')", ValueError, ["position 1", "combining tilde", "stand alone"]),
    ("Vocab('👩\u200d🚀')", ValueError, ["position 1", "zero width joiner", "stand alone"]),
    ("Vocab('\u2764\ufe0f')", ValueError, ["position 1", "variation selector-16"]),
    ("Vocab('\u05d0\u200f')", ValueError, ["position 1", "right-to-left mark"]),
    ("Vocab('👍\U0001f3fd')", ValueError, ["position 1", "fitzpatrick", "stand alone"]),
    ("Vocab('🇪🇸')", ValueError, ["position 0", "regional indicator", "stand alone"]),
    ("Vocab('\u1161')", ValueError, ["position 0", "hangul jungseong a", "stand alone"]),
    ("Vocab(chr(0xD800))", ValueError, ["position 0", "a surrogate", "stand alone"]),
    ("Vocab('👩🚀').encode('👩\u200d🚀')", ValueError, ["'\\u200d'", "position 1", "'👩🚀'"]),
    ("Vocab('abc').decode([3, 6])", ValueError, ["6 is no id", "0 to 5"]),
    ("Vocab('abc').decode([10**5000])", ValueError, ["is no id", "0 to 5"]),
    ("Vocab('abc').decode([-1])", ValueError, ["-1 is no id", "0 to 5"]),
    ("Vocab('abc').decode('abc')", TypeError, ["whole numbers"]),
    ("Vocab('abc').decode(None)", TypeError, ["whole numbers"]),
]
TASKS = [
    ("ReversalTask('abc', 0)", ValueError, ["min_length", "at least 1", "0"]),
    ("ReversalTask('abc', 1, 0)", ValueError, ["max_length", "at least 1", "0"]),
    ("ReversalTask('abc', 3, 2)", ValueError, ["min_length", "at most 2", "3"]),
    ("ReversalTask(max_length=10**9)", ValueError, ["max_length", "100,000", "1000000000"]),
    ("ReversalTask(held_out='x')", ValueError, ["held_out", "'x'"]),
    ("TASK.sample(1, 5)", TypeError, ["generator", "torch.Generator", "5"]),
    ("TASK.sample(1, torch.Generator(), [])", ValueError, ["'train' or 'held_out'", "[]"]),
    ("PairsTask(5)", TypeError, ["pairs", "5"]),
    ("PairsTask([(1, 2)])", ValueError, ["item 0", "(1, 2)"]),
    ("make_batch(Vocab('ab'), 'ab', 'ba')", TypeError, ["sources", "list of strings", "'ab'"]),
    ("Batch([[3]], BOS)", TypeError, ["source", "int64", "2 axes", "list"]),
    ("Batch(BOS.float(), BOS)", TypeError, ["source", "int64", "torch.float32", "(1, 1)"]),
    ("Batch(BOS.repeat(2, 1), BOS)", ValueError, ["(2, 1) and (1, 1)"]),
    ("in_held_out(BOS, 2)", ValueError, ["share", "0 to 1", "2"]),
    ("ReversalTask(held_out=0.6)", ValueError, ["held_out", "0.5", "0.6"]),
    ("ReversalTask(held_out=-0.1)", ValueError, ["held_out", "-0.1"]),
    ("ReversalTask(held_out=nan)", ValueError, ["held_out", "nan"]),
    ("TASK.sample(0, torch.Generator())", ValueError, ["at least 1", "0"]),
    ("TASK.sample(-3, torch.Generator())", ValueError, ["at least 1", "-3"]),
    ("TASK.sample(1, torch.Generator(), 'x')", ValueError, ["'train' or 'held_out'", "'x'"]),
    ("PairsTask([])", ValueError, ["at least one", "pair"]),
    ("PairsTask([('a', 'b')], 0.5)", ValueError, ["1 pairs", "held_out=0.5"]),
    ("PairsTask([('a', 'b')], 2)", ValueError, ["held_out", "0.5", "2"]),
    ("PairsTask([('a', 'b', 'c')] * 2, 0)", ValueError, ["('a', 'b', 'c')"]),
    ("PairsTask(['hola'], 0)", ValueError, ["'hola'"]),
    ("PairsTask.from_function(5, ['a'])", TypeError, ["function", "5"]),
    ("PairsTask.from_function(str, 5)", TypeError, ["sources", "5"]),
    ("PairsTask.from_function(str, 'abc')", TypeError, ["sources", "'abc'"]),
    ("PairsTask.from_function(str.upper, ['a', 5])", TypeError, ["item 1", "string", "5"]),
    ("make_batch(Vocab('a'), [], [])", ValueError, ["0 sources and 0 targets"]),
    ("make_batch(Vocab('a'), ['a'], [])", ValueError, ["1 sources and 0 targets"]),
]
ATTENTION = [
    ("attend(torch.ones(3, 4).bool())", ValueError, ["mask (3, 4)", "(2, 3, 5)"]),
    ("attend(torch.ones(5, 3).bool())", ValueError, ["mask (5, 3)", "(2, 3, 5)"]),
    ("attend(torch.ones(1, 2, 3, 5).bool())", ValueError, ["mask (1, 2, 3, 5)", "(2, 3, 5)"]),
    ("attend(torch.ones(3, 5))", TypeError, ["boolean (True = may attend)", "torch.float32"]),
    ("attend(torch.ones(3, 5).int())", TypeError, ["boolean", "torch.int32"]),
    ("causal_mask(3, 2)", ValueError, ["3 queries", "2 keys"]),
    ("causal_mask(0)", ValueError, ["n_query", "at least 1", "0"]),
    ("MultiHeadAttention(10, 4)", ValueError, ["d_model 10", "divisible", "n_heads 4"]),
    ("MultiHeadAttention(10, 0)", ValueError, ["n_heads", "at least 1", "0"]),
    ("sinusoids(4, 5)", ValueError, ["even", "5"]),
    ("Learned(0, 4, 1)", ValueError, ["at least 1", "0"]),
    ("MODEL(torch.full((1, 6), 3), BOS)", ValueError, ["6 positions", "holds 5"]),
    ("MODEL(torch.full((1, 2), 6), BOS)", ValueError, ["source holds 6", "0 to 5"]),
    ("MODEL(BOS, torch.full((1, 2), -1))", ValueError, ["decoder_input holds -1", "0 to 5"]),
    ("MODEL(BOS, BOS.repeat(2, 1))", ValueError, ["equally many rows", "1, 2"]),
    ("MODEL('abc', BOS)", TypeError, ["source", "int64", "str"]),
    ("attend(5)", TypeError, ["mask", "boolean", "int"]),
    (
        "scaled_dot_product_attention(torch.ones(1, 2), torch.ones(1, 3), torch.ones(1, 3))",
        ValueError,
        ["do not fit", "(1, 2)", "(1, 3)"],
    ),
    ("causal_mask(2.0)", ValueError, ["n_query", "2.0"]),
    ("split_heads(torch.ones(1, 2, 5), 2)", ValueError, ["d_model 5", "n_heads 2"]),
    ("Transformer(5)", TypeError, ["TransformerConfig", "5"]),
    ("Transformer(TransformerConfig(), -1)", ValueError, ["seed", "at least 0", "-1"]),
]
CONFIG = [
    *(
        (f"TransformerConfig({field}={value!r})", ValueError, [field, "at least 1", repr(value)])
        for field in ("max_length", "d_model", "n_heads", "d_ff", "n_layers")
        for value in (0, -2, 2.0, "2")
    ),
    ("TransformerConfig(d_model=10)", ValueError, ["d_model 10", "divisible", "n_heads 4"]),
    ("TransformerConfig(d_model=1_000_000)", ValueError, ["d_model", "10,000", "1000000"]),
    ("TransformerConfig(max_length=10**9)", ValueError, ["max_length", "100,000", "1000000000"]),
    ("TransformerConfig(n_layers=True)", ValueError, ["n_layers", "True"]),
    ("TransformerConfig(tied='no')", TypeError, ["tied", "True or False", "'no'"]),
    ("TransformerConfig(dropout=1)", ValueError, ["dropout", "below 1"]),
    ("TransformerConfig(dropout=-0.1)", ValueError, ["dropout", "at least 0", "-0.1"]),
    ("TransformerConfig(dropout=nan)", ValueError, ["dropout", "nan"]),
    ("TransformerConfig(positions='x')", ValueError, ["'sinusoidal', 'learned'", "'x'"]),
    ("TransformerConfig('')", ValueError, ["alphabet is empty"]),
    ("Transformer(TransformerConfig(d_model=9, n_heads=3))", ValueError, ["even", "9"]),
]
FIT = [
    *(
        (f"fit(MODEL, TASK, {option}={value})", ValueError, [option, "at least 1", str(value)])
        for option in ("steps", "batch_size", "eval_every", "eval_size")
        for value in (0, -1, 1.5)
    ),
    *(
        (f"fit(MODEL, TASK, {option}={value})", ValueError, [option, str(value)])
        for option, values in {
            "lr": (0, -0.1, math.nan, math.inf),
            "clip": (0, -1, math.nan),
            "warmup": (-0.1, 1, math.nan),
            "weight_decay": (-0.1, math.nan),
            "label_smoothing": (-0.1, 1, 1.5),
        }.items()
        for value in values
    ),
    ("fit(MODEL, TASK, device='gpu')", ValueError, ["'gpu' is not usable", "'cpu' always is"]),
    ("fit(MODEL, TASK, seed=-1)", ValueError, ["seed", "at least 0", "-1"]),
    ("fit(MODEL, TASK, every=0)", ValueError, ["every", "at least 1", "0"]),
    ("fit(MODEL, TASK, lr='x')", ValueError, ["lr", "'x'"]),
    ("fit(MODEL, TASK, schedule=5)", TypeError, ["schedule", "function", "5"]),
    ("fit(MODEL, TASK, callback=5)", TypeError, ["callback", "function", "5"]),
    ("fit(MODEL, 5)", TypeError, ["a model and a task", "int"]),
    ("fit(5, TASK)", TypeError, ["a model and a task", "int"]),
    ("learning_rate(5, 5, 1.0, 0.1)", ValueError, ["step", "at most 4", "5"]),
    ("cross_entropy(torch.ones(1, 2, 6), BOS)", ValueError, ["(1, 2, 6) and (1, 1)"]),
    ("cross_entropy(torch.ones(1, 1, 6), 0 * BOS)", ValueError, ["padding", "nothing"]),
    ("cross_entropy(torch.ones(1, 1, 1), BOS)", ValueError, ["labels holds 1", "0 to 0"]),
    ("exact_match(BOS, BOS.repeat(2, 1))", ValueError, ["(1, 1) and (2, 1)"]),
    ("token_accuracy(BOS, 0 * BOS)", ValueError, ["padding", "nothing"]),
    ("fit(LINEAR, TASK)", TypeError, ["model with a vocabulary", "Linear"]),
    ("fit(EMPTY, TASK)", TypeError, ["without parameters"]),
    ("fit(MODEL, TASK, lr=10**400)", ValueError, ["lr", "at most 1e9", "1000"]),
    ("fit(MODEL, TASK, clip=10**5000)", ValueError, ["clip", "at most 1e9", "type int"]),
    ("fit(MODEL, TASK, steps=10**5000)", ValueError, ["steps", "at most 1,000,000", "type int"]),
    ("fit(MODEL, TASK, schedule=lambda *_: -1)", ValueError, ["-1 for step 0", "0 to 1e9"]),
    ("learning_rate(0, 5, 1e308, 0.9)", ValueError, ["peak", "at most 1e9", "1e+308"]),
    ("predict(LINEAR, TASK.sample(1, torch.Generator()))", TypeError, ["vocabulary", "Linear"]),
    ("predict(EMPTY, TASK.sample(1, torch.Generator()))", TypeError, ["no parameters"]),
    ("TASK.sample(1, torch.Generator()).to('gpu')", ValueError, ["'gpu' is not usable"]),
    ("predict(MODEL, 5)", TypeError, ["Batch", "int"]),
    ("predict(5, TASK.sample(1, torch.Generator()))", TypeError, ["model", "int"]),
    ("fit(MODEL, ReversalTask('abd'))", ValueError, ["'abc'", "'abd'"]),
    ("fit(MODEL, ReversalTask('abc', 1, 5))", ValueError, ["max_length 5", "model's 4"]),
    ("fit(MODEL, ReversalTask('abc', 1, 4, 0))", ValueError, ["'held_out' holds no string"]),
]
DECODING = [
    ("reverse(MODEL, 'abcab')", ValueError, ["'abcab'", "5 symbols", "at most 4"]),
    ("reverse(MODEL, ['ab', 'xa'])", ValueError, ["'x'", "position 0", "'abc'"]),
    ("reverse(MODEL, ['ab', 7])", TypeError, ["string", "7"]),
    ("reverse(MODEL, 7)", TypeError, ["string", "7"]),
    ("reverse(MODEL, None)", TypeError, ["string", "None"]),
    ("reverse(MODEL, 'ab', 0)", ValueError, ["beam", "at least 1", "0"]),
    ("reverse(MODEL, '', 0)", ValueError, ["beam", "at least 1", "0"]),
    ("beam_search(MODEL, BOS, -1)", ValueError, ["beam", "at least 1", "-1"]),
    ("beam_search(MODEL, BOS, 2, 0)", ValueError, ["max_steps", "at least 1", "0"]),
    ("greedy(MODEL, BOS, 0)", ValueError, ["max_steps", "at least 1", "0"]),
    ("greedy(MODEL, BOS, 6)", ValueError, ["max_steps", "at most 5", "6"]),
    ("greedy(MODEL, BOS * 9)", ValueError, ["source holds 9", "0 to 5"]),
    ("greedy(5, BOS)", TypeError, ["model", "int"]),
    ("greedy(LINEAR, BOS)", TypeError, ["model with a vocabulary", "Linear"]),
    *(
        (typed, ValueError, ["weights", "not finite"])
        for typed in (
            "reverse(BROKEN, 'a')",
            "greedy(BROKEN, BOS)",
            "beam_search(BROKEN, BOS)",
            "predict(BROKEN, TASK.sample(1, torch.Generator()))",
            "attention_maps(BROKEN, 'a')",
        )
    ),
    ("reverse(MODEL, 10**5000)", TypeError, ["string", "type int"]),
    ("reverse(MODEL, 'a', 1001)", ValueError, ["beam", "at most 1,000", "1001"]),
    ("reverse(5, 'abc')", TypeError, ["model", "int"]),
    ("antidiagonal_score([1.0])", TypeError, ["weights", "tensor"]),
    ("plot_attention(torch.ones(2, 3), 'xy', 'abc', 5)", TypeError, ["Axes", "int"]),
    ("plot_batch(5, BOS)", TypeError, ["Vocab", "int"]),
    ("plot_history(5)", TypeError, ["History", "int"]),
    ("attention_maps(MODEL, 'x')", ValueError, ["'x'", "position 0"]),
    ("attention_maps(MODEL, 'a', 'x')", ValueError, ["'x'", "position 0"]),
    ("attention_maps(MODEL, ['a', 'b'], ['a'])", ValueError, ["2 sources and 1 targets"]),
    ("attention_maps(MODEL, 'a', 'aaaaa')", ValueError, ["6 positions", "holds 5"]),
    ("plot_attention(torch.ones(2, 3), 'x', 'abc')", ValueError, ["(2, 3)", "(1, 3)"]),
]


@pytest.fixture
def names(plain):
    """All names of the library, and short ones for a model and what to call it with."""
    found = {name: value for module in vars(plain).values() for name, value in vars(module).items()}
    query, key = torch.zeros(2, 3, 4), torch.zeros(2, 5, 4)
    empty, broken = torch.nn.Identity(), model(plain)
    empty.vocab, empty.config = broken.vocab, broken.config
    broken.embedding.weight.data[0] = torch.nan
    return {
        **found,
        "attend": lambda mask: found["scaled_dot_product_attention"](query, key, key, mask),
        "MODEL": model(plain),
        "TASK": plain.data.ReversalTask("abc", max_length=4),
        "BOS": torch.ones(1, 1).long(),
        "LINEAR": torch.nn.Linear(2, 2),
        "EMPTY": empty,
        "BROKEN": broken,
        "nan": math.nan,
        "inf": math.inf,
    }


@pytest.mark.parametrize(
    "typed, error, parts", [*VOCAB, *TASKS, *ATTENTION, *CONFIG, *FIT, *DECODING]
)
def test_the_error_names_what_was_wrong_and_what_is_allowed(names, typed, error, parts):
    with pytest.raises(error) as caught:
        eval(typed, names)
    message = str(caught.value)
    assert isinstance(caught.value, names["RevtransError"])
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_an_absent_device_is_named(names, monkeypatch, device):
    def absent(*arguments, **options):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch, "empty", absent)  # so that this holds where it is present, too
    for typed in (f"choose_device('{device}')", f"fit(MODEL, TASK, device='{device}')"):
        with pytest.raises(ValueError, match=f"'{device}' is not usable here; 'cpu' always is"):
            eval(typed, names)


NOT_WHOLE, MISFIT = "is not a whole safetensors file", "does not fit its configuration"
NORM = "encoder.norm.weight"


def described(good: SimpleNamespace, **changes: str) -> dict[str, str]:
    return {"revtrans": json.dumps({**good.metadata, **changes})}


# How to spoil a file: from its path and the content, tensors and metadata of a good one.
SPOILED = {
    "empty": (NOT_WHOLE, lambda path, good: path.write_bytes(b"")),
    "truncated": (NOT_WHOLE, lambda path, good: path.write_bytes(good.content[:-100])),
    "cut in its header": (NOT_WHOLE, lambda path, good: path.write_bytes(good.content[:20])),
    "random bytes": (NOT_WHOLE, lambda path, good: path.write_bytes(bytes(range(256)) * 9)),
    "text": (NOT_WHOLE, lambda path, good: path.write_text("this is not a model\n" * 9)),
    "other safetensors": (
        "was not saved by revtrans",
        lambda path, good: save_file(good.tensors, path),
    ),
    "no config": (
        MISFIT,
        lambda path, good: save_file(good.tensors, path, described(good, config="")),
    ),
    **{
        f"config {config}": (
            MISFIT,
            lambda path, good, config=config: save_file(
                good.tensors, path, described(good, config=config)
            ),
        )
        for config in ("{", "[1]", "{}", '{"d_modle": 8}', '{"d_model": 0}', '{"symbols": "aa"}')
    },
    "missing tensor": (
        f"{MISFIT}: {NORM}",
        lambda path, good: save_file(
            {name: t for name, t in good.tensors.items() if name != NORM}, path, described(good)
        ),
    ),
    "extra tensor": (
        f"{MISFIT}: more",
        lambda path, good: save_file(
            {**good.tensors, "more": torch.zeros(1)}, path, described(good)
        ),
    ),
    "tensor of another shape": (
        f"{MISFIT}: {NORM}",
        lambda path, good: save_file({**good.tensors, NORM: torch.zeros(3)}, path, described(good)),
    ),
}


@pytest.mark.parametrize("reason, spoil", SPOILED.values(), ids=SPOILED)
def test_a_file_that_is_no_model_is_refused(plain, tmp_path, reason, spoil):
    path, ours = tmp_path / "model.safetensors", model(plain)
    plain.files.save(ours, path)
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["revtrans"])
    tensors = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    good = SimpleNamespace(content=path.read_bytes(), tensors=tensors, metadata=metadata)
    spoil(path, good)
    with pytest.raises(plain.errors.FileError) as caught:
        plain.files.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path} {reason}") and "\n" not in message


@pytest.mark.parametrize("name", ["missing.safetensors", ".", "no/such/folder/model"])
def test_a_path_without_a_file_is_named(plain, tmp_path, name):
    with pytest.raises(plain.errors.FileError, match="there is no saved model at") as caught:
        plain.files.load(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_model_is_not_read_for_an_unusable_device(plain, tmp_path, device):
    with pytest.raises(ValueError, match=f"'{device}' is not usable here"):
        plain.files.load(tmp_path / "missing.safetensors", device)


def test_a_model_is_not_saved_into_a_missing_folder(plain, tmp_path):
    with pytest.raises(plain.errors.FileError, match="there is no folder") as caught:
        plain.files.save(model(plain), tmp_path / "missing" / "model.safetensors")
    assert str(tmp_path / "missing") in str(caught.value) and not list(tmp_path.iterdir())


def test_what_is_no_tensor_is_not_written(plain, tmp_path):
    with pytest.raises(TypeError, match=r"x must be a tensor of .*, and is int"):
        plain.files.write_file(tmp_path / "x", "demo", {"x": 5})
    assert not list(tmp_path.iterdir())


def test_a_model_is_not_saved_over_a_folder(plain, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        plain.files.save(model(plain), tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    "options",
    [{"steps": 0}, {"lr": math.nan}, {"device": "gpu"}, {"label_smoothing": 1}, {"eval_size": 0}],
)
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
