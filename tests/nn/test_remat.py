"""A layer that is computed again gives the same bits, and remembers less."""

import pytest
import torch
from torch import nn

from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.remat import Layers, set_remat, stacks
from vitlab.nn.stem import ResNetStem

MODELS = {
    "ViT": {},
    "dropout": {"dropout": 0.3},
    "stochastic depth": {"stochastic_depth": 0.5},
    "axial": settings_for("Axial-B/16", 3, 32).model_dump(include={"attention", "position", "pool"}),
    "hybrid": {"stem": ResNetStem(depths=(1, 2), root_width=32), "image_size": (32, 32)},
}


def step(model, images):
    """Return the output and all gradients of one pass with the same random numbers."""
    model.train().zero_grad(set_to_none=True)
    torch.manual_seed(5)
    output = model(images)
    output.square().sum().backward()
    return {"output": output.detach(), **{name: p.grad.clone() for name, p in model.named_parameters()}}


def kept_bytes(model, images):
    """Return the bytes of all tensors that the forward pass keeps for the backward pass, without the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(images)
    del output
    return sum(size for size, _ in kept.values())


@pytest.fixture(params=[*MODELS, "ResNet"])
def model(request, make_model):
    if request.param == "ResNet":
        return build(ResNetSettings(image_size=(32, 32), depths=(1, 2), root_width=32, num_classes=3))
    return make_model(**MODELS[request.param])


def test_the_same_bits_with_less_memory(model):
    images = torch.randn(2, 3, *model.settings.image_size)
    names = list(model.state_dict())
    plain, remembered = step(model, images), kept_bytes(model, images)
    set_remat(model, True)
    again = step(model, images)
    assert list(model.state_dict()) == names
    assert all(torch.equal(again[name], plain[name]) for name in plain)
    assert kept_bytes(model, images) < 0.8 * remembered
    set_remat(model, False)
    assert kept_bytes(model, images) == remembered


def test_every_layer_of_a_hybrid_is_in_a_stack(make_model):
    model = make_model(**MODELS["hybrid"])
    assert sum(len(stack) for stack in stacks(model)) == model.settings.num_layers


def test_nothing_is_computed_again_without_gradients():
    class Count(nn.Module):
        calls = 0

        def forward(self, x):
            Count.calls += 1
            return x

    layers = Layers([Count(), Count()])
    layers.remat = True
    with torch.no_grad():
        layers(torch.ones(1, 2))
    assert Count.calls == 2
