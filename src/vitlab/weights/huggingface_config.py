"""What the config.json of transformers says of ViTs and ResNets, checked against the arrays beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, PositiveInt

from vitlab.config import Settings, parse
from vitlab.errors import SettingsError
from vitlab.nn.encoder import Activation
from vitlab.nn.grid import SizeField
from vitlab.weights.layout import wrong

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
"""What transformers calls the two forms of GELU; the first name of each is written."""

Labels = dict[int, str | int | float] | None


class BackboneConfig(Settings):
    """What it says of a ResNet, the rest of it left alone; defaults are those of transformers, None what the arrays say."""

    model_config = ConfigDict(extra="ignore")

    model_type: Literal["bit"] = "bit"
    num_channels: int | None = None
    embedding_size: int | None = None
    depths: tuple[int, ...] | None = None
    layer_type: str | None = None
    hidden_act: Literal["relu"] = "relu"
    global_padding: str | None = None
    embedding_dynamic_padding: bool = False
    num_groups: Literal[32] = 32
    output_stride: int = 32
    num_labels: int | None = None
    id2label: Labels = None


class Config(Settings):
    """What config.json says of a ViT, the rest of it left alone; defaults are those of transformers, None what the arrays say."""

    model_config = ConfigDict(extra="ignore")

    model_type: Literal["vit", "vit-hybrid"] = "vit"
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: PositiveInt | None = None
    intermediate_size: int | None = None
    hidden_act: Literal["gelu", "gelu_pytorch_tanh", "gelu_new", "gelu_fast"] = "gelu"
    hidden_dropout_prob: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layer_norm_eps: Annotated[float, Field(gt=0)] = 1e-12
    image_size: SizeField | None = None
    patch_size: SizeField | None = None
    num_channels: int | None = None
    qkv_bias: bool | None = None
    pooler_act: Literal["tanh"] = "tanh"
    pooler_output_size: int | None = None
    num_labels: int | None = None
    id2label: Labels = None
    backbone_config: BackboneConfig = BackboneConfig()


C = TypeVar("C", Config, BackboneConfig)


def read_config(kind: type[C], path: Path, data: Mapping[str, Any]) -> C:
    """Return what the config.json beside `path` says, `data`.

    Raises:
        WeightsError: it is of another kind of model, or of one that is not known here.
    """
    try:
        return parse(kind, data, path)
    except SettingsError as error:
        raise wrong(path, error.what, "get it again") from None


def check(path: Path, config: Config | BackboneConfig, found: Mapping[str, Any]) -> None:
    """Refuse a config that says otherwise than what was `found` in the arrays of `path`."""
    for name, value in found.items():
        if (said := getattr(config, name)) not in (None, value):
            raise wrong(path, f"{name} is {said}, but {value} in {path.name}")


def classes_of(path: Path, config: Config | BackboneConfig, num_classes: int | None) -> tuple[str, ...]:
    """Return the names of the classes; those that transformers makes up (LABEL_0, …) are none.

    Raises:
        WeightsError: they are not those of so many classes.
    """
    check(path, config, {"num_labels": num_classes} if num_classes else {})
    labels = config.id2label
    if num_classes is None or labels is None:
        return ()
    if len(labels) != num_classes or sorted(labels) != list(range(num_classes)):
        raise wrong(path, f"id2label names {len(labels)} classes, but {num_classes} in {path.name}")
    names = tuple(str(labels[index]) for index in range(num_classes))
    return () if names == placeholders(num_classes) else names


def placeholders(num_classes: int) -> tuple[str, ...]:
    """Return the names that transformers makes up."""
    return tuple(f"LABEL_{index}" for index in range(num_classes))
