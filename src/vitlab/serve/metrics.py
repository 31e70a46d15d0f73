"""Metrics: what a server has done and how long it took, in the text format of Prometheus."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable

_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts requests by address and status, and their seconds by address.

    An address is one that the server knows; all others are counted together, so that a client cannot make the text long.
    """

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, list[int]] = {}
        self._total: defaultdict[str, float] = defaultdict(float)

    def add(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered, or that its client gave up (status 499)."""
        self._requests[path, status] += 1
        self._seconds.setdefault(path, [0] * (len(_BOUNDS) + 1))[bisect_left(_BOUNDS, seconds)] += 1
        self._total[path] += seconds

    def lines(self) -> Iterable[str]:
        """Yield the lines of both."""
        yield from heading("vitlab_requests_total", "counter", "Requests by address and status.")
        for (path, status), count in sorted(self._requests.items()):
            yield f'vitlab_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from heading(
            "vitlab_request_seconds", "histogram", "From the head of a request to the end of its answer."
        )
        for path, counts in sorted(self._seconds.items()):
            below = 0
            for bound, count in zip((*map(str, _BOUNDS), "+Inf"), counts, strict=True):
                below += count
                yield f'vitlab_request_seconds_bucket{{path="{path}",le="{bound}"}} {below}'
            yield f'vitlab_request_seconds_sum{{path="{path}"}} {self._total[path]:.6f}'
            yield f'vitlab_request_seconds_count{{path="{path}"}} {below}'


def heading(name: str, kind: str, what: str) -> tuple[str, str]:
    """Return the two lines that come before the values of a metric."""
    return f"# HELP {name} {what}", f"# TYPE {name} {kind}"


def by_model(name: str, kind: str, what: str, values: Iterable[tuple[str, float]]) -> Iterable[str]:
    """Yield the lines of a metric that each model has; names of models need no escape."""
    yield from heading(name, kind, what)
    for model, value in values:
        yield f'{name}{{model="{model}"}} {value:g}'
