"""How the encoded tokens become one vector an image (appendix D.3)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitlab.config import Settings
from vitlab.nn.attention import SelfAttention
from vitlab.nn.encoder import MLP, BlockSettings


class ClassToken(Settings):
    """The output of an extra learned token, the first of the sequence (the paper's default)."""

    type: Literal["ClassToken"] = "ClassToken"

    @property
    def num_prefix(self) -> int:
        """How many tokens of its own this kind puts before the patches: the class token."""
        return 1

    @property
    def num_inputs(self) -> int | None:
        """How many leading tokens the pooling reads: one."""
        return 1


class Mean(Settings):
    """The mean over patches ("global average pooling", appendix D.3); no class token.

    As timm has it, `class_token=True` puts one into the sequence all the same, which the mean leaves out, and `norm="mean"` lets
    the final LayerNorm act on the mean instead of on every token before it (timm's fc_norm).
    """

    type: Literal["Mean"] = "Mean"
    class_token: bool = False
    norm: Literal["tokens", "mean"] = "tokens"

    @property
    def num_prefix(self) -> int:
        """How many tokens of its own this kind puts before the patches: none, or a class token."""
        return int(self.class_token)

    @property
    def num_inputs(self) -> int | None:
        """How many leading tokens the pooling reads: all."""
        return None


class AttentionPool(Settings):
    """A learned query reads the patches by attention and passes an MLP; no class token (big_vision's "map", SigLIP).

    Its heads and its MLP are as wide as the encoder's.
    """

    type: Literal["AttentionPool"] = "AttentionPool"

    @property
    def num_prefix(self) -> int:
        """How many tokens of its own this kind puts before the patches: none."""
        return 0

    @property
    def num_inputs(self) -> int | None:
        """How many leading tokens the pooling reads: all."""
        return None


class FirstPatch(Settings):
    """The output of the patch in the upper left corner; no class token (big_vision's "0")."""

    type: Literal["FirstPatch"] = "FirstPatch"

    @property
    def num_prefix(self) -> int:
        """How many tokens of its own this kind puts before the patches: none."""
        return 0

    @property
    def num_inputs(self) -> int | None:
        """How many leading tokens the pooling reads: all, since registers may come first."""
        return None


Pool = ClassToken | Mean | AttentionPool | FirstPatch


class OneToken(nn.Module):
    """Takes the output of the token `index`."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, encoded: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """Return that token."""
        return encoded[:, self.index]


class PatchMean(nn.Module):
    """Averages the patches' outputs; `norm` acts on the mean."""

    def __init__(self, prefix: int, norm: nn.Module) -> None:
        super().__init__()
        self.prefix = prefix
        self.norm = norm

    def forward(self, encoded: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """Return the mean over patches."""
        return self.norm(encoded[:, self.prefix :].mean(dim=1))


class AttentionPooling(nn.Module):
    """Multi-head attention of one learned query over the patches, then a residual MLP behind a LayerNorm."""

    def __init__(self, block: BlockSettings, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix
        self.probe = nn.Parameter(torch.empty(1, 1, block.width))
        self.attention = SelfAttention(block.width, block.num_heads)
        self.norm = nn.LayerNorm(block.width, eps=block.norm_eps)
        self.mlp = MLP(block.width, block.mlp_dim, block.activation, dropout=0.0)

    def forward(self, encoded: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """Return what the query read."""
        read = self.attention.attend(self.probe.expand(encoded.shape[0], -1, -1), encoded[:, self.prefix :])
        return (read + self.mlp(self.norm(read)))[:, 0]


def build_pooling(kind: Pool, block: BlockSettings, prefix: int) -> nn.Module:
    """Return the pooling [b, n, d] → [b, d]; the first `prefix` tokens are no patches."""
    match kind:
        case ClassToken():
            return OneToken(0)
        case Mean():
            norm = nn.LayerNorm(block.width, eps=block.norm_eps) if kind.norm == "mean" else nn.Identity()
            return PatchMean(prefix, norm)
        case AttentionPool():
            return AttentionPooling(block, prefix)
        case FirstPatch():
            return OneToken(prefix)
