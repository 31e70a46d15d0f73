"""Compares layers compiled by the backend that is its argument with the plain ones.

A program of its own, for torch.compile cannot read functions that check shapes.
"""

import sys

import torch

from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.patches import Patches
from vitlab.train.config import TrainSettings
from vitlab.train.preparation import prepared, uncompiled

SMALL = {"width": 16, "num_heads": 2, "mlp_dim": 32, "num_classes": 3, "image_size": (16, 16)}
VIT = ViTSettings(stem=Patches(patch_size=(8, 8)), depth=3, **SMALL)
RESNET = ResNetSettings(image_size=(32, 32), depths=(2, 1), root_width=32, num_classes=3)


def step(model):
    images = torch.randn(2, 3, *model.settings.image_size, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(5)
    model.train().zero_grad(set_to_none=True)
    output = model(images)
    output.square().sum().backward()
    return [output.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def programs():
    """Return how many programs were made so far."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def compare(settings, *, remat, same_numbers=True):
    """Make a step compiled and one plain, and look at what is left behind."""
    torch._dynamo.reset()
    model = build(settings, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    names, expected = list(model.state_dict()), step(model)
    training = TrainSettings(compile=True, remat=remat)
    with prepared(model, training):
        before = programs()
        found = step(model)
        after = programs()
        assert list(model.state_dict()) == names
        with uncompiled(training), torch.inference_mode():
            model.eval()(torch.randn(7, 3, *settings.image_size))  # another size and mode, and no program for it
        assert programs() == after
    for new, old in zip(found, expected, strict=True) if same_numbers else ():
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(new, old) for new, old in zip(step(model), expected, strict=True))  # plain again
    return after - before


def main():
    compiled = torch.nn.Module.compile
    torch.nn.Module.compile = lambda module: compiled(module, backend=sys.argv[1])
    assert compare(VIT, remat=False) == 2  # one for all blocks but the last, which computes the class token alone
    assert 0 < compare(RESNET, remat=False) <= 3
    # not a program for each of the rates, of which torch would give up at the eighth; their random numbers are others
    deep = VIT.model_copy(update={"stochastic_depth": 0.4, "depth": 10})
    assert compare(deep, remat=True, same_numbers=False) <= 3
    print("the same")


if __name__ == "__main__":
    main()
