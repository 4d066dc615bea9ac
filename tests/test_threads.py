"""Several threads of one program build models and ask them, and nothing gets mixed up."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from revtrans.decoding import reverse
from revtrans.devices import seeded
from revtrans.model import Transformer, TransformerConfig
from revtrans.recurrent import Recurrent, RecurrentConfig

SMALL = {"symbols": "abcd", "max_length": 6, "d_model": 16, "n_heads": 2, "d_ff": 32}
WORDS = ["abcd", "dd", "bca"]


@pytest.mark.parametrize(
    "make",
    [
        partial(Transformer, TransformerConfig(**SMALL)),
        partial(Recurrent, RecurrentConfig("abcd", max_length=6, d_model=16)),
    ],
)
def test_models_built_at_once_beside_trainings_have_the_weights_of_their_seeds(make):
    def weights(seed: int) -> torch.Tensor:
        with seeded(seed, torch.device("cpu")):  # a training begins, and ends
            pass
        return torch.nn.utils.parameters_to_vector(make(seed).parameters()).detach()

    alone = [weights(seed) for seed in range(60)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(weights, range(60)))
    assert all(map(torch.equal, alone, together))


def test_a_model_in_train_mode_answers_alike_from_every_thread_and_stays_in_it():
    model = Transformer(TransformerConfig(**SMALL, dropout=0.5))
    alone = reverse(model.eval(), WORDS)
    model.train()
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda _: reverse(model, WORDS), range(40)))
    assert together == [alone] * 40
    assert all(module.training for module in model.modules())
