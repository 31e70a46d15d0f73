"""The Transformer encoder (equations 2–4)."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitlab.nn.attention import SelfAttention
from vitlab.nn.remat import Layers

Activation = Literal["gelu_tanh", "gelu"]


class BlockSettings(NamedTuple):
    """What every block of an encoder has in common; see `ViTSettings`."""

    width: int
    num_heads: int
    mlp_dim: int
    activation: Activation = "gelu_tanh"
    norm_eps: float = 1e-6
    dropout: float = 0.0
    layer_scale: bool = False
    relative_tokens: int | None = None
    qkv_bias: bool = True


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
        hidden = self.hidden(x)
        if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
            # in place: another tensor of this size costs B/16 on a CPU 5 % of its time
            hidden = cast(Any, torch.ops).aten.gelu_(hidden, approximate=self.approximate)
        else:
            hidden = functional.gelu(hidden, approximate=self.approximate)
        return self.dropout(self.out(self.dropout(hidden)))


class Branch(nn.Module):
    """What happens to a residual branch before it is added: layer scale, and stochastic depth while training.

    Layer scale multiplies each channel by a learned number. Stochastic depth leaves the branch out for an image with probability
    `drop_rate`, and otherwise divides it by 1 - `drop_rate`.
    """

    def __init__(self, width: int, drop_rate: float, layer_scale: bool) -> None:
        super().__init__()
        self.drop_rate = drop_rate
        self.scale = nn.Parameter(torch.empty(width)) if layer_scale else None

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the branch as it is added."""
        if self.scale is not None:
            x = x * self.scale
        if self.drop_rate and self.training:
            kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.drop_rate
            x = x * kept / (1 - self.drop_rate)
        return x


class Norm(nn.LayerNorm):
    """A LayerNorm as precise as its input, also where its own numbers were brought here in 16 bits."""

    def forward(self, input: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:  # noqa: A002  (its name in torch)
        """Return every token with mean zero and deviation one, scaled and moved."""
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


class Block(nn.Module):
    """One pre-norm encoder block: attention and MLP, each behind a LayerNorm and around a residual.

    `position` is added first, where positions are added in every layer.
    """

    def __init__(self, settings: BlockSettings, drop_rate: float = 0.0, position: nn.Module | None = None) -> None:
        super().__init__()
        s = settings
        self.position = position
        self.norm1 = Norm(s.width, eps=s.norm_eps)
        self.attention = SelfAttention(s.width, s.num_heads, s.relative_tokens, qkv_bias=s.qkv_bias)
        self.branch1 = Branch(s.width, drop_rate, s.layer_scale)
        self.norm2 = Norm(s.width, eps=s.norm_eps)
        self.mlp = MLP(s.width, s.mlp_dim, s.activation, s.dropout)
        self.branch2 = Branch(s.width, drop_rate, s.layer_scale)
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x: Float[Tensor, "b n d"], num_outputs: int | None = None) -> Float[Tensor, "b q d"]:
        """Return the first `num_outputs` tokens after this block (all when None)."""
        x = self._positioned(x)
        return self._after(x[:, :num_outputs], self.attention(self.norm1(x), num_outputs))

    def explicit(self, x: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b m n n"], Float[Tensor, "b n d"]]:
        """Return the attention probabilities, and all tokens after this block computed from them: what has a gradient for them."""
        x = self._positioned(x)
        normed = self.norm1(x)
        weights = self.attention.weights(normed)
        return weights, self._after(x, self.attention.read(weights, normed))

    def attention_weights(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b m n n"]:
        """Return the attention probabilities of every head for the tokens that enter this block; rows are queries."""
        return self.attention.weights(self.norm1(self._positioned(x)))

    def _after(self, x: Float[Tensor, "b q d"], attended: Float[Tensor, "b q d"]) -> Float[Tensor, "b q d"]:
        """Return the tokens after both residual branches, given what they read."""
        x = x + self.branch1(self.dropout(attended))
        return x + self.branch2(self.mlp(self.norm2(x)))

    def _positioned(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return x if self.position is None else self.position(x)


class Encoder(nn.Module):
    """A stack of blocks and a final LayerNorm over every token, unless `norm_eps` is None."""

    def __init__(self, blocks: Sequence[nn.Module], width: int, norm_eps: float | None) -> None:
        super().__init__()
        self.blocks = Layers(blocks)
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(width, eps=norm_eps)

    @property
    def layers(self) -> list[Block]:
        """The blocks of an encoder with global attention, from the first up."""
        return [cast(Block, block) for block in self.blocks]

    def forward(self, x: Float[Tensor, "b n d"], num_outputs: int | None = None) -> Float[Tensor, "b q d"]:
        """Return the first `num_outputs` encoded tokens (all when None).

        Only the last block can leave tokens out: the others feed keys and values to those above. The numbers are the same;
        with class-token pooling the last block then costs about a third (keys and values for all, the rest for one token).
        """
        return self.norm(self.blocks(x, num_outputs))
