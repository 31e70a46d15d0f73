"""The few-shot solve at ImageNet's size: class sums against one-hot targets, one decomposition against a solve for every l2."""

import numpy as np
import torch
from timing import Row, compare

from vitlab.evals.fewshot import BIAS, L2, System, solve, sweep

EXAMPLES, WIDTH, CLASSES = 10_000, 768, 1000
L2S = tuple(2.0**power for power in range(-5, 15))


def dense(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same by its formula: whitened, targets of ±1 as a matrix, the normal equations."""
    x = features.astype(np.float64)
    x = np.hstack([(x - x.mean(axis=0)) / (x.std(axis=0) + 1e-5), np.full((len(x), 1), BIAS)])
    targets = np.full((len(x), CLASSES), -1.0)
    targets[np.arange(len(x)), labels] = 1.0
    return np.linalg.solve(x.T @ x + L2 * np.eye(WIDTH + 1), x.T @ targets)


def cholesky_each(features: np.ndarray, labels: np.ndarray) -> list[torch.Tensor]:
    """A solve for every l2, of a system that is made once."""
    system = System.of(features, labels, CLASSES)
    one = torch.eye(len(system.gram), dtype=torch.float64)
    return [torch.cholesky_solve(system.right, torch.linalg.cholesky(system.gram + l2 * one)) for l2 in L2S]


def measure() -> list[Row]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), EXAMPLES // CLASSES)
    features = rng.normal(size=(EXAMPLES, WIDTH)).astype(np.float32) + rng.normal(size=(CLASSES, WIDTH))[labels]
    features = features.astype(np.float32)
    assert np.allclose(solve(features, labels, CLASSES).weights, dense(features, labels), atol=1e-9)
    each = cholesky_each(features, labels)
    for head, weights in zip(sweep(features, labels, CLASSES, L2S), each, strict=True):
        assert np.allclose(head.weights, weights.numpy(), atol=1e-9)
    size = f"{EXAMPLES:,} × {WIDTH} → {CLASSES} classes"
    return [
        compare(
            f"few-shot solve, {size}",
            "one-hot targets as a matrix",
            lambda: solve(features, labels, CLASSES),
            lambda: dense(features, labels),
            rounds=15,  # a fifth of a second each: others on the machine must not decide
        ),
        compare(
            f"few-shot heads for {len(L2S)} values of l2, {size}",
            "as many solves of a system made once",
            lambda: list(sweep(features, labels, CLASSES, L2S)),
            lambda: cholesky_each(features, labels),
            rounds=15,  # a fifth of a second each: others on the machine must not decide
        ),
    ]


if __name__ == "__main__":
    for row in measure():
        print(row.markdown())
