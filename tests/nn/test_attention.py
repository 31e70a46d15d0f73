import pytest
import torch

from vitlab.nn.attention import SelfAttention


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return SelfAttention(width=12, num_heads=3)


def by_hand(attention, tokens):
    """Attend one head at a time, from the parameters: the values weighted by softmax(q kᵀ / √(d/m))."""
    heads = []
    for head in range(3):
        rows = slice(4 * head, 4 * head + 4)
        query, key, value = (
            tokens @ layer.weight[rows].T + layer.bias[rows]
            for layer in (attention.query, attention.key, attention.value)
        )
        heads.append(torch.softmax(query @ key.transpose(1, 2) / 2.0, dim=-1) @ value)
    return attention.out(torch.cat(heads, dim=-1))


def test_the_fused_computation_is_that_by_hand(attention):
    tokens = torch.randn(2, 5, 12)
    torch.testing.assert_close(attention(tokens), by_hand(attention, tokens))


def test_the_explicit_weights_are_those_that_the_fused_computation_uses(attention):
    tokens = torch.randn(2, 5, 12)
    weights = attention.weights(tokens)
    assert weights.shape == (2, 3, 5, 5)
    values = attention.value(tokens).unflatten(-1, (3, 4)).transpose(1, 2)
    mixed = (weights @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(tokens), attention.out(mixed))


def test_every_row_of_the_weights_is_a_distribution(attention):
    weights = attention.weights(3 * torch.randn(4, 7, 12))
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(4, 3, 7))


def test_fewer_queries_give_the_first_rows_of_the_whole(attention):
    tokens = torch.randn(2, 5, 12)
    for count in (1, 3, 5):
        torch.testing.assert_close(attention(tokens, count), attention(tokens)[:, :count])


def test_the_order_of_the_other_tokens_does_not_matter(attention):
    tokens = torch.randn(1, 6, 12)
    shuffled = tokens[:, [0, 4, 2, 5, 1, 3]]
    torch.testing.assert_close(attention(shuffled, 1), attention(tokens, 1))


def test_without_qkv_bias_only_the_output_has_one():
    attention = SelfAttention(8, 2, qkv_bias=False)
    assert [name for name, _ in attention.named_parameters() if name.endswith("bias")] == ["out.bias"]
