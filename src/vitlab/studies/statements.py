"""What section 4.5 says of the inside of networks, each statement with the rule by which the measurements of `inside` are judged.

A statement is of one measurement a seed, and cannot be judged where some are missing. A difference counts where it has the same
sign with every seed and its mean is larger than its deviation over seeds.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitlab.evals.interval import bootstrap_interval, over_runs
from vitlab.studies.study import Finding, Table
from vitlab.studies.work import Result

Measured = Sequence[Result | None]
"""What was measured of trainings that differ in their seed, None where it is not finished."""
GLOBAL, LOCAL = 0.8, 0.5
"""Shares of the distance of attention to all alike: from the first on a head looks at most of the image, to the second nearby."""
LEADING = 7
"""Components in a row of the drawing, of which the first says most of the filters."""
UNKNOWN = Finding(None, "Not measured yet.")


def filters_are_smooth(trained: Measured, untrained: Measured) -> Finding:
    """Judge whether patch filters resemble basis functions for fine structure: pixels that vary with their neighbours."""
    after, before = _all(trained, "components"), _all(untrained, "components")
    if after is None or before is None:
        return UNKNOWN
    smooth, rough = ([_smoothness(components) for components in found] for found in (after, before))
    leading = [_smoothness(components[:LEADING]) for components in after]
    words = (
        f"Neighbouring pixels of the filters' components correlate by {_mean(smooth)}, before training by {_mean(rough)}; "
        f"those of the first {LEADING} components by {_mean(leading)}."
    )
    return Finding(_more(smooth, rough), words)


def near_is_similar(positions: Measured) -> Finding:
    """Judge whether closer patches have more similar positions: neighbours against those half the grid or more apart."""
    found = _all(positions, "similarity")
    if found is None:
        return UNKNOWN
    between, _ = _pairs(found[0])
    half = max(found[0].shape[:2]) / 2
    near, far = ([_over(each, where) for each in found] for where in (between == 1, between >= half))
    words = f"The similarity of neighbours is {_mean(near)}, of positions half the grid or more apart {_mean(far)}."
    return Finding(_more(near, far), words)


def rows_and_columns_appear(positions: Measured) -> Finding:
    """Judge whether patches of one row or column have more similar positions than others that are as far apart."""
    found = _all(positions, "similarity")
    if found is None:
        return UNKNOWN
    between, aligned = _pairs(found[0])
    apart = [abs(between - distance) < 0.5 for distance in range(2, max(found[0].shape[:2]))]
    line, other = (
        [float(np.mean([_over(each, where & kind) for where in apart])) for each in found]
        for kind in (aligned, ~aligned)
    )
    words = f"The similarity along rows and columns is {_mean(line)}, of other positions as far apart {_mean(other)}."
    return Finding(_more(line, other), words)


def deeper_looks_farther(distances: Measured) -> Finding:
    """Judge whether attention distance grows with depth: the upper half of the layers against the lower half."""
    found = _all(distances, "pixels")
    if found is None:
        return UNKNOWN
    half = max(1, len(found[0]) // 2)
    lower, upper = ([float(each[part].mean()) for each in found] for part in (slice(half), slice(-half, None)))
    words = f"Attention distance is {_mean(lower, 1)} pixels in the lower half of the layers, {_mean(upper, 1)} in the upper."
    return Finding(_more(upper, lower), words)


def lowest_heads_differ(distances: Measured) -> Finding:
    """Judge whether in the lowest layer some heads attend to most of the image, and others nearby, with every seed."""
    found = _shares(distances)
    if found is None:
        return UNKNOWN
    least, most = ([float(find(each[0])) for each in found] for find in (np.min, np.max))
    words = (
        f"In the lowest layer the distances of heads are from {_mean(least)} to {_mean(most)} of that of attention to all alike; "
        f"from {GLOBAL} on a head counts as global, up to {LOCAL} as local."
    )
    return Finding(min(most) >= GLOBAL and max(least) <= LOCAL, words)


def hybrids_are_less_local(plain: Measured, hybrid: Measured) -> Finding:
    """Judge whether the most local head of each layer, in the lower half of them, looks farther in a hybrid."""
    ours, theirs = _shares(plain), _shares(hybrid)
    if ours is None or theirs is None:
        return UNKNOWN
    vit, mixed = (
        [float(each[: max(1, len(each) // 2)].min(axis=1).mean()) for each in found] for found in (ours, theirs)
    )
    words = (
        f"In the lower half of the layers the most local head looks {_mean(vit)} as far as attention to all alike, "
        f"in the hybrid {_mean(mixed)}."
    )
    return Finding(_more(mixed, vit), words)


def looks_at_the_ink(trained: Measured, untrained: Measured) -> Finding:
    """Judge whether rollout favours what tells the class: on ink by more than ink's share of the image, and than before training.

    The images are the sample: both differences count where the 95 % interval of their mean is above zero.
    """
    if not all(result is None or "mass" in result for result in (*trained, *untrained)):
        return Finding(None, "Nobody has marked what tells the class in these images: see for yourself.")
    mass, area, before = _all(trained, "mass"), _all(trained, "area"), _all(untrained, "mass")
    if mass is None or area is None or before is None:
        return UNKNOWN
    after, share, fresh = (np.mean(found, axis=0) for found in (mass, area, before))
    low = min(bootstrap_interval(after - share)[0], bootstrap_interval(after - fresh)[0])
    words = (
        f"{100 * after.mean():.1f} % of the rollout is on the ink, which covers {100 * share.mean():.1f} % of the patches; "
        f"before training it was {100 * fresh.mean():.1f} %."
    )
    return Finding(low > 0, words)


def together(findings: Sequence[Finding]) -> Finding:
    """Return the finding that all of `findings` make: it agrees where each does, and cannot tell where one cannot."""
    answers = [finding.agrees for finding in findings]
    against = [finding.words for finding in findings if finding.agrees is False]
    words = f"{answers.count(True)} of {len(findings)} statements hold."
    return Finding(None if None in answers else all(answers), " Against: ".join([words, *against]))


def listed(findings: Sequence[Finding], trainings: int) -> Table:
    """Return a table of what was found, a statement a row."""
    note = f"Mean and sample deviation over {trainings} trainings." if trainings > 1 else "Of one training."
    rows = [[finding.words, finding.word] for finding in findings]
    return Table("What they show", [["statement", "with the paper"], *rows], note)


def similarity_of(result: Result) -> NDArray[np.float64]:
    """Return measured position similarities: [rows, columns, rows, columns]."""
    return np.asarray(result["similarity"], np.float64)


def _all(measured: Measured, name: str) -> list[NDArray[np.float64]] | None:
    found = [np.asarray(result[name], np.float64) for result in measured if result is not None]
    return found if found and len(found) == len(measured) else None


def _shares(distances: Measured) -> list[NDArray[np.float64]] | None:
    """Return attention distances [layers, heads] as shares of that of attention to all alike."""
    pixels, even = _all(distances, "pixels"), _all(distances, "even")
    return (
        None
        if pixels is None or even is None
        else [each / all_alike for each, all_alike in zip(pixels, even, strict=True)]
    )


def _smoothness(components: NDArray[np.float64]) -> float:
    """Return the mean correlation of each component's pixels with those to their right and below them."""
    found = []
    for component in components:
        for first, second in ((component[:-1], component[1:]), (component[:, :-1], component[:, 1:])):
            found.append(np.corrcoef(first.ravel(), second.ravel())[0, 1])
    return float(np.nanmean(found))


def _pairs(similarity: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return how many patches any two are apart, and whether they share a row or column and are not the same: [n, n] each."""
    rows, columns = (axis.ravel() for axis in np.indices(similarity.shape[:2]))
    down, across = rows[:, None] - rows, columns[:, None] - columns
    return np.hypot(down, across), (down == 0) ^ (across == 0)


def _over(similarity: NDArray[np.float64], where: NDArray[np.bool_]) -> float:
    """Return the mean similarity over pairs."""
    return float(similarity.reshape(where.shape)[where].mean())


def _more(more: Sequence[float], less: Sequence[float]) -> bool:
    gaps = over_runs(np.subtract(more, less))
    return bool(np.all(np.subtract(more, less) > 0)) and gaps.mean > (gaps.std or 0)


def _mean(values: Sequence[float], digits: int = 2) -> str:
    """Return mean and deviation over seeds."""
    found = over_runs(values)
    return f"{found.mean:.{digits}f}" + ("" if found.std is None else f" ± {found.std:.{digits}f}")
