"""Which example is next: a pure function of the seed and the position, for any number of examples, without memory.

Training reads an endless sequence of positions 0, 1, 2, …. Position p is in epoch p // n and shows the example at place p % n of
that epoch's permutation. The permutation is a keyed Feistel network over the next power of four, walked until it falls below n, so
ten billion examples cost what a thousand cost, and any position is known without those before it.
"""

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6
_MIX = np.uint64(0x9E3779B97F4A7C15)
U64 = NDArray[np.uint64]


def examples_at(positions: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return which of `count` examples stands at each of `positions` (int64 [b]); every epoch shows each exactly once."""
    epochs, places = np.divmod(positions, count)
    examples = np.empty_like(places)
    for epoch in np.unique(epochs):
        mask = epochs == epoch
        examples[mask] = permute(places[mask], count, (seed, int(epoch)))
    return examples


def permute(places: NDArray[np.int64], count: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the images of `places` (each below `count`) under the permutation of range(count) that `key` selects."""
    half_bits = np.uint64(max(1, (max(count - 1, 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64).astype(np.uint64)
    values = places.astype(np.uint64)
    outside = np.ones(values.shape, bool)
    while outside.any():
        values[outside] = _feistel(values[outside], keys, half_bits, mask)
        outside = values >= np.uint64(count)
    return values.astype(np.int64)


def _feistel(values: U64, keys: U64, half_bits: np.uint64, mask: np.uint64) -> U64:
    left, right = values >> half_bits, values & mask
    for key in keys:
        left, right = right, left ^ (_hash(right ^ key) & mask)
    return (left << half_bits) | right


def _hash(values: U64) -> U64:
    """Return well-mixed 64-bit values (the finaliser of SplitMix64)."""
    values = values + _MIX
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
