"""Sinusoids and learned vectors: what is added, and where a text begins."""

import checks
import pytest
import torch
from torch_peers import assert_close

from revtrans.positions import Learned, Sinusoidal, sinusoids


@pytest.mark.parametrize("scheme", [Sinusoidal(), Learned(9, 8)], ids=["waves", "learned"])
def test_each_position_adds_its_own_vector_from_the_start_position_on(scheme):
    x = torch.randn(2, 9, 8, generator=checks.seeded())
    table = scheme.table if isinstance(scheme, Learned) else sinusoids(torch.arange(9), 8)
    assert_close(scheme(x), x + table)
    assert_close(scheme(x[:, 4:7], start=4), scheme(x)[:, 4:7])


def test_learned_vectors_are_trained_and_end_and_waves_do_neither():
    learned, x = Learned(9, 8), torch.zeros(1, 10, 8)
    learned(x[:, :3], start=6).sum().backward()
    assert learned.table.grad.tolist() == [[0.0] * 8] * 6 + [[1.0] * 8] * 3
    for start, length in [(0, 10), (9, 1), (5, 5)]:
        with pytest.raises((RuntimeError, IndexError)):
            learned(x[:, :length], start)
    assert Learned(2000, 64).table.norm(dim=1).mean().item() == pytest.approx(1, abs=0.05)
    assert not Sinusoidal().state_dict()
    assert_close(Sinusoidal()(x, start=990)[0], sinusoids(torch.arange(990, 1000), 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_waves_are_computed_in_full_and_added_in_the_embeddings_precision(dtype):
    told = Sinusoidal()(torch.zeros(1, 3, 8, dtype=dtype), start=3000)
    exact = sinusoids(torch.arange(3000, 3003), 8)
    assert told.dtype == dtype
    torch.testing.assert_close(told[0], exact.to(dtype))
