import pytest
import torch
from torch import nn

from vitlab.train.average import adopt, copy, decay_at, swapped, update


def model_of(values, frozen=()):
    model = nn.ParameterDict({name: nn.Parameter(torch.tensor(value)) for name, value in values.items()})
    for name in frozen:
        model[name].requires_grad_(False)
    return model


def named(model):
    return model.named_parameters()


def test_the_average_is_that_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(30, 7, dtype=torch.float64, generator=generator)
    model = model_of({"weight": torch.zeros(7).tolist()})
    average, expected = copy(named(model)), torch.zeros(7, dtype=torch.float64)
    for step, values in enumerate(steps):
        with torch.no_grad():
            model["weight"].copy_(values)
        kept = min(0.8, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * values
        update(average, named(model), decay_at(step, 0.8))
    torch.testing.assert_close(average["weight"].double(), expected, rtol=1e-5, atol=1e-6)


def test_the_first_weights_count_less_than_the_factor_alone_would_have_it():
    left = 1.0
    for step in range(500):
        left *= decay_at(step, 0.9999)
    assert left < 1e-10
    assert decay_at(0, 0.9999) == 0.1 and decay_at(10**6, 0.9999) == 0.9999 and decay_at(0, 0.05) == 0.05


def test_a_refused_update_leaves_the_average_as_it_is():
    model = model_of({"a": [1.0, 2.0], "b": [[3.0]]})
    average = copy(named(model))
    with torch.no_grad():
        for parameter in model.values():
            parameter += 1.0
    update(average, named(model), 0.5, skip=torch.tensor(1.0))
    assert average["a"].tolist() == [1.0, 2.0] and average["b"].tolist() == [[3.0]]
    update(average, named(model), 0.5, skip=torch.tensor(0.0))
    assert average["a"].tolist() == [1.5, 2.5] and average["b"].tolist() == [[3.5]]


def test_skipping_nothing_is_the_same_as_not_asking():
    torch.manual_seed(0)
    model = model_of({"a": torch.randn(5).tolist()})
    first, second = copy(named(model)), copy(named(model))
    for _ in range(5):
        with torch.no_grad():
            model["a"].copy_(torch.randn(5))
        update(first, named(model), 0.9)
        update(second, named(model), 0.9, skip=torch.zeros(()))
    torch.testing.assert_close(first["a"], second["a"], rtol=1e-6, atol=1e-7)


def test_weights_of_less_precision_are_averaged_in_float32():
    model = nn.ParameterDict({"a": nn.Parameter(torch.ones(1, dtype=torch.bfloat16))})
    average = copy(named(model))
    assert average["a"].dtype == torch.float32
    with torch.no_grad():
        model["a"] += 1
    update(average, named(model), 0.9999)
    assert 1 < average["a"].item() < 1.001
    with swapped(named(model), average):
        assert model["a"].item() == 1.0
    assert model["a"].item() == 2.0


def test_the_model_has_the_average_within_the_context_and_its_own_weights_after_it():
    model = model_of({"a": [1.0], "b": [2.0]}, frozen=["b"])
    average = copy(named(model))
    assert set(average) == {"a"}, "what is frozen is its own average"
    average["a"] += 10
    with swapped(named(model), average):
        assert model["a"].item() == 11.0 and model["b"].item() == 2.0
    assert model["a"].item() == 1.0 and average["a"].item() == 11.0
    with pytest.raises(KeyError), swapped(named(model), average):
        raise KeyError
    assert model["a"].item() == 1.0
    with swapped(named(model), {}):
        assert model["a"].item() == 1.0
    adopt(named(model), average)
    assert model["a"].item() == 11.0 and model["b"].item() == 2.0
