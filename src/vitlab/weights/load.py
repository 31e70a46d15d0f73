"""Load weights into a model that fits them, and say exactly what was done."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitlab.config import parse, to_json
from vitlab.data.preprocess import ImageSpec
from vitlab.errors import SettingsError, WeightsError
from vitlab.models.classifier import AnySettings, Classifier, empty, initialisers, resize, say_remainder
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Grid, Size, as_size
from vitlab.nn.initial import initialise
from vitlab.weights import bit, official
from vitlab.weights.format import format_of, npz_shapes, read_npz, read_safetensors_header
from vitlab.weights.hub import resolve
from vitlab.weights.save import HEADER, Header

HEAD = ("head.weight", "head.bias")


@dataclass
class Report:
    """What became of every name: taken as it is, resized, replaced by fresh values, dropped, missing, or not ours (extra)."""

    matched: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report for people: counts, and each name that is not simply matched, '-' missing and '+' extra."""
        lines = [f"{len(self.matched)} parameters matched"]
        lines += [f"  resized  {name}" for name in self.resized]
        lines += [f"  replaced {name}" for name in self.replaced]
        lines += [f"+ dropped  {name}" for name in self.dropped]
        lines += [f"- missing  {name}" for name in self.missing]
        lines += [f"+ extra    {name}" for name in self.extra]
        return lines


@dataclass(frozen=True)
class Contents:
    """What a file holds: the model it describes and, by our names, its parameters; `extra` are names that fit nothing."""

    settings: AnySettings
    image_spec: ImageSpec
    classes: tuple[str, ...]
    tensors: dict[str, Tensor]
    extra: tuple[str, ...] = ()


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
) -> Classifier:
    """Return the model of a released .npz, our .safetensors file, a run folder, or a name; see `load_with_report`."""
    return load_with_report(
        path, num_classes=num_classes, image_size=image_size, representation=representation, trained_size=trained_size
    ).model


def load_with_report(
    path: str | Path,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    representation: bool | None = None,
    trained_size: int | tuple[int, int] | None = None,
) -> Loaded:
    """Return the model in a file, told by its content, fitted to what is asked for, with a report.

    `path` may also be the name of published weights, "hf://owner/name" or an https:// address: `vitlab.weights.hub.resolve`.
    Asking for another `num_classes` replaces the head by zeros and, as the paper does, drops the representation layer before it;
    `representation` keeps (True) or drops (False) that layer explicitly. Asking for another `image_size` resizes the positions.
    `trained_size` says the size of a released file whose grid is not square.

    Raises:
        WeightsError: the file holds no weights, or weights that do not fit.
        SettingsError: the image size is smaller than a patch.
    """
    file = find(path)
    contents = read(file, None if trained_size is None else as_size(trained_size))
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
    return fit(contents, file, empty(settings, spec, contents.classes if keeps_head(old, settings) else ()))


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
    """Return the weights file that `name` stands for: itself, `model.safetensors` in a run folder, or one to be downloaded.

    Without `fetch` nothing is downloaded; see `vitlab.weights.hub.resolve`.

    Raises:
        WeightsError: the folder holds no finished model, or there is nothing of that name.
    """
    path = resolve(name, fetch=fetch)
    if not path.is_dir():
        return path
    file = path / "model.safetensors"
    if not file.exists():
        raise WeightsError(
            path, "holds no model.safetensors", "finish the run with --resume, or give a file of weights"
        )
    return file


def read(path: Path, trained_size: Size | None = None) -> Contents:
    """Return what the weights file `path` holds, by our names and layouts.

    Raises:
        WeightsError: the file holds no weights that this library knows.
    """
    return _read_npz(path, trained_size) if format_of(path) == "npz" else _read_ours(path)


@dataclass(frozen=True)
class _Layout:
    """How a kind of .npz file holds a model: our names mapped to the file's, and what happens to shapes and values."""

    settings: AnySettings
    table: dict[str, str]
    shape: Callable[[str, tuple[int, ...]], tuple[int, ...]]
    to_ours: Callable[[str, NDArray[Any], tuple[int, ...]], Tensor]


def _layout(path: Path, shapes: dict[str, tuple[int, ...]], trained_size: Size | None) -> _Layout:
    remedy = "get the file again" if trained_size is None else "check trained_size, or get the file again"
    try:
        if official.is_official(shapes):
            vit = official.settings_of(path, shapes, trained_size)
            table = official.name_table(vit, official.block_names(shapes))
            return _Layout(vit, table, lambda name, shape: official.file_shape(name, vit, shape), official.to_ours)
        if bit.is_bit(shapes):
            resnet = bit.settings_of(path, shapes, trained_size)
            return _Layout(
                resnet,
                bit.name_table(resnet),
                lambda _, shape: bit.file_shape(shape),
                lambda _, array, shape: bit.to_ours(array, shape),
            )
    except SettingsError as error:
        raise WeightsError(path, f"is of no model that can be built ({error.what})", remedy) from None
    except ValueError as error:
        raise WeightsError(path, f"is no ViT ({error})", remedy) from None
    shown = ", ".join(sorted(shapes)[:3])
    raise WeightsError(
        path, f"is an .npz file but no released ViT or BiT (its arrays: {shown}, …)", "give weights of one of these"
    )


def _read_npz(path: Path, trained_size: Size | None) -> Contents:
    declared = npz_shapes(path)
    written = {bit.canonical(name): name for name in declared}
    shapes = {name: declared[theirs] for name, theirs in written.items()}
    layout = _layout(path, shapes, trained_size)
    parameters = dict(empty(layout.settings).named_parameters())
    for ours, parameter in parameters.items():
        wanted = layout.shape(ours, tuple(parameter.shape))
        found = shapes.get(layout.table[ours])
        if found is not None and found not in (wanted, (1, 1, 1, *wanted)):  # GroupNorm before Flax 0.3.6
            raise WeightsError(
                path, f"'{layout.table[ours]}' has shape {list(found)}, not {list(wanted)}", "get the file again"
            )
    names = {ours: theirs for ours, theirs in layout.table.items() if theirs in shapes}
    arrays = read_npz(path, (written[theirs] for theirs in names.values()))
    for theirs, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise WeightsError(path, f"'{theirs}' holds no real numbers", "get the file again")
    tensors = {
        ours: layout.to_ours(ours, arrays[written[theirs]], tuple(parameters[ours].shape))
        for ours, theirs in names.items()
    }
    size = layout.settings.image_size
    spec = ImageSpec(height=size.height, width=size.width)
    extra = tuple(sorted(set(shapes) - set(layout.table.values())))
    return Contents(layout.settings, spec, (), tensors, extra)


def _read_ours(path: Path) -> Contents:
    text = read_safetensors_header(path).get(HEADER)
    if text is None:
        raise WeightsError(path, f"has no '{HEADER}' in its header", "it was not written by vitlab; convert it")
    try:
        header = parse(Header, json.loads(text), path)
        tensors = load_file(path)
    except (SettingsError, SafetensorError, OSError, ValueError, TypeError) as error:
        raise WeightsError(path, f"is damaged ({error})", "get the file again") from None
    layers = header.settings.num_layers
    if layers > len(tensors):  # before a model of that depth is laid out
        raise WeightsError(path, f"holds {len(tensors)} tensors for {layers:,} layers", "get the file again")
    known = {name for name, _ in empty(header.settings).named_parameters()}
    return Contents(
        header.settings,
        header.image_spec,
        header.classes,
        {name: tensor for name, tensor in tensors.items() if name in known},
        tuple(sorted(set(tensors) - known)),
    )


@torch.no_grad()
def fit(contents: Contents, path: Path, model: Classifier) -> Loaded:
    """Fill `model` (its present values do not matter) from `contents` and report; decide everything first, then write.

    The head is kept where it fits and `model` has no other class names; positions are resized where the grid differs.

    Raises:
        WeightsError: a parameter is missing, of another shape, or not finite; the model is untouched then.
    """
    report, old, new = Report(extra=list(contents.extra)), contents.settings, model.settings
    new_head = not keeps_head(old, new) or (model.classes != () and model.classes != contents.classes)
    before = {name: parameter.shape for name, parameter in empty(old).named_parameters()}
    planned: dict[str, Tensor] = {}
    wrong: list[str] = []
    for name, parameter in model.named_parameters():
        tensor = contents.tensors.get(name)
        if name in HEAD and new_head:
            report.replaced.append(name)
        elif tensor is None:
            report.missing.append(name)
        elif name in before and tensor.shape != before[name]:
            wrong.append(f"'{name}' has shape {list(tensor.shape)}, not {list(before[name])}")
        elif (resized := _resized(name, tensor, old, new)).shape != parameter.shape:
            wrong.append(f"'{name}' has shape {list(resized.shape)}, not {list(parameter.shape)}")
        else:
            planned[name] = resized
            if resized is tensor:
                report.matched.append(name)
            else:
                report.resized.append(f"{name} {_extent(old)} -> {_extent(new)}")
    parameters = dict(model.named_parameters())
    report.dropped = [name for name in contents.tensors if name not in parameters]
    wrong += [
        f"'{name}' holds values that are not finite" for name, tensor in planned.items() if not tensor.isfinite().all()
    ]
    wrong += [f"'{name}' is missing" for name in report.missing]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        remedy = "give weights of such a model, or choose the model that fits them"
        raise WeightsError(path, f"does not fit the model: {'; '.join(wrong[:3])}{more}", remedy)
    initialise(model, initialisers(new), seed=0)
    for name, tensor in planned.items():
        model.get_parameter(name).copy_(tensor)
    say_remainder(new)
    return Loaded(model, report)


def _resized(name: str, tensor: Tensor, old: AnySettings, new: AnySettings) -> Tensor:
    """Return the parameter `name` for the image size of `new`, `tensor` itself where that changes nothing."""
    resized = resize(name, tensor, old, new) if old.image_size != new.image_size else None
    return tensor if resized is None else resized


def _head_inputs(settings: AnySettings) -> tuple[int | None, int | None]:
    return settings.num_classes, settings.representation_dim if isinstance(settings, ViTSettings) else None


def _extent(settings: AnySettings) -> Grid | Size:
    return settings.grid if isinstance(settings, ViTSettings) else settings.image_size
