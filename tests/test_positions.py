"""Sinusoids and learned vectors: the paper's numbers, and where a text begins."""

import math

import checks
import pytest
import torch
from torch_peers import assert_close

from revtrans.positions import Learned, Sinusoidal, sinusoids


@pytest.mark.parametrize("d_model", [2, 6, 16])
def test_sinusoids_follow_the_papers_formula(d_model):
    places = [0, 1, 7, 49, 400]
    table = sinusoids(torch.tensor(places), d_model)
    for row, pos in zip(table, places):
        for i in range(d_model // 2):
            angle = pos / 10000 ** (2 * i / d_model)
            assert row[2 * i].item() == pytest.approx(math.sin(angle), abs=1e-4)
            assert row[2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-4)


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
    assert not Sinusoidal().state_dict()
    assert_close(Sinusoidal()(x, start=990)[0], sinusoids(torch.arange(990, 1000), 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_waves_are_computed_in_full_and_added_in_the_embeddings_precision(dtype):
    told = Sinusoidal()(torch.zeros(1, 3, 8, dtype=dtype), start=3000)
    exact = sinusoids(torch.arange(3000, 3003), 8)
    assert told.dtype == dtype
    torch.testing.assert_close(told[0], exact.to(dtype))


@pytest.mark.parametrize("scheme", [Sinusoidal(), Learned(9, 8).to("meta")])
def test_shapes_alone_on_the_meta_device(scheme):
    assert sinusoids(torch.arange(3, device="meta"), 8).is_meta
    assert scheme(torch.empty(2, 3, 8, device="meta"), start=2).is_meta


def test_learned_vectors_start_as_long_as_one():
    torch.testing.assert_close(
        Learned(2000, 64).table.norm(dim=1).mean().item(), 1.0, rtol=0, atol=0.05
    )


def test_a_model_without_positions_reads_a_bag_of_letters_and_with_them_it_does_not():
    source, written = torch.tensor([[3, 4, 5, 6], [6, 4, 3, 5]]), torch.tensor([[1, 3, 4]] * 2)
    assert_close(*checks.tiny(positions="none")(source, written))
    for positions in ("sinusoidal", "learned"):
        checks.order_is_told(checks.tiny(positions=positions))
