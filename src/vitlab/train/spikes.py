"""Spikes: losses that stand out, for whoever looks for the images that cause them."""

import statistics
from collections.abc import Sequence

WINDOW = 200
"""So many losses are compared with."""
_LEAST = 20
_DEVIATIONS = 6.0


def is_spike(loss: float, recent: Sequence[float]) -> bool:
    """Return whether `loss` lies more than six median absolute deviations above the median of the `recent` ones."""
    if len(recent) < _LEAST:
        return False
    middle = statistics.median(recent)
    deviation = statistics.median(abs(value - middle) for value in recent)
    return deviation > 0 and loss > middle + _DEVIATIONS * deviation
