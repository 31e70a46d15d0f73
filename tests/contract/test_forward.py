import pytest
import torch

from tests.contract.checks import check_backward, check_forward, check_independent, check_learning
from vitlab.config import parse, to_json
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build, empty
from vitlab.nn.position import Relative


def test_every_model_gives_finite_logits_and_the_same_twice(model):
    check_forward(model)


def test_the_logits_of_an_image_do_not_depend_on_the_others(model):
    check_independent(model)


def test_every_parameter_has_a_gradient(model):
    check_backward(model)


def test_a_fresh_model_learns(example, size):
    check_learning(build(example.settings(size)), rate=0.05)


def test_a_fresh_model_follows_from_its_settings_and_its_seed(example):
    first, again, other = (dict(build(example.settings(), seed=s).named_parameters()) for s in (0, 0, 1))
    shapes = {name: parameter.shape for name, parameter in empty(example.settings()).named_parameters()}
    assert {name: parameter.shape for name, parameter in first.items()} == shapes
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_settings_survive_json(example, size):
    settings = example.settings(size)
    assert parse(type(settings), to_json(settings), "here") == settings


def test_a_model_says_what_it_is_and_what_a_step_of_it_keeps(example, size):
    settings = example.settings(size)
    assert str(size) in settings.describe()
    assert settings.num_layers >= 2
    assert settings.floats_per_image > 3 * size.height * size.width / 64


@pytest.mark.parametrize(
    ("name", "size", "changes"),
    [
        ("S/16", 96, {}),
        ("S/8", 96, {"position": Relative()}),
        ("Axial-B/16", 96, {}),
        ("R26+S/32", 96, {}),
        ("BiT-R50x1", 96, {}),
        ("ResNet-R50x1", 96, {}),
        ("AxialResNet-50", 96, {}),
    ],
)
def test_what_a_step_keeps_is_about_what_is_said(name, size, changes):
    """What autograd stores for one more image; a run's pieces are cut by it."""
    small = {"depth": 2} if "+" in name or "/" in name else {}
    settings = settings_for(name, 10, size).model_copy(update=small | changes)
    model = build(settings)
    measured = kept(model, 2) - kept(model, 1)
    assert 0.4 * settings.floats_per_image < measured < 1.3 * settings.floats_per_image


def kept(model, images):
    """Return how many numbers the backward pass of so many images needs."""
    sizes = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model(torch.randn(images, 3, *model.settings.image_size))
    assert logits.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_every_model_runs_in_low_precision(model, dtype):
    """As training does it on an accelerator: the parameters stay as they are."""
    images = torch.randn(2, 3, *model.settings.image_size)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        assert bool(model(images).isfinite().all())
