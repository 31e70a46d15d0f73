import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitlab.train.optimizer import SGD, Adam, build_optimizer, clip_by_global_norm
from vitlab.train.step import train_step

KERNELS = {
    "stem.projection.weight", "encoder.blocks.0.attention.query.weight", "encoder.blocks.0.attention.key.weight",
    "encoder.blocks.0.attention.value.weight", "encoder.blocks.0.attention.out.weight",
    "encoder.blocks.1.mlp.hidden.weight", "encoder.blocks.1.mlp.out.weight", "head.weight",
}  # fmt: skip


def decayed(optimizer, model):
    """Return the names of the parameters that the optimizer decays, and check that it holds every one once."""
    groups = [group for group in optimizer.param_groups for _ in group["params"]]
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    rates = dict(zip(held, (group["weight_decay"] for group in groups), strict=True))
    return {name: rates[id(parameter)] for name, parameter in model.named_parameters() if rates[id(parameter)]}


@pytest.mark.parametrize("kind", [Adam, SGD])
def test_kernels_decay_and_biases_norms_class_token_and_positions_do_not(make_state, kind):
    model = make_state().model
    found = decayed(build_optimizer(kind(weight_decay=0.25), model.named_parameters()), model)
    assert set(found) >= KERNELS and set(found.values()) == {0.25}
    assert all(name.endswith(".weight") and "norm" not in name for name in found)
    assert not {"class_token", "position.table", "head.bias"} & set(found)


@pytest.mark.parametrize("kind", [Adam, SGD])
def test_all_decays_everything(make_state, kind):
    model = make_state().model
    found = decayed(build_optimizer(kind(weight_decay=0.25, decay="all"), model.named_parameters()), model)
    assert set(found) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("kind", [Adam, SGD])
def test_no_decay_means_none(make_state, kind):
    model = make_state().model
    assert decayed(build_optimizer(kind(weight_decay=0.0), model.named_parameters()), model) == {}


def update(settings, value, gradients, rate):
    """Return a single weight after updates with `gradients`."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False, dtype=torch.float64))
    weight = model.get_parameter("0.weight")
    nn.init.constant_(weight, value)
    optimizer = build_optimizer(settings, model.named_parameters())
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return weight.item()


def test_adam_is_the_published_update_with_decay_apart_from_the_gradient():
    value, first, second = 2.0, 0.0, 0.0
    for step, gradient in enumerate([0.5, -2.0, 0.25], 1):
        value *= 1 - 0.1 * 0.3
        first, second = 0.8 * first + 0.2 * gradient, 0.95 * second + 0.05 * gradient**2
        value -= 0.1 * (first / (1 - 0.8**step)) / ((second / (1 - 0.95**step)) ** 0.5 + 1e-6)
    chosen = Adam(beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.3)
    assert update(chosen, 2.0, [0.5, -2.0, 0.25], 0.1) == pytest.approx(value, rel=1e-9)


def test_sgd_is_heavy_ball_momentum():
    value, speed = 2.0, 0.0
    for gradient in [0.5, -2.0, 0.25]:
        speed = 0.9 * speed + gradient
        value -= 0.1 * speed
    assert update(SGD(), 2.0, [0.5, -2.0, 0.25], 0.1) == pytest.approx(value, rel=1e-12)


def with_gradients(values):
    model = nn.ParameterList([nn.Parameter(torch.zeros(len(row))) for row in values])
    for parameter, row in zip(model, values, strict=True):
        parameter.grad = torch.tensor(row)
    return model


def test_clipping_scales_by_exactly_the_limit_over_the_norm():
    model = with_gradients([[3.0, 0.0], [0.0, 4.0]])
    assert clip_by_global_norm(model.parameters(), 1.0).item() == 5.0
    factor = torch.tensor(1.0) / torch.tensor(5.0)
    assert torch.equal(model[0].grad, torch.tensor([3.0, 0.0]) * factor)
    assert torch.equal(model[1].grad, torch.tensor([0.0, 4.0]) * factor)


@pytest.mark.parametrize("limit", [None, 5.0, 6.0])
def test_gradients_within_the_limit_are_left_as_they_are(limit):
    model = with_gradients([[3.0, 0.0], [0.0, 4.0]])
    assert clip_by_global_norm(model.parameters(), limit).item() == 5.0
    assert model[0].grad.tolist() == [3.0, 0.0] and model[1].grad.tolist() == [0.0, 4.0]


def test_gradients_of_zero_stay_zero():
    model = with_gradients([[0.0, 0.0]])
    assert clip_by_global_norm(model.parameters(), 1.0).item() == 0.0
    assert model[0].grad.tolist() == [0.0, 0.0]


def test_parameters_without_a_gradient_are_passed_over():
    model = with_gradients([[3.0], [4.0]])
    model[0].grad = None
    assert clip_by_global_norm(model.parameters(), 1.0).item() == 4.0
    assert model[0].grad is None and model[1].grad.tolist() == [1.0]


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=5), min_size=1), st.floats(0.01, 100))
def test_the_norm_after_clipping_is_the_smaller_of_norm_and_limit(values, limit):
    model = with_gradients(values)
    before = clip_by_global_norm(model.parameters(), limit).item()
    after = torch.cat([parameter.grad for parameter in model]).double().norm().item()
    assert after == pytest.approx(min(before, limit), rel=1e-5, abs=1e-18)  # squares of less vanish in float32


def test_every_group_has_the_scale_of_its_parameters(make_state):
    model = make_state().model
    scales = {name: 0.5 if name.startswith("stem") else 1.0 for name, _ in model.named_parameters()}
    for decay in ("kernels", "all"):
        optimizer = build_optimizer(Adam(weight_decay=0.25, decay=decay), model.named_parameters(), scales)
        found = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
        assert {name: found[id(parameter)] for name, parameter in model.named_parameters()} == scales
        decayed(optimizer, model)
    plain = build_optimizer(Adam(), model.named_parameters())
    assert [group["lr_scale"] for group in plain.param_groups] == [1.0, 1.0]


@pytest.mark.parametrize("kind", [Adam, SGD])
def test_what_is_frozen_has_no_place_in_the_optimizer(make_state, kind):
    model = make_state().model
    model.stem.requires_grad_(False)
    optimizer = build_optimizer(kind(), model.named_parameters())
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def rounded(value):
    return torch.tensor(value).bfloat16().item()


def test_adam_rounds_its_first_moment_after_each_step_and_not_within_it():
    value, first, second = 2.0, 0.0, 0.0
    gradients = [0.5, -2.0, 0.3, 0.7]
    for step, gradient in enumerate(gradients, 1):
        first, second = 0.8 * rounded(first) + 0.2 * gradient, 0.95 * second + 0.05 * gradient**2
        value -= 0.1 * (first / (1 - 0.8**step)) / ((second / (1 - 0.95**step)) ** 0.5 + 1e-6)
    low = Adam(beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.0, moment_dtype="bfloat16")
    full = low.model_copy(update={"moment_dtype": "float32"})
    assert update(low, 2.0, gradients, 0.1) == pytest.approx(value, rel=1e-12)
    assert update(full, 2.0, gradients, 0.1) != pytest.approx(value, rel=1e-6)


def test_sgd_rounds_its_momentum_after_each_step_and_not_within_it():
    value, speed = 2.0, 0.0
    gradients = [0.5, -2.0, 0.3, 0.7]
    for gradient in gradients:
        speed = 0.9 * rounded(speed) + gradient
        value -= 0.1 * speed
    low = SGD(moment_dtype="bfloat16")
    assert update(low, 2.0, gradients, 0.1) == pytest.approx(value, rel=1e-12)
    assert update(SGD(), 2.0, gradients, 0.1) != pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(("kind", "moment"), [(Adam, "exp_avg"), (SGD, "momentum_buffer")])
def test_a_moment_of_16_bits_follows_the_curve_of_32(kind, moment, make_state, make_training, make_batch):
    curves = {}
    for dtype in ("float32", "bfloat16"):
        settings = make_training(optimizer=kind(moment_dtype=dtype), lr=0.003 if kind is Adam else 0.05, steps=60)
        state = make_state(settings)
        updates = [train_step(state, [make_batch(step % 4)], settings) for step in range(60)]
        curves[dtype] = torch.tensor([update.read(state).loss for update in updates])
        kept = [state.optimizer.state[parameter][moment] for parameter in state.model.parameters()]
        assert {tensor.dtype for tensor in kept} == {getattr(torch, dtype)}
    torch.testing.assert_close(curves["bfloat16"], curves["float32"], rtol=0.02, atol=0.01)
    assert not torch.equal(curves["bfloat16"], curves["float32"])
    assert curves["float32"][-4:].mean() < 0.7 * curves["float32"][:4].mean(), "it has learnt something"
