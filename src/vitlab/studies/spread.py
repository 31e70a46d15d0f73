"""Spread: an accuracy over several seeds or draws, as a table shows it, and what a difference has to exceed to count as one."""

from collections.abc import Iterable

from vitlab.evals.interval import OverRuns


def percent(found: OverRuns | None) -> str:
    """Return an accuracy in percent, with its deviation where there is one; nothing for what was not measured."""
    if found is None:
        return ""
    return f"{100 * found.mean:.1f}" + ("" if found.std is None else f" ± {100 * found.std:.1f}")


def typical_deviation(found: Iterable[OverRuns]) -> float:
    """Return the root mean square of deviations, 0 without any: what a difference must exceed to count."""
    squares = [each.std**2 for each in found if each.std is not None]
    return (sum(squares) / len(squares)) ** 0.5 if squares else 0.0
