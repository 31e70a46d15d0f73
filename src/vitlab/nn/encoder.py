"""The Transformer encoder (equations 2–4)."""

from typing import Literal, cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitlab.nn.attention import SelfAttention

Activation = Literal["gelu_tanh", "gelu"]


class MLP(nn.Module):
    """Two linear layers with a GELU between, dropout after each."""

    def __init__(self, width: int, mlp_dim: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, mlp_dim)
        self.out = nn.Linear(mlp_dim, width)
        self.approximate = "tanh" if activation == "gelu_tanh" else "none"
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the transformed tokens, each by itself."""
        hidden = functional.gelu(self.hidden(x), approximate=self.approximate)
        return self.dropout(self.out(self.dropout(hidden)))


class Block(nn.Module):
    """One pre-norm encoder block: attention and MLP, each behind a LayerNorm and around a residual."""

    def __init__(
        self, width: int, num_heads: int, mlp_dim: int, *, activation: Activation, norm_eps: float, dropout: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = SelfAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, mlp_dim, activation, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"], num_outputs: int | None = None) -> Float[Tensor, "b q d"]:
        """Return the first `num_outputs` tokens after this block (all when None)."""
        x = x[:, :num_outputs] + self.dropout(self.attention(self.norm1(x), num_outputs))
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """A stack of blocks and a final LayerNorm over every token."""

    def __init__(self, blocks: list[Block], width: int, norm_eps: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=norm_eps)

    @property
    def layers(self) -> list[Block]:
        """The blocks, from the first up."""
        return [cast(Block, block) for block in self.blocks]

    def forward(self, x: Float[Tensor, "b n d"], num_outputs: int | None = None) -> Float[Tensor, "b q d"]:
        """Return the first `num_outputs` encoded tokens (all when None).

        Only the last block can leave tokens out: the others feed keys and values to those above. The numbers are the same;
        with class-token pooling the last block then costs about a third (keys and values for all, the rest for one token).
        """
        *below, last = self.layers
        for block in below:
            x = block(x)
        return self.norm(last(x, num_outputs))
