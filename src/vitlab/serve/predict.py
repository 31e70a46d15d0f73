"""The one inference path: an image in, named probabilities out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vitlab.data.batch import collate
from vitlab.data.image import Picture
from vitlab.data.labels import Probabilities
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Pixels
from vitlab.errors import DataError, WeightsError
from vitlab.models.classifier import Classifier, to_probabilities
from vitlab.serve.engine import Eager, Engine
from vitlab.weights.load import load

BATCH_SIZE = 16
"""Every batch is padded to one size, so that an image's answer does not depend on those beside it; this is the usual one."""


@dataclass(frozen=True)
class Prediction:
    """The probabilities [k] of one image, and the features [r] that the head read.

    The sum of the probabilities is 1, unless the model is for images of several classes or none.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the `k` most probable classes with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.classes[int(i)], float(self.probabilities[i])) for i in order]


class Predictor:
    """A model ready to answer, with the preparation of images (`spec`) and the class names that belong to its weights.

    `engine` runs the model, always on `batch_size` images at once.
    """

    def __init__(self, model: Classifier, batch_size: int = BATCH_SIZE) -> None:
        if not model.settings.num_classes:
            raise WeightsError("model", "has no head", "fine-tune it first")
        self.model = model.eval()
        self.engine: Engine = Eager(model)
        self.spec: ImageSpec = model.image_spec
        self.classes = model.classes or tuple(str(index) for index in range(model.settings.num_classes))
        self.probabilities: Probabilities = model.probabilities
        self.batch_size = batch_size

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "Predictor":
        """Return the predictor of a run folder or a file of weights.

        Raises:
            WeightsError: there is no finished model there.
        """
        return cls(load(path).to(device))

    def __call__(self, image: str | Path | bytes | Pixels) -> Prediction:
        """Return the prediction for one image: a path, the bytes of a file, or pixels (uint8 [h, w, 3]).

        Raises:
            ImageError: the image cannot be decoded, or must not be.
        """
        return self.predict([image])[0]

    def predict(self, images: Sequence[str | Path | bytes | Pixels]) -> list[Prediction]:
        """Return the predictions for `images`, in order.

        Raises:
            ImageError: an image cannot be decoded, or must not be.
        """
        starts = range(0, len(images), self.batch_size)
        batches = ([self.prepare(image) for image in images[start : start + self.batch_size]] for start in starts)
        return [prediction for batch in batches for prediction in self.answer(batch)]

    def prepare(self, image: str | Path | bytes | Pixels) -> Pixels:
        """Return an image as the model sees it: uint8 [height, width, 3].

        Raises:
            ImageError: the image cannot be decoded, or must not be.
        """
        return self.spec.prepare(read_image(image, self.spec))

    def answer(self, prepared: Sequence[Pixels]) -> list[Prediction]:
        """Return the predictions for at most `batch_size` prepared images, in order."""
        if not prepared:
            return []
        batch = collate(prepared, [0] * len(prepared), [""] * len(prepared), self.batch_size)
        outputs = self.engine.run(batch.images)
        rows = to_probabilities(torch.from_numpy(outputs.logits), self.probabilities).numpy()
        count = len(prepared)
        return [Prediction(self.classes, *row) for row in zip(rows[:count], outputs.features[:count], strict=True)]


def read_image(image: str | Path | bytes | Pixels, spec: ImageSpec) -> Picture:
    """Return the image at a path, of the bytes of a file, or as given, for `spec` to prepare.

    Raises:
        DataError: the path cannot be read.
        ImageError: the image cannot be decoded, or must not be.
    """
    if isinstance(image, bytes):
        return spec.open(image, "image")
    if isinstance(image, str | Path):
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            raise DataError(image, f"cannot be read ({error.strerror})", "check the path") from None
        return spec.open(data, str(image))
    return image
