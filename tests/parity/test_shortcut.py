"""The last block computes only the tokens that the pooling reads: the same logits and gradients as the whole computation."""

import pytest
import torch

from vitlab.nn.pooling import Mean


def gradients(model, images, labels, whole):
    """Return logits and gradients, by the model's own forward pass or by encoding every token."""
    model.zero_grad(set_to_none=True)
    logits = model.head(model.pool(model.encode(model.embed(images)))) if whole else model(images)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    return logits.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("changes", [{}, {"depth": 1}, {"representation_dim": 5}, {"num_heads": 4, "depth": 3}])
def test_leaving_out_unread_tokens_changes_no_logit_and_no_gradient(make_model, agree, changes):
    model = make_model(**changes).double()
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 2, 1])
    logits, short = gradients(model, images, labels, whole=False)
    expected, whole = gradients(model, images, labels, whole=True)
    agree("token pooling, float64, logits", logits, expected, atol=1e-12)
    assert all(float(gradient.abs().max()) > 0 for gradient in whole.values())
    for name, gradient in whole.items():
        agree("token pooling, float64, gradients", short[name], gradient, atol=1e-12)


def test_the_first_tokens_are_those_of_the_whole_encoding(make_model):
    model = make_model(pool=Mean()).double()
    tokens = torch.randn(2, 4, 16, dtype=torch.float64)
    with torch.inference_mode():
        whole = model.encode(tokens)
        for count in (1, 2, 3, 4):
            torch.testing.assert_close(model.encode(tokens, count), whole[:, :count], rtol=0, atol=1e-12)
