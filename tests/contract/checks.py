"""What must hold for any model, as functions that fail with an assertion."""

import re

import torch

from vitlab.data.preprocess import CentralCrop, ImageSpec
from vitlab.models.classifier import empty
from vitlab.weights.load import load_with_report
from vitlab.weights.save import save, to_bytes

SILENT = re.compile(r".*attention\.key\.bias")
"""The softmax over keys does not see what is added to all of them alike: these have no gradient, in any ViT."""
POSITION = re.compile(r"(.*\.)?position\.\w+|.*\.relative(\.table)?")


def images_of(model, count=3):
    """Return `count` random images in the size of `model`."""
    return torch.randn(count, 3, *model.settings.image_size, generator=torch.Generator().manual_seed(1))


def outputs_of(model):
    """Return how many numbers `model` makes of an image: logits, or features where there is no head."""
    return model.settings.num_classes or model.features(images_of(model, 1)).shape[1]


def check_forward(model):
    images = images_of(model)
    logits = model(images)
    assert logits.shape == (3, outputs_of(model))
    assert bool(logits.isfinite().all())
    assert torch.equal(model(images), logits), "not the same twice"
    assert not torch.allclose(logits[0], logits[1], atol=1e-4), "two images cannot be told apart"
    torch.testing.assert_close(model.head(model.features(images)), logits)


def check_independent(model):
    """An image's logits are its own: the same alone, in any place, and beside any other images."""
    images = images_of(model).requires_grad_()
    logits = model(images)
    for place in range(3):
        torch.testing.assert_close(model(images[place : place + 1]), logits[place : place + 1], atol=1e-5, rtol=1e-5)
    logits[1].sum().backward()
    assert bool((images.grad[1] != 0).any())
    assert bool((images.grad[[0, 2]] == 0).all())


def check_backward(model):
    """Every parameter has a finite gradient that is somewhere not zero."""
    torch.manual_seed(0)
    images = images_of(model, 8)
    target = torch.randn(8, outputs_of(model))
    model.train()
    (model(images) - target).square().mean().backward()
    model.eval()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"'{name}' has no gradient"
        assert bool(parameter.grad.isfinite().all()), f"'{name}' has a gradient that is not finite"
        if not SILENT.fullmatch(name):
            assert parameter.grad.abs().max() > 1e-7, f"'{name}' has a gradient of zero"


def check_learning(model, rate):
    """Three steps of gradient descent on one batch lower its loss."""
    torch.manual_seed(0)
    images = images_of(model, 8)
    target = torch.randn(8, outputs_of(model))
    optimizer = torch.optim.SGD(model.parameters(), rate)

    def loss():
        return (model(images) - target).square().mean()

    before = loss().item()
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().isfinite() and model.eval()(images).isfinite().all()
    assert loss().item() < before


def parameters_of(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def assert_same_parameters(found, wanted):
    assert list(found) == list(wanted)
    wrong = [n for n in wanted if found[n].dtype != wanted[n].dtype or not torch.equal(found[n], wanted[n])]
    assert wrong == []


def dress(model):
    """Give `model` an image transform and class names unlike the defaults."""
    size, classes = model.settings.image_size, model.settings.num_classes or 0
    model.image_spec = ImageSpec(
        height=size.height,
        width=size.width,
        fit=CentralCrop(fraction=0.9),
        interpolation="bicubic",
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),
    )
    model.classes = tuple(f"class {number} é" for number in range(classes))
    return model


def check_file(model, folder):
    """A file gives the model back to the last bit, and its bytes depend on nothing else."""
    model, images = dress(model), images_of(model)
    with torch.no_grad():
        logits = model(images)
    save(model, folder / "model.safetensors")
    loaded, report = load_with_report(folder / "model.safetensors").model.eval(), None
    report = load_with_report(folder / "model.safetensors").report
    assert report.lines() == [f"{len(parameters_of(model))} parameters matched"]
    assert type(loaded) is type(model)
    assert (loaded.settings, loaded.image_spec, loaded.classes) == (model.settings, model.image_spec, model.classes)
    assert_same_parameters(parameters_of(loaded), parameters_of(model))
    with torch.no_grad():
        assert torch.equal(loaded(images), logits)
    written = (folder / "model.safetensors").read_bytes()
    assert to_bytes(model) == written and to_bytes(loaded) == written


def depend_on_size(model, size):
    """Return the names of the parameters whose shape is another for `size`; they are all positions."""
    there = model.settings.model_copy(update={"image_size": size})
    shapes = {name: parameter.shape for name, parameter in empty(there).named_parameters()}
    assert list(shapes) == list(parameters_of(model))
    names = [name for name, parameter in parameters_of(model).items() if parameter.shape != shapes[name]]
    assert [name for name in names if not POSITION.fullmatch(name)] == []
    return names


def check_resize(model, folder, size):
    """Loading for images of `size` changes the positions whose grid is another, and nothing else."""
    save(dress(model), folder / "model.safetensors")
    resized, report = (loaded := load_with_report(folder / "model.safetensors", image_size=size)).model, loaded.report
    names = depend_on_size(model, size)
    assert resized.settings == model.settings.model_copy(update={"image_size": size})
    assert resized.image_spec == model.image_spec.model_copy(update={"height": size.height, "width": size.width})
    assert resized.classes == model.classes
    assert [line.split()[0] for line in report.resized] == names
    before, after = parameters_of(model), parameters_of(resized)
    assert report.matched == [name for name in before if name not in names]
    assert report.replaced == report.dropped == report.missing == report.extra == []
    assert [name for name in report.matched if not torch.equal(before[name], after[name])] == []
    with torch.no_grad():
        logits = resized.eval()(images_of(resized))
    assert logits.shape == (3, outputs_of(resized)) and bool(logits.isfinite().all())
    return resized
