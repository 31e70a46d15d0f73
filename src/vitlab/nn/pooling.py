"""How the encoded tokens become one vector an image."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from vitlab.config import Settings


class ClassToken(Settings):
    """The output of an extra learned token, the first of the sequence (the paper's default)."""

    type: Literal["ClassToken"] = "ClassToken"

    @property
    def num_prefix(self) -> int:
        """How many tokens stand before the patches: the class token."""
        return 1

    @property
    def num_inputs(self) -> int | None:
        """How many leading tokens the pooling reads: one."""
        return 1

    def pool(self, encoded: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """Return the class token's output."""
        return encoded[:, 0]


class Mean(Settings):
    """The mean over patches ("global average pooling", appendix D.3); no class token."""

    type: Literal["Mean"] = "Mean"

    @property
    def num_prefix(self) -> int:
        """How many tokens stand before the patches: none."""
        return 0

    @property
    def num_inputs(self) -> int | None:
        """How many leading tokens the pooling reads: all."""
        return None

    def pool(self, encoded: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """Return the mean over tokens."""
        return encoded.mean(dim=1)


Pool = ClassToken | Mean
