"""Order in which a replica visits its records: a permutation for each (seed, epoch), computed entry by entry.

A training set may have a million records or more; the memory and time for its order do not grow with it.
"""

import math

import numpy as np

from googlenet.randomness import numpy_generator
from googlenet.shapes import Int64, UInt64

Positions = Int64[np.ndarray, " n"]
# Up to this size the order is drawn uniformly and kept in memory, half a megabyte; beyond, it is computed.
SHUFFLED_IMAGES = 1 << 16
ROUNDS = 8


class EpochOrder:
    """Permutation of 0..num_images-1 that replica ``seed`` follows in ``epoch``; slices of it are arrays of int64."""

    def __init__(self, num_images: int, seed: int, epoch: int) -> None:
        generator = numpy_generator(seed, "order", epoch)
        self._num_images = num_images
        self._order: Positions | ComputedPermutation
        if num_images <= SHUFFLED_IMAGES:
            self._order = generator.permutation(num_images)
        else:
            self._order = ComputedPermutation(num_images, generator)

    def __len__(self) -> int:
        return self._num_images

    def __getitem__(self, positions: slice) -> Positions:
        return self._order[positions]


class ComputedPermutation:
    """A pseudorandom permutation of 0..length-1 in constant memory.

    A Feistel network on a grid of about sqrt(length) rows and columns (Black and Rogaway, "Ciphers with arbitrary
    finite domains", CT-RSA 2002): each round moves a point along one axis by a hash of its other coordinate, which
    is invertible, so no two points collide. A point that is not a record is enciphered again until it is one.
    """

    def __init__(self, length: int, generator: np.random.Generator) -> None:
        self._length = length
        self._rows = math.isqrt(length - 1) + 1
        self._columns = -(-length // self._rows)
        self._keys = generator.integers(0, 2**64, size=(ROUNDS, 2), dtype=np.uint64)

    def __getitem__(self, positions: slice) -> Positions:
        points = np.arange(*positions.indices(self._length), dtype=np.uint64)
        points = self._encipher(points)
        while (beyond := points >= self._length).any():
            points[beyond] = self._encipher(points[beyond])
        return points.astype(np.int64)

    def _encipher(self, points: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
        rows, columns = np.uint64(self._rows), np.uint64(self._columns)
        row, column = points // columns, points % columns
        for row_key, column_key in self._keys:
            row = (row + _hash(column, row_key)) % rows
            column = (column + _hash(row, column_key)) % columns
        return row * columns + column


def _hash(values: UInt64[np.ndarray, " n"], key: np.uint64) -> UInt64[np.ndarray, " n"]:
    """Mix ``values`` with ``key``; the finaliser of SplitMix64 (Steele et al., OOPSLA 2014), modulo 2^62.

    Two bits fewer than the word, so that adding a coordinate does not overflow.
    """
    mixed = values ^ key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(2)
