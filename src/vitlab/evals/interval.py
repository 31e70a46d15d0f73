"""How sure a share is that was counted in so many trials."""

import math


def wilson_interval(correct: float, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % confidence interval of a proportion, `correct` being the share seen in `total` trials (Wilson 1927)."""
    centre = correct + z * z / (2 * total)
    spread = z * math.sqrt(correct * (1 - correct) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
