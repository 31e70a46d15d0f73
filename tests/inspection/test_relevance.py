import pytest
import torch
from torch.nn import functional

from tests.contract.checks import images_of
from tests.contract.examples import make
from tests.contract.test_rollout import GLOBAL
from vitlab.inspection.relevance import relevance
from vitlab.nn.grid import Size

CLASSIFYING = [example for example in GLOBAL if example.settings().num_classes]


def by_autograd(model, image, number):
    """Relevance as the paper writes it: all layers' attention at once, and their gradients from one backward pass."""
    tokens, maps = model.embed(image), []
    for block in model.encoder.layers:
        x = tokens if block.position is None else block.position(tokens)
        normed = block.norm1(x)
        weights = block.attention.weights(normed)
        maps.append(weights)
        value = block.attention.value(normed).unflatten(2, (model.settings.num_heads, -1)).transpose(1, 2)
        x = x + block.branch1(block.attention.out((weights @ value).transpose(1, 2).flatten(2)))
        tokens = x + block.branch2(block.mlp(block.norm2(x)))
    logits = model.head(model.pool(model.encoder.norm(tokens)))
    slopes = torch.autograd.grad(logits[0, number], maps)
    joint = torch.eye(maps[0].shape[-1])
    for weights, slope in zip(maps, slopes, strict=True):
        joint = joint + functional.relu(weights * slope).mean(dim=1)[0] @ joint
    joint = joint - torch.eye(len(joint))
    prefix, pool = model.settings.num_prefix, model.settings.pool.type
    row = {"ClassToken": joint[0], "FirstPatch": joint[prefix]}.get(pool, joint[prefix:].mean(dim=0))
    return row[prefix:].reshape(tuple(model.settings.grid)).detach()


@pytest.mark.parametrize("example", CLASSIFYING, ids=str)
def test_it_is_what_one_backward_pass_through_all_layers_gives(example):
    model = make(example.settings(Size(43, 61)))
    image = images_of(model, 1)
    found = relevance(model, image, [3, 0])
    assert found.shape == (2, *model.settings.grid)
    expected = torch.stack([by_autograd(model, image, number) for number in (3, 0)])
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.max()), rtol=1e-4)
    assert float(expected.max()) > 0


def test_no_parameter_is_left_with_a_gradient(make_model):
    model = make_model()
    relevance(model, torch.randn(1, 3, 8, 8), [0])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_works_where_gradients_are_switched_off(make_model):
    model, image = make_model(), torch.randn(1, 3, 8, 8)
    expected = relevance(model, image, [1])
    with torch.inference_mode():
        found = relevance(model, image.clone(), [1])
    torch.testing.assert_close(found, expected)


def test_a_class_that_the_model_has_not_is_refused(make_model):
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=f"no class {wrong} among 3"):
            relevance(make_model(), torch.zeros(1, 3, 8, 8), [0, wrong])
    with pytest.raises(ValueError, match="no class 0 among 0"):
        relevance(make_model(num_classes=None), torch.zeros(1, 3, 8, 8), [0])


def test_a_planted_patch_is_found(make_model):
    """A model that copies what it sees bright: attention goes to the one patch that is, and so does relevance."""
    model = make_model(depth=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        block = model.encoder.layers[0]
        block.norm1.weight.fill_(1)
        block.norm2.weight.fill_(1)
        model.encoder.norm.weight.fill_(1)
        model.stem.projection.weight[0].fill_(1)  # the first channel is the brightness
        block.attention.key.weight[:, 0] = 1
        block.attention.query.bias.fill_(1)
        block.attention.value.weight[0, 0] = 1
        block.attention.out.weight[0, 0] = 1
        model.head.weight[2, 0] = 1
    image = torch.zeros(1, 3, 8, 8)
    image[:, :, 4:, :4] = 1
    found = relevance(model, image, [2])[0]
    assert int(found.argmax()) == 2
    assert float(found[1, 0]) > 10 * float(found.sum() - found[1, 0])
