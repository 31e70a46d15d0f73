import pytest
import torch
from torch.nn import functional

from vitlab.nn.encoder import MLP, Block, BlockSettings, Branch, Encoder


def block(**changes):
    torch.manual_seed(0)
    return Block(BlockSettings(8, 2, 16, **changes))


@pytest.mark.parametrize(("activation", "approximate"), [("gelu_tanh", "tanh"), ("gelu", "none")])
def test_the_activation_is_the_form_of_gelu_asked_for(activation, approximate):
    torch.manual_seed(0)
    mlp, tokens = MLP(8, 16, activation, 0.0), torch.randn(2, 3, 8)
    expected = mlp.out(functional.gelu(mlp.hidden(tokens), approximate=approximate))
    assert torch.equal(mlp(tokens), expected)


def test_a_block_is_pre_norm_with_two_residuals():
    layer, tokens = block(), torch.randn(2, 3, 8)
    attended = tokens + layer.attention(layer.norm1(tokens))
    torch.testing.assert_close(layer(tokens), attended + layer.mlp(layer.norm2(attended)))


def test_the_encoder_normalises_after_the_last_block():
    layers = [block(), block()]
    encoder, tokens = Encoder(layers, 8, 1e-6), torch.randn(2, 3, 8)
    torch.testing.assert_close(encoder(tokens), encoder.norm(layers[1](layers[0](tokens))))
    assert encoder.layers == layers


def test_dropout_acts_in_training_and_never_in_evaluation():
    layer, tokens = block(dropout=0.5), torch.randn(2, 3, 8)
    plain = block()(tokens)
    layer.train()
    assert not torch.equal(layer(tokens), layer(tokens))
    layer.eval()
    assert torch.equal(layer(tokens), plain)


def test_without_dropout_training_computes_what_evaluation_does():
    layer, tokens = block(), torch.randn(2, 3, 8)
    assert torch.equal(layer.train()(tokens), layer.eval()(tokens))


def test_the_norm_uses_the_epsilon_asked_for():
    tiny = torch.randn(1, 2, 8) * 1e-3
    assert not torch.allclose(block(norm_eps=1e-2)(tiny), block(norm_eps=1e-12)(tiny), atol=1e-4)


def test_attention_weights_are_those_of_the_tokens_that_enter_the_block():
    position = torch.nn.Linear(8, 8)
    torch.manual_seed(0)
    layer, tokens = Block(BlockSettings(8, 2, 16), position=position), torch.randn(2, 3, 8)
    torch.testing.assert_close(layer.attention_weights(tokens), layer.attention.weights(layer.norm1(position(tokens))))


def test_stochastic_depth_leaves_whole_branches_out_and_keeps_their_mean():
    branch, ones = Branch(4, 0.25, layer_scale=False).train(), torch.ones(20_000, 1, 4)
    torch.manual_seed(0)
    dropped = branch(ones)
    per_image = dropped[:, 0]
    assert sorted(per_image.unique().tolist()) == pytest.approx([0.0, 1 / 0.75])
    assert bool((per_image == per_image[:, :1]).all())
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(branch.eval()(ones), ones)


def test_layer_scale_multiplies_each_channel():
    branch = Branch(3, 0.0, layer_scale=True)
    torch.nn.init.constant_(branch.scale, 0.5)
    assert torch.equal(branch(torch.ones(2, 1, 3)), torch.full((2, 1, 3), 0.5))


@pytest.mark.parametrize("changes", [{}, {"layer_scale": True}, {"relative_tokens": 5}, {"qkv_bias": False}])
def test_a_block_with_explicit_attention_is_the_block(changes):
    whole = block(**changes)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
        tokens = torch.randn(2, 5, 8)
        weights, after = whole.explicit(tokens)
        torch.testing.assert_close(weights, whole.attention_weights(tokens))
        torch.testing.assert_close(after, whole(tokens), atol=1e-5, rtol=1e-5)
