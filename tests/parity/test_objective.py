"""Losses, schedules and clipping against big_vision, the official code and optax."""

import numpy as np
import pytest
import torch
from torch import nn

from vitlab.train.objective import Sigmoid, Softmax
from vitlab.train.optimizer import clip_by_global_norm
from vitlab.train.schedule import Cosine, Linear

OBJECTIVES = {"softmax": Softmax(), "sigmoid": Sigmoid()}
SCHEDULES = ["cosine_T100_W10", "linear_T100_W10", "cosine_T60_W0", "linear_T75_W25_end", "cosine_T500_W125"]


def expected_loss(objective, logits, targets):
    """The loss for targets that sum to one: both losses are linear in them."""
    classes = range(logits.shape[1])
    each = [objective.losses(logits, torch.full((len(logits),), label, dtype=torch.int64)) for label in classes]
    return (torch.stack(each, dim=1) * targets).sum(dim=1)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_of_a_label_is_the_reference_loss(golden, agree, name):
    case = golden("big_vision/losses")
    arrays = {key: torch.from_numpy(array) for key, array in case.arrays("npz").items()}
    losses = OBJECTIVES[name].losses(arrays["logits"], arrays["onehot"].argmax(dim=1))
    agree(f"{case.name} {name}", losses, arrays[f"{name}_xent_onehot"], **case.tolerance)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_of_mixed_labels_is_the_reference_loss(golden, agree, name):
    case = golden("big_vision/losses")
    arrays = {key: torch.from_numpy(array) for key, array in case.arrays("npz").items()}
    losses = expected_loss(OBJECTIVES[name], arrays["logits"], arrays["mixed"])
    agree(f"{case.name} {name} mixed", losses, arrays[f"{name}_xent_mixed"], **case.tolerance)


@pytest.mark.parametrize(("name", "targets"), [("sigmoid", "onehot"), ("sigmoid", "mixed"), ("softmax", "mixed")])
def test_the_gradient_of_the_mean_loss_is_the_reference_gradient(golden, agree, name, targets):
    case = golden("big_vision/losses")
    arrays = {key: torch.from_numpy(array) for key, array in case.arrays("npz").items()}
    logits = arrays["logits"].requires_grad_()
    expected_loss(OBJECTIVES[name], logits, arrays[targets]).mean().backward()
    want = arrays[f"grad_{name}_xent_mean_{targets}"]
    agree(f"{case.name} {name} gradient", logits.grad, want, **case.tolerance)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_learning_rate_is_the_official_one_at_every_step(golden, agree, name):
    case = golden(f"optim/sched_official_{name}")
    config, arrays = case.config, case.arrays("npz")
    warmup = config["warmup_steps"]
    schedules = {"cosine": Cosine(warmup_steps=warmup), "linear": Linear(warmup_steps=warmup, end=config["linear_end"])}
    schedule = schedules[config["decay_type"]]
    rates = [schedule.rate(int(step), config["total_steps"], config["base"]) for step in arrays["step"]]
    agree(case.name, rates, arrays["lr"], rtol=case.tolerance["rtol"], atol=1e-7 * config["base"])


def test_clipping_is_that_of_optax(golden, agree):
    case = golden("optim/clip")
    arrays = case.arrays("npz")
    gradients = {name.removeprefix("grad:"): array for name, array in arrays.items() if name.startswith("grad:")}
    assert (arrays["max_norms"] < arrays["global_norm"]).any() and (arrays["max_norms"] > arrays["global_norm"]).any()
    for index, limit in enumerate(arrays["max_norms"]):
        model = nn.ParameterList(nn.Parameter(torch.zeros(array.shape)) for array in gradients.values())
        for parameter, array in zip(model, gradients.values(), strict=True):
            parameter.grad = torch.from_numpy(array.copy())
        norm = clip_by_global_norm(model.parameters(), float(limit))
        agree(case.name, norm, arrays["global_norm"], **case.tolerance)
        for parameter, name in zip(model, gradients, strict=True):
            agree(case.name, parameter.grad, arrays[f"clipped{index}:{name}"], **case.tolerance)


def test_without_a_limit_the_gradient_stays_and_its_norm_is_returned(golden):
    gradient = torch.from_numpy(golden("optim/clip").arrays("npz")["grad:a/kernel"].copy())
    model = nn.Linear(7, 5, bias=False)
    model.weight.grad = gradient.clone()
    norm = clip_by_global_norm(model.parameters(), None)
    assert float(norm) == pytest.approx(float(np.linalg.norm(gradient.numpy())), rel=1e-6)
    assert torch.equal(model.weight.grad, gradient)
