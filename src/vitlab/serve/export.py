"""A model as a file that runs without this library, checked against the model on images before it gets its name."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitlab import files
from vitlab.data.fractals import Fractals
from vitlab.data.labels import is_multi_label
from vitlab.data.loader import EvalBatches, load
from vitlab.data.source import Source, Subset
from vitlab.errors import DataError, ExportError, SettingsError
from vitlab.evals.classify import labels_for
from vitlab.models.classifier import Classifier, empty, resize
from vitlab.nn.grid import Size
from vitlab.nn.initial import put
from vitlab.serve.card import card_for
from vitlab.serve.engine import TOLERANCE, Eager, OnnxRuntime, Outputs, batch_size_for, deviation, device_of, need_onnx
from vitlab.weights.convert import check_free
from vitlab.weights.load import adapt

COMPARED = 16
"""Images on which a file is compared with its model."""
CALIBRATED = 256
"""Images at most from which the ranges of activations are taken."""
COUNTED = 1000
"""Images at most on which 8 bits are compared with 32."""


@dataclass(frozen=True)
class Agreement:
    """How the graph in 8 bits answers beside the one in 32, on `images`; top-1 of both where labels of the classes are known."""

    images: int
    data: str
    calibrated_on: str
    same: float
    top1: tuple[float, float] | None = None

    def line(self) -> str:
        """Return it for people."""
        scores = (
            "" if self.top1 is None else "; top-1 {:.2f} % before, {:.2f} % after".format(*(100 * x for x in self.top1))
        )
        return f"int8: the same class on {100 * self.same:.2f} % of {self.images:,} images of {self.data}{scores}"


@dataclass(frozen=True)
class Exported:
    """What was written; how far its outputs lie from the model's (a share of the largest where that is above 1), on what images."""

    path: Path
    card: Path
    deviation: float
    images: int
    data: str
    int8: Agreement | None = None

    def lines(self) -> list[str]:
        """Return it for people."""
        lines = [
            f"compared on {self.images} images of {self.data}: off by at most {self.deviation:.1e} (limit {TOLERANCE:.0e})"
        ]
        return (
            lines + ([] if self.int8 is None else [self.int8.line()]) + [f"written  {self.path} and {self.card.name}"]
        )


def export(
    model: Classifier,
    out: str | Path,
    *,
    dynamic_size: bool = False,
    images: Source | None = None,
    calibrate: Source | None = None,
    facts: Sequence[str] = (),
) -> Exported:
    """Write `model` to `out`, an ONNX graph (.onnx) or a program of torch.export (.pt2), with a model card beside it (`out`.md).

    Both take images as `ImageSpec.prepare` makes them, uint8 [b, 3, h, w] with any b, normalise them themselves, and give logits
    [b, k] and features [b, r]. With `dynamic_size` an ONNX graph takes any height and width, and resizes positions as
    `vitlab.load` does. `images` (fractals by default) are what the file is compared on; with `calibrate` the layers are in 8 bits,
    whose ranges are taken from these images. `facts` are lines for the card on how good the model is.

    Raises:
        ExportError: what was written does not answer as the model does; there is no file then.
        WeightsError: there is a file of that name already.
        SettingsError: the name ends in neither, or an option is not for that kind of file; onnx is not installed.
    """
    out = Path(out)
    _check_kind(out, {"--dynamic-size": dynamic_size, "--int8": calibrate is not None})
    card = out.with_name(f"{out.name}.md")
    places = [out, card, out.with_name(f"{out.name}.data")]
    for place in places:
        check_free(place)
    draft = out.with_name(f".{out.name}.part")
    files.remove(draft)  # of an attempt that was cut
    files.make_folder(draft)
    try:
        source = images if images is not None else Fractals(num_classes=COMPARED, images_per_class=1)
        exported = _write(model.eval(), draft / out.name, source, calibrate, dynamic_size)
        files.write_bytes(
            draft / card.name, card_for(model, out.name, exported.lines()[:-1], facts, dynamic_size).encode()
        )
        for place in reversed(places):  # the file itself when all that belongs to it is there
            if (draft / place.name).exists():
                check_free(place)
                files.rename(draft / place.name, place)
        files.flush_folder(out.absolute().parent)
    finally:
        files.remove(draft)
    return Exported(out, card, exported.deviation, exported.images, exported.data, exported.int8)


def _check_kind(out: Path, asked: dict[str, bool]) -> None:
    """Refuse a name that says no kind of file, and what was `asked` for and is not for that kind."""
    if out.suffix not in (".onnx", ".pt2"):
        raise SettingsError(str(out), "is neither an .onnx nor a .pt2 file", "end its name in one of them")
    given = [name for name, wanted in asked.items() if wanted]
    if out.suffix == ".pt2" and given:
        raise SettingsError(given[0], "is for ONNX files", "end OUT in .onnx")
    if out.suffix == ".onnx":
        need_onnx(str(out))


def _write(model: Classifier, draft: Path, source: Source, calibrate: Source | None, dynamic_size: bool) -> Exported:
    """Write the file, compare it with the model, and return what is known of it."""
    compared = np.concatenate(list(batches(model, source, COMPARED)))
    program = draft.suffix == ".pt2"
    off = _write_program(model, draft, compared) if program else _write_graph(model, draft, compared, dynamic_size)
    if not off <= TOLERANCE:
        what = f"what was written is off by {off:.1e} on {len(compared)} images of {source}, more than {TOLERANCE:.0e}"
        raise ExportError(draft.name, what, "nothing was kept; please report it with the model's settings")
    int8 = None if calibrate is None else _quantise(model, draft, source, calibrate)
    return Exported(draft, draft, off, len(compared), str(source), int8)


def batches(model: Classifier, source: Source, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield at most `count` images of `source`, from all over it, as `model` sees them, in batches uint8 [b, 3, h, w].

    Raises:
        DataError: there are none, or one cannot be decoded.
    """
    chosen, size = spread(source, count), batch_size_for(model.settings, device_of(model))
    whole = EvalBatches(chosen, model.image_spec, size)
    for batch in load(whole, range(len(whole))):
        yield batch.images[batch.valid].numpy()


def spread(source: Source, count: int) -> Subset:
    """Return at most `count` examples from all over a source.

    Raises:
        DataError: it is empty.
    """
    if not len(source):
        raise DataError(str(source), "is empty", "give images")
    return Subset(source, np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).astype(np.int64)))


def _outputs(model: Classifier, images: NDArray[np.uint8]) -> Outputs:
    """Return what the model as PyTorch runs it says of `images`, a few at a time."""
    eager, size = Eager(model), batch_size_for(model.settings, device_of(model))
    found = [eager.run(torch.from_numpy(images[start : start + size])) for start in range(0, len(images), size)]
    return Outputs(np.concatenate([each.logits for each in found]), np.concatenate([each.features for each in found]))


def _write_graph(model: Classifier, path: Path, images: NDArray[np.uint8], dynamic_size: bool) -> float:
    """Write an ONNX file, and return how far it is off, read as a stranger's."""
    from vitlab.serve.onnx.reading import open_graph
    from vitlab.serve.onnx.writing import write_graph

    write_graph(model, path, dynamic_size=dynamic_size)
    engine = OnnxRuntime(open_graph(path).session)
    right = _outputs(model, images)
    cases = [(images, right), (images[:1], Outputs(right.logits[:1], right.features[:1]))]
    if dynamic_size:
        other = at_size(model, _another_size(model))
        size = other.settings.image_size
        grown = np.ascontiguousarray(np.resize(images[:1], (1, 3, *size)))
        cases.append((grown, _outputs(other, grown)))
    return float(np.max([deviation(engine.run(torch.from_numpy(given)), wanted) for given, wanted in cases]))


def _another_size(model: Classifier) -> Size:
    height, width = model.settings.image_size
    return Size(height + height // 2, width + width // 4)


def at_size(model: Classifier, size: Size) -> Classifier:
    """Return `model` for images of another size, its positions resized as `vitlab.load` does; other weights are shared."""
    old = model.settings
    new = adapt(old, "image_size", num_classes=old.num_classes, image_size=size, keep_representation=True)
    spec = model.image_spec.model_copy(update={"height": size.height, "width": size.width})
    other = empty(new, spec, model.classes)
    for name, parameter in model.named_parameters():
        resized = resize(name, parameter.detach(), old, new)
        put(other, name, parameter.detach() if resized is None else resized)
    return other.eval()


def _quantise(model: Classifier, path: Path, source: Source, calibrate: Source) -> Agreement:
    """Put the graph in the file `path` into 8 bits, and return how it answers then."""
    from vitlab.serve.onnx.quantised import quantise
    from vitlab.serve.onnx.reading import open_graph
    from vitlab.serve.onnx.writing import add_metadata

    float32 = path.with_name(f"float32-{path.name}")
    files.rename(path, float32)
    quantise(float32, path, batches(model, calibrate, CALIBRATED))
    before, after = open_graph(float32).session, open_graph(path).session
    files.remove(float32)
    answers = [(before.run(each), after.run(each)) for each in batches(model, source, COUNTED)]
    output = "logits" if model.settings.num_classes else "features"
    first, second = (np.concatenate([pair[i][output].argmax(axis=1) for pair in answers]) for i in (0, 1))
    labels = _labels(model, spread(source, COUNTED))
    top1 = None if labels is None else (float((first == labels).mean()), float((second == labels).mean()))
    found = Agreement(len(first), str(source), str(calibrate), float((first == second).mean()), top1)
    add_metadata(path, {"vitlab.int8": json.dumps(found.__dict__)})
    return found


def _labels(model: Classifier, source: Source) -> NDArray[np.int64] | None:
    """Return the labels of `source` as the model numbers them, None where it has no such classes or several an image."""
    try:
        labels = labels_for(model, source)[1]
    except DataError:
        return None
    return None if is_multi_label(labels) or model.probabilities == "sigmoid" else labels


class _Program(torch.nn.Module):
    """What torch.export saves: the model with the normalisation before it."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the outputs by their names."""
        features = self.model.features(self.model.image_spec.normalise(images))
        return {"logits": self.model.head(features), "features": features}


@torch.no_grad()
def _write_program(model: Classifier, path: Path, images: NDArray[np.uint8]) -> float:
    """Write a program of torch.export, and return how far it is off, read again: it is our own."""
    from vitlab.weights.save import HEADER
    from vitlab.weights.save import metadata as header_of

    given = torch.from_numpy(images).to(device_of(model))
    dynamic: Any = ({0: torch.export.Dim("batch", min=1)},)
    example = given[:2] if len(given) > 1 else given.repeat(2, 1, 1, 1)
    program = torch.export.export(_Program(model), (example,), dynamic_shapes=dynamic)
    torch.export.save(program, path, extra_files={f"{HEADER}.json": header_of(model)[HEADER]})
    read = torch.export.load(path).module()
    offs: list[float] = []
    for part in (given, given[:1]):
        found = {name: value.float().cpu().numpy() for name, value in read(part).items()}
        right = _outputs(model, part.cpu().numpy())
        offs.append(deviation(Outputs(found["logits"], found["features"]), right))
    return float(np.max(offs))
