"""Compares compiled layers with the plain ones; a program of its own, for torch.compile cannot read functions that check shapes."""

import sys

import torch

from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.patches import Patches
from vitlab.train.config import TrainSettings
from vitlab.train.preparation import prepared, uncompiled

SMALL = {"width": 16, "num_heads": 2, "mlp_dim": 32, "num_classes": 3, "image_size": (16, 16)}
VIT = ViTSettings(stem=Patches(patch_size=(8, 8)), depth=3, stochastic_depth=0.4, **SMALL)
RESNET = ResNetSettings(image_size=(32, 32), depths=(2, 1), root_width=32, num_classes=3)


def step(model):
    images = torch.randn(2, 3, *model.settings.image_size, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(5)
    model.train().zero_grad(set_to_none=True)
    output = model(images)
    output.square().sum().backward()
    return [output.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def main():
    for settings, remat in ((VIT.model_copy(update={"stochastic_depth": 0.0}), False), (VIT, True), (RESNET, False)):
        model = build(settings, seed=1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        names, expected = list(model.state_dict()), step(model)
        training = TrainSettings(compile=True, remat=remat)
        with prepared(model, training):
            before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            found = step(model)
            compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"] - before
            assert list(model.state_dict()) == names
            with uncompiled(training), torch.inference_mode():
                model.eval()(
                    torch.randn(7, 3, *settings.image_size)
                )  # another size, another mode, and no program for it
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before == compiled
        if settings.type == "ViT" and settings.stochastic_depth:
            continue  # the random numbers of a program are others than those of the plain layers
        for new, old in zip(found, expected, strict=True):
            torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)
        print(settings.type, compiled)
        assert all(torch.equal(new, old) for new, old in zip(step(model), expected, strict=True))  # plain again


if __name__ == "__main__":
    sys.exit(main())
