"""A sum whose bits do not depend on who holds the parts: the parts are the leaves of one binary tree."""

from torch import Tensor

from vitlab.ranks import Ranks

Leaf = list[Tensor]


class TreeSum:
    """Adds the leaves that one rank holds, in order: neighbours first, then neighbouring pairs, and so on.

    A rank holds a run of 2^i leaves. Of n leaves at most log2(n) + 1 sums are kept at a time.
    """

    def __init__(self) -> None:
        self._sums: list[tuple[int, Leaf]] = []  # (height, sum of 2^height leaves), highest first

    def add(self, leaf: Leaf) -> None:
        """Add the next leaf; its tensors are taken over."""
        height = 0
        while self._sums and self._sums[-1][0] == height:
            lower = self._sums.pop()[1]
            for mine, theirs in zip(lower, leaf, strict=True):
                mine.add_(theirs)
            leaf, height = lower, height + 1
        self._sums.append((height, leaf))

    def total(self, ranks: Ranks) -> Leaf:
        """Return the sum over the leaves of all ranks."""
        (_, mine), *rest = self._sums
        assert not rest, "the leaves of a rank are a power of two"
        ranks.add_across(mine)
        return mine


def is_power_of_two(number: int) -> bool:
    """Return whether a tree with so many leaves is whole."""
    return number > 0 and not number & (number - 1)
