"""Text to ids and back, batches and their shift, two splits that share nothing."""

import hashlib
import sys
import unicodedata

import checks
import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from revtrans.attention import padding_mask
from revtrans.data import ReversalTask, Task, Vocab, in_held_out, make_batch
from revtrans.errors import InputValueError

KOREAN_PARTS = [*map(chr, range(0x1160, 0x1200)), *map(chr, range(0xD7B0, 0xD800))]
EMOJI_PARTS = "".join(map(chr, [*range(0x1F1E6, 0x1F200), *range(0x1F3FB, 0x1F400)]))
SYMBOLS = st.characters(
    exclude_categories=["M", "Cs", "Cf"], exclude_characters=[*KOREAN_PARTS, *EMOJI_PARTS]
)


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def strings(ids: torch.Tensor) -> list[str]:
    return [Vocab("abcde").decode(row) for row in ids.tolist()]


def test_every_annotation_is_checked_here():
    with pytest.raises(jaxtyping.TypeCheckError, match="batch key"):
        padding_mask(torch.zeros(4).long())


@given(st.lists(SYMBOLS, min_size=1, max_size=30, unique=True), st.data())
def test_any_text_survives_encoding_and_decoding(symbols, data):
    alphabet = "".join(symbols)
    assume(nfc(alphabet) == alphabet)
    text = data.draw(st.text(st.sampled_from(symbols), max_size=20))
    assume(set(nfc(text)) <= set(symbols))
    vocab = Vocab(alphabet)
    ids = vocab.encode(text)
    assert all(vocab.n_special <= i < len(vocab) for i in ids)
    assert vocab.decode(ids) == nfc(text)


def test_no_two_symbols_become_one_in_nfc():
    """Every second half of a composition that Unicode knows is refused, Korean ones included."""
    second = set(KOREAN_PARTS)
    for i in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(i)).split()
        if len(parts) == 2 and "<" not in parts[0]:
            whole = "".join(chr(int(part, 16)) for part in parts)
            if nfc(whole) == chr(i):
                second.add(whole[1])
    assert len(second) > 200
    for symbol in second:
        with pytest.raises(InputValueError, match="cannot stand alone"):
            Vocab(f"a{symbol}"[-1:])


def test_decoding_ends_at_eos_and_skips_padding_and_bos():
    a, b = Vocab("ab").encode("ab")
    assert Vocab("ab").decode([Vocab.bos, a, Vocab.pad, b, Vocab.eos, a]) == "ab"


def test_the_decoder_reads_one_step_behind_its_labels():
    checks.labels_are_one_ahead(checks.tiny())


@given(
    st.integers(1, 4), st.integers(0, 4), st.integers(1, 40), st.integers(0, 2**32),
    st.sampled_from(["train", "held_out"]),
)  # fmt: skip
def test_samples_are_reversals_of_the_right_length_and_split(shortest, more, n, seed, split):
    task = ReversalTask("abcde", shortest, shortest + more, held_out=0.3)
    batch = task.sample(n, checks.seeded(seed), split)
    sources = strings(batch.source)
    assert strings(batch.target) == [source[::-1] for source in sources]
    assert all(shortest <= len(source) <= shortest + more for source in sources)
    assert batch.source.shape == (n, max(map(len, sources)))
    assert batch.target.shape == (n, max(map(len, sources)) + 2)
    for source in sources:  # each alone, without the padding of the batch
        alone = torch.tensor([task.vocab.encode(source)])
        assert in_held_out(alone, 0.3).item() == (split == "held_out")
    again = task.sample(n, checks.seeded(seed), split)
    assert torch.equal(again.source, batch.source) and torch.equal(again.target, batch.target)


@given(st.text("abcde", max_size=12), st.integers(1, 9), st.floats(0, 1))
def test_padding_does_not_change_a_strings_split(text, padding, share):
    ids = make_batch(Vocab("abcde"), [text], [""]).source
    assert torch.equal(in_held_out(ids, share), in_held_out(F.pad(ids, (0, padding)), share))


def test_nothing_is_held_out_if_so_asked():
    task = ReversalTask("ab", max_length=2, held_out=0.0)
    assert len(set(strings(task.sample(200, checks.seeded()).source))) == 2 + 4
    with pytest.raises(ValueError, match="'held_out' holds nothing"):
        task.sample(1, checks.seeded(), "held_out")
    assert not len(ReversalTask(held_out=0.0).lengths["held_out"])


def test_the_same_seed_gives_the_batches_that_it_always_gave():
    """Trainings are compared across versions; this digest is that of version 0.1."""
    batches = [
        ReversalTask(*sizes).sample(500, checks.seeded(3), split)
        for sizes in ((), ("abc", 1, 5, 0.2), ("ab", 1, 4, 0.2), ("abcdefgh", 2, 9, 0.5))
        for split in ("train", "held_out")
    ]
    ids = b"".join(b.source.numpy().tobytes() + b.target.numpy().tobytes() for b in batches)
    assert hashlib.md5(ids).hexdigest() == "8e07802773eb90ac357fe29ffe557138"


def test_a_task_reads_as_one_line_in_a_cell():
    assert repr(ReversalTask("abc", 2, 5)) == "ReversalTask(2 to 5 of 'abc', 10% held out)"
    assert len(repr(ReversalTask("".join(map(chr, range(0x4E00, 0x5200)))))) < 300
    assert isinstance(ReversalTask(), Task)
