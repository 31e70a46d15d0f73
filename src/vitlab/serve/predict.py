"""The one inference path: an image in, named probabilities out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vitlab.data.batch import collate
from vitlab.data.image import decode
from vitlab.data.source import Pixels
from vitlab.errors import DataError, WeightsError
from vitlab.models.classifier import Classifier, probabilities_of
from vitlab.weights.load import load

BATCH_SIZE = 16
"""Every batch is padded to this many rows, so that an image's answer does not depend on those beside it."""


@dataclass(frozen=True)
class Prediction:
    """The probabilities [k] of one image: their sum is 1, unless the model is for images of several classes or none."""

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the `k` most probable classes with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.classes[int(i)], float(self.probabilities[i])) for i in order]


class Predictor:
    """A model ready to answer, with the preparation and the class names that belong to its weights."""

    def __init__(self, model: Classifier) -> None:
        if not model.settings.num_classes:
            raise WeightsError("model", "has no head", "fine-tune it first")
        self.model = model.eval()
        self.classes = model.classes or tuple(str(index) for index in range(model.settings.num_classes))

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
        starts = range(0, len(images), BATCH_SIZE)
        batches = ([self.prepare(image) for image in images[start : start + BATCH_SIZE]] for start in starts)
        return [prediction for batch in batches for prediction in self.answer(batch)]

    def prepare(self, image: str | Path | bytes | Pixels) -> Pixels:
        """Return an image as the model sees it: uint8 [height, width, 3].

        Raises:
            ImageError: the image cannot be decoded, or must not be.
        """
        return self.model.image_spec.prepare(read_image(image))

    @torch.inference_mode()
    def answer(self, prepared: Sequence[Pixels]) -> list[Prediction]:
        """Return the predictions for at most `BATCH_SIZE` prepared images, in order."""
        if not prepared:
            return []
        batch = collate(prepared, [0] * len(prepared), [""] * len(prepared), BATCH_SIZE)
        images = self.model.image_spec.normalise(batch.images.to(next(self.model.parameters()).device))
        rows = probabilities_of(self.model, self.model(images)).cpu().numpy()[: len(prepared)]
        return [Prediction(self.classes, row) for row in rows]


def read_image(image: str | Path | bytes | Pixels) -> Pixels:
    """Return the pixels (uint8 [h, w, 3]) of a path, of the bytes of a file, or as given.

    Raises:
        DataError: the path cannot be read.
        ImageError: the image cannot be decoded, or must not be.
    """
    if isinstance(image, bytes):
        return decode(image, "image")
    if isinstance(image, str | Path):
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            raise DataError(image, f"cannot be read ({error.strerror})", "check the path") from None
        return decode(data, str(image))
    return image
