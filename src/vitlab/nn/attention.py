"""Multi-head self-attention (appendix A)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitlab.nn.relative import RelativeLogits


class SelfAttention(nn.Module):
    """Multi-head self-attention with separate query, key and value matrices; `forward` is fused, `weights` explicit.

    The three matrices stay apart because they are initialised apart: one fused [3d, d] matrix under Xavier initialisation
    would start √2 too small. `relative_tokens` adds relative position logits for so many tokens; without `qkv_bias` the three
    have no bias.
    """

    def __init__(
        self, width: int, num_heads: int, relative_tokens: int | None = None, *, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=qkv_bias)
        self.key = nn.Linear(width, width, bias=qkv_bias)
        self.value = nn.Linear(width, width, bias=qkv_bias)
        self.out = nn.Linear(width, width)
        self.relative = RelativeLogits(relative_tokens, width // num_heads) if relative_tokens else None

    def forward(self, x: Float[Tensor, "b n d"], num_queries: int | None = None) -> Float[Tensor, "b q d"]:
        """Return the attended values of the first `num_queries` tokens (all when None); every token is key and value."""
        return self.attend(x[:, :num_queries], x)

    def attend(self, queries: Float[Tensor, "b q d"], x: Float[Tensor, "b n d"]) -> Float[Tensor, "b q d"]:
        """Return what each of `queries` reads from the tokens `x`."""
        query = self._heads(self.query(queries))
        bias = None if self.relative is None else self.relative(query) * query.shape[-1] ** -0.5
        attended = functional.scaled_dot_product_attention(
            query, self._heads(self.key(x)), self._heads(self.value(x)), attn_mask=bias
        )
        return self.out(attended.transpose(1, 2).flatten(2))

    def weights(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b m n n"]:
        """Return the attention probabilities of every head: softmax(q kᵀ / √(d/m)), rows are queries."""
        query, key = self._heads(self.query(x)), self._heads(self.key(x))
        logits = query @ key.transpose(-2, -1)
        if self.relative is not None:
            logits = logits + self.relative(query)
        return torch.softmax(logits * query.shape[-1] ** -0.5, dim=-1)

    def read(self, weights: Float[Tensor, "b m n n"], x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return what every token reads from the tokens `x` with these `weights`: `forward`, where they are those of `x`."""
        return self.out((weights @ self._heads(self.value(x))).transpose(1, 2).flatten(2))

    def _heads(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b m n e"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
