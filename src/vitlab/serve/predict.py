"""The one inference path: an image in, named probabilities out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.batch import collate
from vitlab.data.image import Picture
from vitlab.data.labels import Probabilities
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Pixels
from vitlab.errors import DataError, SettingsError, WeightsError
from vitlab.models.classifier import AnySettings, Classifier, to_probabilities
from vitlab.serve.engine import (
    Choice,
    Engine,
    OnnxRuntime,
    Outputs,
    Standalone,
    batch_size_for,
    choose,
    device_of,
    need_onnx,
)
from vitlab.weights.load import load


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

    `engine` runs the model, always on `batch_size` images at once, the last ones padded, so that an answer does not depend on
    those beside it.
    """

    def __init__(
        self,
        model: Classifier | Standalone,
        batch_size: int | None = None,
        engine: Choice = "auto",
        images: int | None = None,
    ) -> None:
        """Make a model ready; `images` are how many are expected: few start at once, many go through the model in larger batches.

        Raises:
            WeightsError: the model has no head.
            SettingsError: the engine is not there, or not for this device.
        """
        about = model.header if isinstance(model, Standalone) else model
        if not about.settings.num_classes:
            raise WeightsError("model", "has no head", "fine-tune it first")
        self.inside = None if isinstance(model, Standalone) else model.eval()
        """The model as PyTorch has it, for looking inside; None where there is only its graph."""
        self.settings: AnySettings = about.settings
        self.engine: Engine = model.engine if isinstance(model, Standalone) else choose(model, engine, images)
        self.spec: ImageSpec = about.image_spec
        self.classes = about.classes or tuple(str(index) for index in range(about.settings.num_classes))
        self.probabilities: Probabilities = about.probabilities
        self.device = torch.device("cpu") if isinstance(model, Standalone) else device_of(model)
        self.batch_size = batch_size or batch_size_for(about.settings, self.device, images)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        engine: Choice = "auto",
        images: int | None = None,
        batch_size: int | None = None,
    ) -> "Predictor":
        """Return the predictor of a run folder, a file of weights, or an ONNX file that `vitlab export` wrote.

        The others are as for `Predictor`.

        Raises:
            WeightsError: there is no finished model there.
            SettingsError: the engine is not there, or not for this device.
        """
        if Path(path).suffix == ".onnx":
            return cls(open_standalone(Path(path), engine), batch_size, images=images)
        if Path(path).suffix == ".pt2":
            what = "is a program: torch.export.load may run what is in it"
            raise WeightsError(path, what, "give the run, or an ONNX file, which is only data")
        return cls(load(path).to(device), batch_size, engine, images)

    @property
    def model(self) -> Classifier:
        """What is `inside`, where that has to be.

        Raises:
            WeightsError: there is only its graph.
        """
        if self.inside is None:
            raise WeightsError("model", "is a graph, and cannot be looked into", "give the run or the file of weights")
        return self.inside

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
        """Return the predictions for prepared images, in order."""
        starts = range(0, len(prepared), self.batch_size)
        batches = (prepared[start : start + self.batch_size] for start in starts)
        return [each for batch in batches for each in self.read(self.engine.run(self.stack(batch)), len(batch))]

    def stack(self, prepared: Sequence[Pixels]) -> UInt8[Tensor, "b c h w"]:
        """Return at most `batch_size` prepared images as the batch that the engine runs, padded to that size."""
        return collate(prepared, [0] * len(prepared), [""] * len(prepared), self.batch_size).images

    def read(self, outputs: Outputs, count: int) -> list[Prediction]:
        """Return the predictions for the first `count` images of a batch."""
        rows = to_probabilities(torch.from_numpy(outputs.logits), self.probabilities).numpy()
        return [Prediction(self.classes, *row) for row in zip(rows[:count], outputs.features[:count], strict=True)]


def open_standalone(path: Path, engine: Choice = "auto") -> Standalone:
    """Return the graph in the ONNX file `path`, which onnxruntime runs.

    Raises:
        WeightsError: it is no graph that `vitlab export` wrote.
        SettingsError: onnxruntime is not installed, or another engine is wanted.
    """
    need_onnx(str(path))
    if engine not in ("auto", "onnxruntime"):
        raise SettingsError("--engine", f"{engine} does not run ONNX files", "leave it out")
    from vitlab.serve.onnx.reading import open_graph

    opened = open_graph(path)
    return Standalone(opened.header, OnnxRuntime(opened.session))


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
