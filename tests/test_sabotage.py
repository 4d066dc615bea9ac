"""One edit of the library's own text breaks one piece, and the check that guards it notices."""

import inspect
import textwrap

import checks
import pytest
import test_model
import test_recurrent
import test_schemes
import test_training

from revtrans import attention, data, decoding, model, plotting, positions, training
from revtrans.model import Transformer
from revtrans.recurrent import Recurrent
from revtrans.schemes import Buckets, Scheme
from revtrans.training import Training

EDITS = [  # whose function, its name, what stands there, what is written instead, who must notice
    (attention, "masked_softmax", "(~mask", "(mask", checks.attention_is_torchs),
    (attention, "masked_softmax", "softmax(-1)", "softmax(-2)", checks.attention_is_torchs),
    (attention, "masked_softmax", ".masked_fill(~mask, lowest)", "", checks.attention_is_torchs),
    (attention, "scaled_dot_product_attention", "math.sqrt", "float", checks.attention_is_torchs),
    (attention.MultiHeadAttention, "forward", "s, mask)", "s, ~mask)", checks.heads_are_torchs),
    (attention, "split_heads", "transpose(1, 2)", "view(2, 2, 5, 16)", checks.heads_are_torchs),
    (model, "causal_mask", ".tril()", "", checks.future_is_hidden),
    (model, "padding_mask", "!= Vocab.pad", "> -1", checks.padding_is_ignored),
    (data.Batch, "labels", "1:", ":-1", checks.labels_are_one_ahead),
    (training, "cross_entropy", "=Vocab.pad", "=-1", checks.loss_ignores_padding),
    (Transformer, "embed", "(x, start", "(x, 0", checks.cache_changes_nothing),
    (decoding.CachedState, "step", "h, self.own[i]", "h, new", checks.cache_changes_nothing),
    (decoding.CachedState, "select", ", self.own", ",", checks.beams_keep_their_past),
    (decoding, "greedy", "done |=", "done &=", checks.decoding_stops),
    (decoding, "beam_search", "| (ids == Vocab.eos)", "", checks.decoding_stops),
    (positions.Sinusoidal, "forward", "x + sin", "x + 0 * sin", checks.order_is_told),
    (plotting, "antidiagonal_score", ".flip(-1)", "", checks.best_head_reads_backwards),
    (plotting, "plot_attention", "upper", "lower", checks.picture_is_upright),
]
TESTS = [  # what no check notices, and the test that does
    (Transformer, "embed", "self.config.d_model", "64", test_model.test_symbols_grow_by_root_d),
    (Recurrent, "embed", "self.config.d_model", "64", test_recurrent.test_it_is_torchs_lstm),
    (Scheme, "attend", "kind, start", "kind, start + 1", test_schemes.test_queries_begin_at_0),
    (Buckets, "bucket", "offset > 0", "offset >= 0", test_schemes.test_buckets_are_t5s),
    (Training, "backward", "loss.b", "(2 * loss).b", test_training.test_fit_is_the_loop),
    (Training, "run", "steps + 1", "steps", test_training.test_the_history_tells_what_happened),
]


@pytest.fixture
def spoil(monkeypatch):
    def spoil(owner, name, old, new):
        found, made = getattr(owner, name), {}
        function = inspect.unwrap(getattr(found, "fget", found))
        text = textwrap.dedent(inspect.getsource(function))
        assert old in text
        exec(text.replace(old, new), function.__globals__, made)
        monkeypatch.setattr(owner, name, made[name])

    return spoil


@pytest.mark.parametrize("owner, name, old, new, check", EDITS)
def test_the_check_notices(trained, spoil, owner, name, old, new, check):
    check(trained)
    spoil(owner, name, old, new)
    with pytest.raises(AssertionError):
        check(trained)


@pytest.mark.parametrize("owner, name, old, new, test", TESTS)
def test_the_test_notices(spoil, owner, name, old, new, test):
    test()
    spoil(owner, name, old, new)
    with pytest.raises(AssertionError):
        test()
