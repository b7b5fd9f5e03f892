"""Random numbers of a replica, each a function of (seed, stream, epoch, index) and of nothing else.

A stream is one use of randomness; two streams of the same seed are independent. Philox generators are keyed, not
advanced, so sample 7 of epoch 3 is the same on every worker, in any order, before or after a crash.
"""

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    import torch

# Append only: a stream's position is part of the key of its numbers.
Stream = Literal["initial_weights", "order", "sampling", "dropout", "bootstrap", "embedded_dataset", "mirror"]


def numpy_generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """Return a NumPy generator for ``key``, typically (epoch, index).

    Raises:
        ValueError: the seed is negative.
    """
    return np.random.Generator(np.random.Philox(_sequence(seed, stream, key)))


def torch_generator(seed: int, stream: Stream, *key: int, device: str = "cpu") -> "torch.Generator":
    """Return a torch generator for ``key``, typically (epoch, step).

    Raises:
        ValueError: the seed is negative.
    """
    import torch

    state = _sequence(seed, stream, key).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) & (2**63 - 1))


def _sequence(seed: int, stream: Stream, key: tuple[int, ...]) -> np.random.SeedSequence:
    if seed < 0:
        raise ValueError(f"a seed must not be negative, got {seed}")
    return np.random.SeedSequence((seed, get_args(Stream).index(stream), *key))
