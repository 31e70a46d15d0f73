"""Comparison with golden arrays; the largest error of every case is printed at the end."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

PROPERTY = "parity"


@pytest.fixture
def agree(record_property: Callable[[str, Any], None]) -> Callable[..., None]:
    """Compare with golden values within a tolerance, and record the error for the table.

    The error of a case is its largest difference over its largest expected magnitude, all its arrays together: what is zero but
    for rounding, as the gradient of a key's bias, is small beside the rest and not in itself.
    """

    def compare(case: str, actual: Any, expected: Any, *, atol: float = 0.0, rtol: float = 0.0) -> None:
        actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
        expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else np.asarray(expected)
        assert actual.shape == expected.shape, f"{case}: shape {actual.shape}, expected {expected.shape}"
        difference = float(np.abs(actual.astype(np.float64) - expected).max(initial=0.0))
        size = float(np.abs(expected).max(initial=0.0))
        record_property(PROPERTY, [case, difference, size])
        np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol, err_msg=case)

    return compare


@pytest.fixture(scope="session")
def to_images() -> Callable[[np.ndarray], torch.Tensor]:
    """Golden images are [b, h, w, c]; ours are [b, c, h, w]."""
    return lambda images: torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the largest error that each case recorded."""
    largest: dict[str, tuple[float, float]] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        for name, value in getattr(report, "user_properties", []):
            if name == PROPERTY and report.when == "call":
                case, difference, size = value
                before = largest.get(case, (0.0, 0.0))
                largest[case] = (max(before[0], difference), max(before[1], size))
    if largest:
        terminalreporter.section("parity: case, largest relative error")
        width = max(map(len, largest))
        for case, (difference, size) in sorted(largest.items()):
            terminalreporter.write_line(f"{case:<{width}}  {difference / (size or 1.0):.1e}")
