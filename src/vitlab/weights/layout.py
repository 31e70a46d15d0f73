"""Contents of a file of weights: the model it describes, and where each of our parameters is in it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from vitlab.config import Json, read_json
from vitlab.data.labels import Probabilities
from vitlab.data.preprocess import ImageSpec
from vitlab.errors import SettingsError, WeightsError
from vitlab.models.classifier import AnySettings, empty
from vitlab.nn.grid import Size
from vitlab.nn.stem import Stem

PROBLEM, SEVERAL_LABELS = "problem_type", "multi_label_classification"
"""How transformers says in a config.json that the classes of a head do not exclude each other; timm leaves it alone."""

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
MAX_CONFIG_BYTES = 4 << 20
"""Names for 21,843 classes, twice, take two of them."""
KEEP = "use vitlab convert --to vitlab"
SAY_SIZE = "give trained_size=(height, width), or vitlab convert --trained-size HEIGHTxWIDTH"
SAY_HEADS = "give num_heads, or vitlab convert --num-heads N"


@dataclass(frozen=True)
class Piece:
    """Where one of our parameters is: the array called `source`, its `shape` there, and what makes it ours (nothing: as it is)."""

    source: str
    shape: Shape
    take: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Contents:
    """The model that a file describes, and by our names where its parameters are.

    `missing` are our names that the file does not have, `extra` arrays of the file that no parameter is made of, `guessed` what
    nothing says of the model and is taken to be as in most such files. `probabilities` says of its head what `Classifier` does.
    """

    settings: AnySettings
    image_spec: ImageSpec
    classes: tuple[str, ...]
    pieces: Mapping[str, Piece]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    probabilities: Probabilities = "softmax"
    guessed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beside:
    """What is known of a file besides its arrays: its text metadata, the configs in its folder, and what the caller says.

    A config is opened when a reader asks for it: what lies beside a file that needs none may be anything. `kind` are the settings
    of a model with parts of the caller's own, which a file may name and cannot bring.
    """

    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    folder: Path | None = None
    trained_size: Size | None = None
    num_heads: int | None = None
    kind: type[AnySettings] | None = None

    @cached_property
    def config(self) -> Json:
        """The JSON object in config.json, {} where there is none."""
        return config_in(self.folder, CONFIG)

    @property
    def opened_config(self) -> Json:
        """`config` where a reader has asked for it, else {}."""
        return self.config if "config" in vars(self) else {}

    @cached_property
    def preprocessor(self) -> Json:
        """The JSON object in preprocessor_config.json, {} where there is none."""
        return config_in(self.folder, PREPROCESSOR)


def lay_out(
    settings: AnySettings,
    shapes: Shapes,
    piece_of: Callable[[str, Shape], Piece],
    *,
    image_spec: ImageSpec | None = None,
    classes: tuple[str, ...] = (),
    guessed: tuple[str, ...] = (),
) -> Contents:
    """Return the contents of a file with arrays of `shapes`; `piece_of` says where a parameter (name, shape) is.

    Without an `image_spec` it is the paper's at the size of the model.
    """
    wanted = {name: piece_of(name, shape) for name, shape in parameter_shapes(settings)}
    pieces = {name: piece for name, piece in wanted.items() if piece.source in shapes}
    used = {piece.source for piece in pieces.values()}
    size = settings.image_size
    return Contents(
        settings,
        image_spec or ImageSpec(height=size.height, width=size.width),
        classes,
        pieces,
        tuple(name for name in wanted if name not in pieces),
        tuple(sorted(set(shapes) - used)),
        guessed=guessed,
    )


def refuse_foreign(path: Path, contents: Contents, inside: tuple[str, ...]) -> None:
    """Refuse a file with arrays that no parameter is made of where the model itself is, by how their names begin.

    Such a file is of a relative of the model, which without them would compute something else.

    Raises:
        WeightsError: it has one.
    """
    foreign = [name for name in contents.extra if name.startswith(inside)]
    if foreign:
        raise WeightsError(path, f"has '{foreign[0]}', which no model known here has", "see the README")


def wrong(path: Path, what: str, remedy: str = "put the config beside the weights that it is of") -> WeightsError:
    """Return the error for what the config.json beside `path` says."""
    return WeightsError(path.with_name(CONFIG), what, remedy)


def square_size(cells: int, stem: Stem) -> Size | None:
    """Return the size of the square image that `stem` cuts into so many patches, None where no square has so many."""
    side = math.isqrt(max(cells, 0))
    return Size(side * stem.cell.height, side * stem.cell.width) if side and side * side == cells else None


def parameter_shapes(settings: AnySettings) -> Iterator[tuple[str, Shape]]:
    """Yield the name and shape of every parameter of a model of `settings`."""
    for name, parameter in empty(settings).named_parameters():
        yield name, tuple(parameter.shape)


def config_in(folder: Path | None, name: str) -> Json:
    """Return the JSON object in the file `name` of `folder`, {} where there is none.

    Raises:
        WeightsError: it is large, or no JSON object.
    """
    path = None if folder is None else folder / name
    if path is None or not path.is_file():
        return {}
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise WeightsError(path, f"is larger than {MAX_CONFIG_BYTES:,} bytes", "this is no config; remove it")
    try:
        return read_json(path)
    except SettingsError as error:
        raise WeightsError(path, error.what, error.remedy) from None


Describe = Callable[[Path, Shapes, Beside], Contents]
"""What reads a kind of file: its path for messages, the shapes of its arrays, what is known besides → its contents."""
