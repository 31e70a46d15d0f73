"""The names and configs of the ResNets of transformers (Hugging Face): BiT, and the stems of its hybrids."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from vitlab.config import parse
from vitlab.errors import WeightsError
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.resnet import PostActivation, PreActivation, stride_of
from vitlab.weights.bit import PRETRAINED_SIZE
from vitlab.weights.huggingface_config import BackboneConfig, check, classes_of, read_config
from vitlab.weights.layout import Beside, Contents, Piece, Shapes, lay_out, wrong
from vitlab.weights.preprocessor import prepared_size, read_preprocessor

ROOT = "embedder.convolution.weight"
VARIANCE_EPS = 1e-8


class ResNetShape(NamedTuple):
    """What arrays and config say of a ResNet."""

    depths: tuple[int, ...]
    root_width: int
    unit: PreActivation | PostActivation


def is_bit(names: Iterable[str]) -> bool:
    """Return whether array `names` are those of a BiT of transformers."""
    return bool({ROOT, f"bit.{ROOT}"} & set(names))


def contents_of(path: Path, shapes: Shapes, beside: Beside) -> Contents:
    """Return what the file of a BitModel or BitForImageClassification holds.

    Its image size is that of its preprocessor_config.json, or what the caller says, or the one that BiT was pre-trained at.

    Raises:
        WeightsError: the config contradicts the arrays, or asks for what is not known here.
        SettingsError: no model has such settings.
    """
    prefix = "bit." if f"bit.{ROOT}" in shapes else ""
    config = read_config(BackboneConfig, path, beside.config)
    depths, root_width, unit = shape_of(path, shapes, prefix, config)
    head = shapes.get("classifier.1.weight")
    num_classes = head[0] if head else None
    size = prepared_size(path, beside.preprocessor) or beside.trained_size or PRETRAINED_SIZE
    shape = {"depths": depths, "root_width": root_width, "unit": unit, "num_classes": num_classes}
    settings = parse(ResNetSettings, {"image_size": size, **shape}, path)
    table = name_table(depths, "", prefix) | {"head.weight": "classifier.1.weight", "head.bias": "classifier.1.bias"}
    return lay_out(
        settings,
        shapes,
        lambda name, shape: Piece(table[name], shape),
        image_spec=read_preprocessor(path, beside.preprocessor, size),
        classes=classes_of(path, config, num_classes),
    )


def shape_of(path: Path, shapes: Shapes, prefix: str, config: BackboneConfig) -> ResNetShape:
    """Return what the arrays behind `prefix` and the config say of a ResNet.

    Raises:
        WeightsError: the config contradicts the arrays, or asks for a padding or a stride that is not known here.
    """
    pattern = re.compile(re.escape(prefix) + r"encoder\.stages\.(\d+)\.layers\.(\d+)\.conv1\.")
    units = [(int(match[1]), int(match[2])) for name in shapes if (match := pattern.match(name))]
    stages = sorted({stage for stage, _ in units})
    depths = tuple(sum(stage == wanted for stage, _ in units) for wanted in stages)
    try:
        root_width, channels, _, _ = shapes[f"{prefix}{ROOT}"]
    except ValueError as error:
        raise WeightsError(path, f"is not a complete ResNet ({error})", "get the file again") from None
    activated = f"{prefix}embedder.norm.weight" in shapes
    layer_type = "bottleneck" if activated else "preactivation"
    found = {"depths": depths, "embedding_size": root_width, "num_channels": channels, "layer_type": layer_type}
    check(path, config, found)
    if stride_of(depths) > config.output_stride:  # deeper stages would be dilated instead
        raise wrong(
            path, f"output_stride {config.output_stride} is not known here", f"only {stride_of(depths)} and more are"
        )
    padding = (config.global_padding or "").upper()
    unit = _units().get((layer_type, padding, config.embedding_dynamic_padding))
    if unit is None:
        padding = (
            f"global_padding {config.global_padding}, embedding_dynamic_padding {config.embedding_dynamic_padding}"
        )
        raise wrong(path, f"{padding} is not known here for {layer_type}", "give the config that is of these weights")
    return ResNetShape(depths, root_width, unit)


def name_table(depths: Sequence[int], ours: str, theirs: str) -> dict[str, str]:
    """Return the names of a ResNet's parameters, ours behind a prefix, mapped to the file's behind theirs."""
    table = {f"{ours}root.conv.weight": f"{theirs}{ROOT}"}
    modules = {f"{ours}root.norm": f"{theirs}embedder.norm", f"{ours}norm": f"{theirs}norm"}
    for stage, depth in enumerate(depths):
        for unit in range(depth):
            our_unit, their_unit = f"{ours}stages.{stage}.{unit}", f"{theirs}encoder.stages.{stage}.layers.{unit}"
            for part in ("conv1", "conv2", "conv3"):
                table[f"{our_unit}.{part}.weight"] = f"{their_unit}.{part}.weight"
            table[f"{our_unit}.conv_proj.weight"] = f"{their_unit}.downsample.conv.weight"
            modules |= {f"{our_unit}.{part}": f"{their_unit}.{part}" for part in ("norm1", "norm2", "norm3")}
            modules[f"{our_unit}.norm_proj"] = f"{their_unit}.downsample.norm"
    return table | {f"{a}.{leaf}": f"{b}.{leaf}" for a, b in modules.items() for leaf in ("weight", "bias")}


def _units() -> dict[tuple[str, str, bool], PreActivation | PostActivation]:
    """Return the units by layer_type, global_padding and embedding_dynamic_padding; other paddings are nobody's."""
    return {
        ("preactivation", "", False): PreActivation(variance_eps=VARIANCE_EPS),
        ("preactivation", "SAME", False): PreActivation(variance_eps=VARIANCE_EPS, padding="same"),
        ("bottleneck", "SAME", True): PostActivation(variance_eps=VARIANCE_EPS, std_eps=0.0, norm_eps=1e-5),
    }
