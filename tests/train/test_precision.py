"""In bfloat16 the loss is nearly the same, and everything that is kept stays float32."""

import pytest
import torch

from vitlab.train.precision import autocast, best_precision
from vitlab.train.step import train_step


def run(make_state, make_batch, settings, steps=3):
    state = make_state(settings)
    results = [train_step(state, [make_batch(step)], settings).read(state) for step in range(steps)]
    return state, results


def test_a_step_in_bfloat16_is_near_one_in_float32(make_state, make_batch, make_training):
    _, exact = run(make_state, make_batch, make_training(lr=0.01))
    state, half = run(make_state, make_batch, make_training(lr=0.01, precision="bfloat16"))
    assert [result.loss for result in half] != [result.loss for result in exact]
    for near, true in zip(half, exact, strict=True):
        assert near.loss == pytest.approx(true.loss, rel=0.02)
        assert near.grad_norm == pytest.approx(true.grad_norm, rel=0.05)
    kept = [*state.parameters(), *state.optimizer_tensors().values(), *(p.grad for p in state.parameters())]
    assert {tensor.dtype for tensor in kept} == {torch.float32}


def test_products_are_in_bfloat16_where_it_was_asked_for():
    a = torch.ones(2, 2)
    with autocast(torch.device("cpu"), "bfloat16"):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(torch.device("cpu"), "float32"):
        assert (a @ a).dtype == torch.float32


def test_a_cpu_computes_in_float32_unless_it_is_asked_for():
    assert best_precision(torch.device("cpu")) == "float32"
