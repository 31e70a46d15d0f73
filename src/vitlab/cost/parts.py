"""Which part of a model a parameter or a product belongs to, told by its name."""

from collections.abc import Mapping
from typing import NamedTuple

PROJECTIONS, PRODUCTS, POSITIONS = "attention projections", "attention products", "tokens and positions"
ORDER = (
    *("root", *(f"stage {number}" for number in range(1, 6)), "embedding", POSITIONS),
    *(PROJECTIONS, PRODUCTS, "MLP", "norms", "pooling", "representation", "head"),
)
"""Every part there is, as an image passes through them; stages have their norms in them."""


class Part(NamedTuple):
    """What a part of a model costs: its parameters, and the multiply-accumulates of one image forward."""

    name: str
    parameters: int
    macs: int


def part_of(name: str) -> str:
    """Return the part, one of `ORDER`, of the parameter or module called `name` in a ViT or a ResNet.

    Attention counts by itself wherever it is but in the pooling: its linear layers as projections; `name` is that of the attention
    itself for the products of queries with keys and of weights with values.
    """
    words = name.removeprefix("stem.").split(".")
    if words[0] in ("root", "pooling", "representation", "head"):
        return words[0]
    if words[0] in ("embedding", "projection"):
        return "embedding"
    if words[0] in ("class_token", "registers") or "position" in words or "relative" in words:
        return POSITIONS
    if "qkv" in words or ("attention" in words and words[-1] != "attention"):
        return PROJECTIONS
    if words[-1] == "attention" or (words[0] == "stages" and words[-1] in ("rows", "columns")):
        return PRODUCTS
    if words[0] == "stages":
        return f"stage {int(words[1]) + 1}"
    return "MLP" if "mlp" in words else "norms"


def parts_of(parameters: Mapping[str, int], macs: Mapping[str, int]) -> tuple[Part, ...]:
    """Return the parts that a model has, in order; the numbers are those of each parameter and of each module, by name."""
    counts = {part: [0, 0] for part in ORDER}
    for column, numbers in enumerate((parameters, macs)):
        for name, number in numbers.items():
            counts[part_of(name)][column] += number
    return tuple(Part(part, *count) for part, count in counts.items() if any(count))
