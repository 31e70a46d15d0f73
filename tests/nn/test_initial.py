import math

import pytest
import torch
from torch import nn

from vitlab.models.classifier import build, empty
from vitlab.nn.initial import constant, initialise, lecun_normal, normal, vit_table, xavier_uniform
from vitlab.nn.pooling import Mean


def values(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_every_parameter_is_written(make_settings):
    settings = make_settings(representation_dim=6)
    assert all(bool(value.isfinite().all()) for value in values(build(settings)).values())


def test_the_same_seed_gives_the_same_values_and_another_seed_others(make_settings):
    first, again, other = (values(build(make_settings(), seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.projection.weight"], other["stem.projection.weight"])


def test_values_do_not_depend_on_the_global_generator(make_settings):
    torch.manual_seed(1)
    first, state = values(build(make_settings())), torch.get_rng_state()
    torch.manual_seed(2)
    assert all(torch.equal(first[name], value) for name, value in values(build(make_settings())).items())
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("changes", [{"depth": 3}, {"representation_dim": 16}, {"num_classes": None}, {"pool": Mean()}])
def test_adding_or_removing_parameters_changes_no_other(make_settings, changes):
    before, after = values(build(make_settings())), values(build(make_settings(**changes)))
    shared = {name for name in before.keys() & after.keys() if before[name].shape == after[name].shape}
    assert before.keys() != after.keys()
    assert len(shared) > 30
    assert all(torch.equal(before[name], after[name]) for name in shared)


def test_no_two_parameters_share_their_values(make_settings):
    drawn = [value.flatten() for name, value in values(build(make_settings())).items() if "attention" in name]
    weights = [value for value in drawn if float(value.abs().max()) > 0]
    assert len(weights) == 8
    assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])


def test_a_parameter_without_an_initialiser_is_named():
    with pytest.raises(ValueError, match="no initialiser for the parameter 'scale'"):
        initialise(nn.ParameterDict({"scale": torch.zeros(2, device="meta")}), {"scal": constant(1.0)}, seed=0)


def test_a_parameter_that_an_initialiser_leaves_unwritten_is_named():
    with pytest.raises(ValueError, match="'scale' was left unwritten"):
        initialise(
            nn.ParameterDict({"scale": torch.zeros(2, device="meta")}),
            {"scale": lambda tensor, generator: None},
            seed=0,
        )


def test_a_module_without_memory_is_given_some(make_settings):
    model = empty(make_settings())
    assert all(parameter.is_meta for parameter in model.parameters())
    initialise(model, vit_table(0.0), seed=0)
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_the_head_starts_at_zero_with_the_bias_asked_for(make_settings):
    head = build(make_settings(head_bias=-10.0)).head
    assert torch.equal(head.weight, torch.zeros(3, 16))
    assert torch.equal(head.bias, torch.full((3,), -10.0))


@pytest.mark.parametrize(
    ("write", "std", "bound"),
    [
        (lecun_normal, math.sqrt(1 / 300), 2 * math.sqrt(1 / 300) / 0.8796256610342398),
        (xavier_uniform, math.sqrt(2 / 500), math.sqrt(6 / 500)),
        (normal(0.02), 0.02, math.inf),
    ],
)
def test_an_initialiser_has_the_deviation_and_the_bound_of_its_name(write, std, bound):
    tensor = torch.full((200, 300), math.nan)
    write(tensor, torch.Generator().manual_seed(0))
    assert float(tensor.std()) == pytest.approx(std, rel=0.02)
    assert abs(float(tensor.mean())) < 6 * std / math.sqrt(tensor.numel())
    assert float(tensor.abs().max()) <= bound * (1 + 1e-6)
