"""Fractals: labelled images from formulas, any number of them, with nothing to download.

A class is a random iterated function system (IFS): 2 to 8 affine contractions of the plane; its attractor is the shape.
After Kataoka et al., "Pre-training without Natural Images" (2020), who pre-train on such classes, and Anderson and
Farrell, "Improving Fractal Pre-training" (2022), who choose singular values so that most shapes fill their image.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vitlab.config import Settings, parse
from vitlab.data.source import Example, Part, Pixels

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

_KEPT = 8  # points a chain draws; as many chains as pixels, so 8 points a pixel on average
_SKIPPED = 6  # first points of a chain, not drawn: it starts on the attractor, but not yet spread over it
_PROBE_SIZE = 32  # pixels a side at which a candidate class is judged
_COVER = (0.15, 0.75)  # least and most of the probe's pixels a class may cover: neither specks nor a plain blob
_SMALL = 32  # pixels a side up to which images stay in memory once drawn: 16,384 of them take 50 MB at most
_LARGEST_SIGMA = 0.95  # every map shrinks everything by at least 5%, also after an image's perturbation


class Fractals(Settings):
    """Generated fractals, class after class: an image is a function of `seed`, class, place in it, `image_size`, `views`.

    So a larger set holds the smaller ones, and memory does not grow with it (except for `labels`). Within a class the
    maps vary a little, the view turns and flips, and colours and background are random: only the shape tells the class.
    `views=1` shows every shape upright, tilted by up to 0.25 radians: for what follows that knows up from down, as digits
    do. The defaults make 10,000 images of 32×32 pixels (as CIFAR's), about a millisecond each; a linear classifier of their
    pixels gets 14% right when trained on four in five. `part` is one side of a split.
    """

    type: Literal["Fractals"] = "Fractals"
    num_classes: Annotated[int, Field(gt=0)] = 100
    images_per_class: Annotated[int, Field(gt=0)] = 100
    image_size: Annotated[int, Field(ge=8)] = 32
    views: Literal[1, 8] = 8
    seed: Annotated[int, Field(ge=0)] = 0
    part: Part | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names "fractal-000", "fractal-001", ..."""
        return _names(self.num_classes)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every image, in class-major order: int64 [len]."""
        return np.repeat(np.arange(self.num_classes), self._per_class())

    def __len__(self) -> int:
        return self.num_classes * self._per_class()

    def read(self, index: int) -> Example:
        """Return the image at `index`: uint8 [image_size, image_size, 3]; its key names class and place."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self}: no example {index} of {len(self)}")
        label, place = divmod(index, self._per_class())
        place = place if self.part is None else int(self._places(self.part, label)[place])
        draw = _draw_once if self.image_size <= _SMALL else _draw
        pixels = draw(self.seed, label, place, self.image_size, self.views)
        return Example(pixels, label, f"fractals/c{label:03d}/{place:05d}")

    def split(self, test: float = 0.2, seed: int = 0) -> "tuple[Fractals, Fractals]":
        """Return the training and the test side; `test` is the fraction of every class in the test side.

        Raises:
            SettingsError: `test` is not between 0 and 1.
        """
        given = {"side": "test", "fraction": test, "seed": seed, "of": self.part}
        side = parse(Part, given, f"split of {self}")
        train = side.model_copy(update={"side": "train"})
        return self.model_copy(update={"part": train}), self.model_copy(update={"part": side})

    def __str__(self) -> str:
        whole = f"fractals ({self.num_classes:,} classes × {self.images_per_class:,})"
        return whole if self.part is None else f"{whole}, {self.part}"

    def _per_class(self) -> int:
        return self.images_per_class if self.part is None else len(self._places(self.part, 0))

    def _places(self, part: Part, label: int) -> NDArray[np.int64]:
        return _side(part, self.images_per_class, label)


@lru_cache(maxsize=8)
def _names(num_classes: int) -> tuple[str, ...]:
    return tuple(f"fractal-{label:03d}" for label in range(num_classes))


@lru_cache(maxsize=1024)
def _side(part: Part, count: int, label: int) -> NDArray[np.int64]:
    """Return a side's places among the `count` of one class; one by one, so that memory does not grow with the set."""
    return part.indices(np.full(count, label))


@dataclass(frozen=True)
class System:
    """An iterated function system of n affine maps, x → R(angle₀) diag(sigma) R(angle₁) diag(1, sign) x + shift.

    `sigma` [n, 2] are the singular values; `angles` [n, 2] in radians; `signs` [n], ±1; `shift` [n, 2].
    """

    sigma: NDArray[np.float64]
    angles: NDArray[np.float64]
    signs: NDArray[np.float64]
    shift: NDArray[np.float64]

    @staticmethod
    def sample(rng: np.random.Generator) -> "System":
        """Return a random system of 2 to 8 maps whose sum of σ₁ + 2 σ₂ is between (5 + n)/2 and (6 + n)/2.

        That range is Anderson and Farrell's: below it attractors are dust, above it blobs.
        """
        n = int(rng.integers(2, 9))
        total = rng.uniform(0.5 * (5 + n), 0.5 * (6 + n))
        sums = np.full(n, np.inf)
        while sums.max() >= 3 * _LARGEST_SIGMA:  # no pair σ₁ ≥ σ₂ below the largest has such a sum; rare for n > 2
            sums = total * rng.dirichlet(np.full(n, 2.0))
        second = rng.uniform(np.maximum(0, (sums - _LARGEST_SIGMA) / 2), sums / 3)
        return System(
            sigma=np.stack([sums - 2 * second, second], axis=1),
            angles=rng.uniform(-np.pi, np.pi, (n, 2)),
            signs=rng.choice([-1.0, 1.0], n),
            shift=rng.uniform(-1, 1, (n, 2)),
        )

    def perturb(self, rng: np.random.Generator) -> "System":
        """Return the system of one image of this class: changes so small that the eye still sees the class."""
        n = len(self.sigma)
        return System(
            sigma=np.minimum(self.sigma * rng.uniform(0.94, 1.06, (n, 2)), _LARGEST_SIGMA),
            angles=self.angles + rng.normal(0, 0.06, (n, 2)),
            signs=self.signs,
            shift=self.shift + rng.normal(0, 0.04, (n, 2)),
        )

    def coefficients(self) -> Floats:
        """Return (a, b, c, d, e, f) of x' = a x + b y + e, y' = c x + d y + f for every map: [6, n]."""
        (c0, c1), (s0, s1), (big, small) = np.cos(self.angles).T, np.sin(self.angles).T, self.sigma.T
        a, b = big * c0 * c1 - small * s0 * s1, -big * c0 * s1 - small * s0 * c1
        c, d = big * s0 * c1 + small * c0 * s1, -big * s0 * s1 + small * c0 * c1
        return np.stack([a, b * self.signs, c, d * self.signs, *self.shift.T], dtype=np.float32, casting="same_kind")


def scatter(system: System, rng: np.random.Generator, chains: int) -> tuple[Floats, Indices]:
    """Play the chaos game in parallel: return 8 points of the attractor a chain [2, p] and the map that made each [p].

    Maps are chosen in proportion to the area that they keep, so that the points are spread evenly.
    """
    maps, n = system.coefficients(), len(system.sigma)
    a, b, c, d, e, f = maps.astype(np.float64)
    area = np.abs(a * d - b * c)
    odds = np.maximum(area / area.sum(), 0.02)
    bounds = np.rint(256 * np.cumsum(odds) / odds.sum()).astype(np.intp)  # one random byte chooses a map
    table = np.repeat(np.arange(n), np.diff(bounds, prepend=0))
    choice = table[rng.integers(0, 256, (1 + _SKIPPED + _KEPT, chains), dtype=np.uint8)]
    determinant = (1 - a) * (1 - d) - b * c  # of I - A; not 0, because A shrinks
    fixed = np.stack([(1 - d) * e + b * f, c * e + (1 - a) * f]) / determinant
    x, y = fixed.astype(np.float32)[:, choice[0]]
    points = np.empty((2, _KEPT, chains), np.float32)
    for step, chosen in enumerate(choice[1:], -_SKIPPED):
        a, b, c, d, e, f = maps[:, chosen]
        x, y = a * x + b * y + e, c * x + d * y + f
        if step >= 0:
            points[0, step], points[1, step] = x, y
    return points.reshape(2, -1), choice[1 + _SKIPPED :].ravel()


def rasterize(points: Floats, size: int, zoom: float = 1.0, place: tuple[float, float] = (0.5, 0.5)) -> Indices:
    """Return the pixel of every point [len], after fitting all into `zoom` of a square of `size` pixels a side.

    Both axes are scaled alike; `place` (0 to 1 each way) says where in the free space the shape lies.
    """
    low = points.min(axis=1)
    span = points.max(axis=1) - low
    scale = zoom * size / max(float(span.max()), 1e-6)
    offset = (size - span * scale) * np.asarray(place, np.float32)
    column, row = ((points - low[:, None]) * scale + offset[:, None]).astype(np.intp)
    return np.clip(row, 0, size - 1) * size + np.clip(column, 0, size - 1)


@lru_cache(maxsize=16384)
def find_system(seed: int, label: int) -> System:
    """Return the system of class `label`: the first random one that covers neither too little nor too much of an image.

    Nine in ten candidates pass; the bound on their number only guards against a loop without end.
    """
    rng = np.random.default_rng((seed, label, 0))
    system = System.sample(rng)
    for _ in range(100):
        points, _ = scatter(system, rng, _PROBE_SIZE**2)
        cover = len(np.unique(rasterize(points, _PROBE_SIZE))) / _PROBE_SIZE**2
        if _COVER[0] <= cover <= _COVER[1]:
            break
        system = System.sample(rng)
    return system


def _draw(seed: int, label: int, place: int, size: int, views: Literal[1, 8]) -> Pixels:
    """Return image `place` of class `label`: uint8 [size, size, 3]; with 8 `views` in any quarter turn, and mirrored or not."""
    # + 1: stream 0 made the class. A shorter seed would not do for that: NumPy pads it with zeros.
    rng = np.random.default_rng((seed, label, place + 1))
    system = find_system(seed, label).perturb(rng)
    points, made_by = scatter(system, rng, size * size)
    quarters, flip = (rng.integers(4), rng.choice([-1.0, 1.0])) if views == 8 else (0, 1.0)
    turn = quarters * np.pi / 2 + rng.uniform(-0.25, 0.25)
    cos, sin = np.cos(turn), np.sin(turn)
    turned = np.array([[cos, -sin * flip], [sin, cos * flip]], np.float32) @ points
    pixel = rasterize(turned, size, rng.uniform(0.8, 1.0), (rng.random(), rng.random()))
    n = len(system.sigma)
    counts = np.bincount(pixel * n + made_by, minlength=size * size * n).reshape(size * size, n)
    return _paint(counts.astype(np.float32), rng, size)


@lru_cache(maxsize=16384)
def _draw_once(seed: int, label: int, place: int, size: int, views: Literal[1, 8]) -> Pixels:
    pixels = _draw(seed, label, place, size, views)
    pixels.flags.writeable = False
    return pixels


def _paint(counts: Floats, rng: np.random.Generator, size: int) -> Pixels:
    """Colour the points per pixel and map [size², n]: a light colour a map, on a dark noisy gradient."""
    density = counts.sum(axis=1, keepdims=True)
    covered = density > 0
    palette = 0.5 + 0.5 * _hues(rng.random() + 0.5 * rng.random((counts.shape[1], 1)))
    ink = counts @ palette.astype(np.float32) / np.maximum(density, 1)
    strength = covered * np.clip(0.35 + 0.4 * density / density[covered].mean(), 0, 1)
    across, down = rng.uniform(-0.15, 0.15, 2)
    ramp = np.linspace(-1, 1, size)
    paper = 0.3 * _hues(rng.random((1, 1))) + (across * ramp + down * ramp[:, None]).reshape(-1, 1)
    paper = paper + rng.uniform(0, 0.2) * (rng.random((size * size, 3), np.float32) - 0.5)
    image = np.clip(paper + strength * (ink - paper), 0, 1)
    return np.rint(image * 255).astype(np.uint8).reshape(size, size, 3)


def _hues(hue: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the colour [n, 3] of every hue [n, 1], in turns around the colour circle; channels between 0 and 1."""
    return 0.5 + 0.5 * np.cos(2 * np.pi * (hue + np.array([0, 1 / 3, 2 / 3])))
