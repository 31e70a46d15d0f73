import pytest
import torch

from tests.contract.checks import check_backward, check_forward, check_independent, check_learning
from vitlab.config import parse, to_json
from vitlab.models.classifier import build, empty


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


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_every_model_runs_in_low_precision(model, dtype):
    """As training does it on an accelerator: the parameters stay as they are."""
    images = torch.randn(2, 3, *model.settings.image_size)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        assert bool(model(images).isfinite().all())
