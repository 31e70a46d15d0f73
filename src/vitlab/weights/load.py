"""Load weights into a model that fits them, and say exactly what was done."""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitlab.config import parse, to_json
from vitlab.data.preprocess import ImageSpec
from vitlab.errors import SettingsError, WeightsError, one_line
from vitlab.models.classifier import AnySettings, Classifier, empty, initialisers, resize, say_remainder
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Grid, Size, as_size
from vitlab.nn.initial import initialise, put
from vitlab.weights import big_vision, bit, huggingface, huggingface_resnet, save, timm, torchvision
from vitlab.weights.format import TensorFile, open_tensors
from vitlab.weights.hub import is_fetched, resolve
from vitlab.weights.layout import PROBLEM, SEVERAL_LABELS, Beside, Contents, Describe, Piece, Shapes
from vitlab.weights.save import HEADER

READERS: tuple[tuple[Callable[[Shapes], bool], Describe], ...] = (
    (big_vision.is_tree, big_vision.contents_of),
    (bit.is_bit, bit.contents_of),
    (huggingface.is_huggingface, huggingface.contents_of),
    (huggingface_resnet.is_bit, huggingface_resnet.contents_of),
    (timm.is_timm, timm.contents_of),
    (torchvision.is_torchvision, torchvision.contents_of),
)
"""What tells a kind of file by the names of its arrays, and what reads it."""
HEAD = ("head.weight", "head.bias")


@dataclass
class Report:
    """What became of every name: taken as it is, resized, replaced by fresh values, dropped, missing, or not ours (extra).

    `guessed` is what nothing says of the model and was taken to be as in most such files.
    """

    matched: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)

    def note(self, name: str, resized: str | None) -> None:
        """Note that a parameter was taken: as it is, or `resized` as these words say."""
        if resized is None:
            self.matched.append(name)
        else:
            self.resized.append(f"{name} {resized}")

    def lines(self) -> list[str]:
        """Return the report for people: counts, and each name that is not simply matched, '-' missing and '+' extra."""
        lines = [f"{len(self.matched)} parameters matched"]
        lines += [f"  resized  {name}" for name in self.resized]
        lines += [f"  replaced {name}" for name in self.replaced]
        lines += [f"+ dropped  {name}" for name in self.dropped]
        lines += [f"- missing  {name}" for name in self.missing]
        lines += [f"+ extra    {name}" for name in self.extra]
        lines += [f"? guessed  {'; '.join(self.guessed)}"] if self.guessed else []
        return [one_line(line) for line in lines]  # names from files are not to be trusted


@dataclass(frozen=True)
class Loaded:
    """A ready model and what was done to get it."""

    model: Classifier
    report: Report


def load(
    path: str | Path,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    representation: bool | None = None,
    trained_size: int | tuple[int, int] | None = None,
    num_heads: int | None = None,
    kind: type[AnySettings] | None = None,
) -> Classifier:
    """Return the model of a file of weights in any format, a run folder, or a published name; see `load_with_report`."""
    return load_with_report(
        path,
        num_classes=num_classes,
        image_size=image_size,
        representation=representation,
        trained_size=trained_size,
        num_heads=num_heads,
        kind=kind,
    ).model


def load_with_report(
    path: str | Path,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    representation: bool | None = None,
    trained_size: int | tuple[int, int] | None = None,
    num_heads: int | None = None,
    kind: type[AnySettings] | None = None,
) -> Loaded:
    """Return the model in a file, told by its content, fitted to what is asked for, with a report.

    `path` may also be the name of published weights, "hf://owner/name" or an https:// address: `vitlab.weights.hub.resolve`.
    Asking for another `num_classes` replaces the head by zeros and, as the paper does, drops the representation layer before it;
    `representation` keeps (True) or drops (False) that layer explicitly. Asking for another `image_size` resizes the positions.
    `trained_size` says the size of a file that does not and whose grid is not square, `num_heads` the heads of one that does not.
    `kind` are settings of your own for models with parts of your own: a file names these, and no file brings their program.

    Raises:
        WeightsError: the file holds no weights, or weights that do not fit.
        SettingsError: the image size is smaller than a patch, or `num_classes` than 1.
    """
    if num_classes is not None and num_classes < 1:
        raise SettingsError("num_classes", f"is {num_classes}", "a head has at least one class")
    file = find(path)
    contents = read(file, None if trained_size is None else as_size(trained_size), num_heads, kind)
    old = contents.settings
    classes = num_classes or old.num_classes
    settings = adapt(
        old,
        file,
        num_classes=classes,
        image_size=old.image_size if image_size is None else as_size(image_size),
        keep_representation=classes == old.num_classes if representation is None else representation,
    )
    size = settings.image_size
    spec = contents.image_spec.model_copy(update={"height": size.height, "width": size.width})
    return fit(contents, file, settings, spec, contents.classes if keeps_head(old, settings) else ())


def adapt(
    settings: AnySettings,
    where: Path | str,
    *,
    num_classes: int | None,
    image_size: Size,
    keep_representation: bool,
) -> AnySettings:
    """Return `settings` for other classes and another size; a new head starts without bias.

    Raises:
        SettingsError: the size does not fit the model; `where` names what asked for it.
    """
    changes: dict[str, Any] = {"num_classes": num_classes, "image_size": tuple(image_size)}
    if isinstance(settings, ViTSettings) and not keep_representation:
        changes["representation_dim"] = None
    adapted = parse(type(settings), to_json(settings) | changes, where)
    return adapted if keeps_head(settings, adapted) else adapted.model_copy(update={"head_bias": 0.0})


def keeps_head(old: AnySettings, new: AnySettings) -> bool:
    """Return whether the head of a model also fits another: as many classes, behind the same representation layer."""
    return _head_inputs(old) == _head_inputs(new)


def find(name: str | Path, *, fetch: bool = True) -> Path:
    """Return the weights file that `name` stands for: itself, the one in a run or model folder, or one to be downloaded.

    Without `fetch` nothing is downloaded; see `vitlab.weights.hub.resolve`.

    Raises:
        WeightsError: the folder holds no finished model, or there is nothing of that name.
    """
    path = resolve(name, fetch=fetch)
    if not path.is_dir():
        return path
    for file in (
        path / "model.safetensors",
        path / "pytorch_model.bin",
    ):  # ours and others' folders; transformers' old one
        if file.exists():
            return file
    raise WeightsError(path, "holds no model.safetensors", "finish the run with --resume, or give a file of weights")


def read(
    path: Path,
    trained_size: Size | None = None,
    num_heads: int | None = None,
    kind: type[AnySettings] | None = None,
) -> Contents:
    """Return what the weights file `path` holds, told by its content; its arrays are not read yet.

    `trained_size` and `num_heads` are for files that do not say them, `kind` for models with parts of the caller's own.

    Raises:
        WeightsError: the file holds no weights that this library knows, or says another size or other heads.
    """
    with _opened(path) as file:
        return _described(path, file, Beside(file.metadata, path.parent, trained_size, num_heads, kind))


@contextmanager
def _opened(path: Path) -> Generator[TensorFile]:
    """Open the file `path`; if it is damaged and was downloaded, say that it is not asked for again while it is there."""
    try:
        with open_tensors(path) as file:
            yield file
    except WeightsError as error:
        if error.remedy.endswith("get the file again") and is_fetched(path):
            raise WeightsError(error.where, error.what, f"remove {path}, and ask for it again") from None
        raise


def _described(path: Path, file: TensorFile, beside: Beside) -> Contents:
    shapes = file.shapes
    describe = _reader(shapes, file.metadata)
    if describe is None:
        shown = ", ".join(sorted(shapes)[:3])
        raise WeightsError(path, f"is of no model that is known here (its arrays: {shown}, …)", "see the README")
    given = {"trained_size": beside.trained_size, "num_heads": beside.num_heads}
    given = {name: value for name, value in given.items() if value is not None}
    remedy = f"check {' and '.join(given)}, or get the file again" if given else "get the file again"
    try:
        contents = describe(path, shapes, beside)
    except SettingsError as error:
        raise WeightsError(path, f"is of no model that can be built ({error.what})", remedy) from None
    except ValueError as error:
        raise WeightsError(path, f"is no model ({error})", remedy) from None
    found = {"trained_size": contents.settings.image_size, "num_heads": getattr(contents.settings, "num_heads", "none")}
    for name, value in given.items():
        if value != found[name]:
            what = f"{name} is {value}, but {found[name]} in the file"
            raise WeightsError(path, what, f"leave {name} out")
    several = contents.settings.num_classes and beside.opened_config.get(PROBLEM) == SEVERAL_LABELS
    return replace(contents, probabilities="sigmoid") if several else contents


def _reader(shapes: Shapes, metadata: Mapping[str, str]) -> Describe | None:
    """Return what reads a file with such arrays."""
    if HEADER in metadata:
        return save.contents_of
    return next((describe for knows, describe in READERS if knows(shapes)), None)


@torch.no_grad()
def fit(
    contents: Contents, path: Path, settings: AnySettings, image_spec: ImageSpec, classes: tuple[str, ...]
) -> Loaded:
    """Return a model of `settings` with the weights of the file `path`, whose `contents` these are, and what was done for it.

    The head is kept where it fits and `classes` are not others; positions are resized where the grid differs. Arrays are read one
    by one and become the parameters, so that nothing is in memory twice.

    Raises:
        WeightsError: a parameter is missing, of another shape, or not finite.
    """
    old, model = contents.settings, empty(settings, image_spec, classes)
    report = Report(extra=list(contents.extra), guessed=list(contents.guessed))
    new_head = not keeps_head(old, settings) or (classes != () and classes != contents.classes)
    model.probabilities = "softmax" if new_head else contents.probabilities
    parameters, wrong = dict(model.named_parameters()), list[str]()
    with _opened(path) as file:
        read_array = lru_cache(maxsize=1)(
            file.read
        )  # queries, keys and values, or all layers, may be parts of one array
        for name in _array_by_array(parameters, contents.pieces):
            parameter, piece = parameters[name], contents.pieces.get(name)
            if name in HEAD and new_head:
                report.replaced.append(name)
            elif piece is None:
                report.missing.append(name)
            elif file.shapes[piece.source] not in (piece.shape, (1, 1, 1, *piece.shape)):  # GroupNorm before Flax 0.3.6
                wrong.append(f"'{piece.source}' has shape {list(file.shapes[piece.source])}, not {list(piece.shape)}")
            else:
                stored = read_array(piece.source).float()
                tensor = piece.take(stored) if piece.take else stored
                resized = _resized(name, tensor, old, settings)
                if resized.shape != parameter.shape:
                    wrong.append(f"'{name}' has shape {list(resized.shape)}, not {list(parameter.shape)}")
                elif not _finite(resized):
                    wrong.append(f"'{name}' holds values that are not finite")
                else:
                    put(model, name, resized)
                    report.note(name, None if resized is tensor else f"{_extent(old)} -> {_extent(settings)}")
    report.dropped = [name for name in contents.pieces if name not in parameters]
    wrong += [f"'{name}' is missing" for name in report.missing]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        remedy = "give weights of such a model, or choose the model that fits them"
        raise WeightsError(path, f"does not fit the model: {'; '.join(wrong[:3])}{more}", remedy)
    initialise(model, initialisers(settings), seed=0)  # what is still without memory: a new head
    say_remainder(settings)
    return Loaded(model, report)


def _finite(tensor: Tensor) -> bool:
    """Return whether every number is finite; their sum says so in one pass unless it overflows."""
    return bool(tensor.sum().isfinite() or tensor.isfinite().all())


def _array_by_array(names: Iterable[str], pieces: Mapping[str, Piece]) -> list[str]:
    """Return `names` in their order, but those that are parts of one array together: each array is read once."""
    groups = dict[str, list[str]]()
    for name in names:
        groups.setdefault(pieces[name].source if name in pieces else "", []).append(name)
    return [name for group in groups.values() for name in group]


def _resized(name: str, tensor: Tensor, old: AnySettings, new: AnySettings) -> Tensor:
    """Return the parameter `name` for the image size of `new`, `tensor` itself where that changes nothing."""
    resized = resize(name, tensor, old, new) if old.image_size != new.image_size else None
    return tensor if resized is None else resized


def _head_inputs(settings: AnySettings) -> tuple[int | None, int | None]:
    return settings.num_classes, settings.representation_dim if isinstance(settings, ViTSettings) else None


def _extent(settings: AnySettings) -> Grid | Size:
    return settings.grid if isinstance(settings, ViTSettings) else settings.image_size
