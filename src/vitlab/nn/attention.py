"""Multi-head self-attention (appendix A)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class SelfAttention(nn.Module):
    """Multi-head self-attention with separate query, key and value matrices; `forward` is fused, `weights` explicit.

    The three matrices stay apart because they are initialised apart: one fused [3d, d] matrix under Xavier initialisation
    would start √2 too small.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n d"], num_queries: int | None = None) -> Float[Tensor, "b q d"]:
        """Return the attended values of the first `num_queries` tokens (all when None); every token is key and value."""
        query = self._heads(self.query(x[:, :num_queries]))
        attended = functional.scaled_dot_product_attention(query, self._heads(self.key(x)), self._heads(self.value(x)))
        return self.out(attended.transpose(1, 2).flatten(2))

    def weights(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b m n n"]:
        """Return the attention probabilities of every head: softmax(q kᵀ / √(d/m)), rows are queries."""
        query, key = self._heads(self.query(x)), self._heads(self.key(x))
        return torch.softmax(query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5, dim=-1)

    def _heads(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b m n e"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
