"""Files as a bad disk or a bad neighbour leaves them: bytes changed, cut out, doubled."""

import numpy as np


def altered(data: bytes, rng: np.random.Generator) -> bytes:
    """Return `data` with some bytes changed, cut out, or repeated."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if not changed:
            break
        at = int(rng.integers(len(changed)))
        match rng.integers(4):
            case 0:
                changed[at] = int(rng.integers(256))
            case 1:
                del changed[at : at + int(rng.integers(1, 100))]
            case 2:
                changed[at:at] = changed[at : at + int(rng.integers(1, 100))]
            case _:
                changed[at : at + 4] = rng.integers(0, 256, 4, dtype=np.uint8).tobytes()
    return bytes(changed)
