"""The names and layouts of the ViT files that the paper's authors released (.npz), in both directions.

The files were written before Flax numbered layers by class, so a block's parts are LayerNorm_0, MultiHeadDotProductAttention_1,
LayerNorm_2, MlpBlock_3; trees saved since say LayerNorm_0, MultiHeadDotProductAttention_0, LayerNorm_1, MlpBlock_0. Both are read.
Kernels are [in, out] (convolutions [height, width, in, out]); ours are [out, in].
"""

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.preprocess import ImageSpec
from vitlab.errors import WeightsError
from vitlab.models.classifier import Classifier
from vitlab.models.vit import ViTSettings
from vitlab.nn.pooling import ClassToken, Mean
from vitlab.nn.position import Learned1D
from vitlab.nn.stem import ResNetStem
from vitlab.weights.layout import KEEP

CONVOLUTIONS = ("conv.weight", "conv1.weight", "conv2.weight", "conv3.weight", "conv_proj.weight")
FIRST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class BlockNames:
    """What a block's four parts are called in a file."""

    norm1: str
    attention: str
    norm2: str
    mlp: str


RELEASED = BlockNames("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
LINEN = BlockNames("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")


def name_table(settings: ViTSettings, block: BlockNames = RELEASED) -> dict[str, str]:
    """Return our parameter names mapped to the file's for a model of `settings`."""
    table = {
        **pair(_embedding(settings), "embedding", "kernel"),
        "position.table": "Transformer/posembed_input/pos_embedding",
        **pair("encoder.norm", "Transformer/encoder_norm", "scale"),
    }
    if isinstance(settings.stem, ResNetStem):
        table |= post_activation_table(settings.stem.depths, "stem.")
    if isinstance(settings.pool, ClassToken):
        table["class_token"] = "cls"
    if settings.representation_dim:
        table |= pair("representation", "pre_logits", "kernel")
    if settings.num_classes:
        table |= pair("head", "head", "kernel")
    for layer in range(settings.depth):
        ours, theirs = f"encoder.blocks.{layer}", f"Transformer/encoderblock_{layer}"
        table |= pair(f"{ours}.norm1", f"{theirs}/{block.norm1}", "scale")
        table |= pair(f"{ours}.norm2", f"{theirs}/{block.norm2}", "scale")
        table |= parts_table(ours, f"{theirs}/{block.attention}", f"{theirs}/{block.mlp}")
    return table


def parts_table(ours: str, attention: str, mlp: str) -> dict[str, str]:
    """Return the names of the attention and the MLP of `ours`, which are called `attention` and `mlp` in the file."""
    table = pair(f"{ours}.mlp.hidden", f"{mlp}/Dense_0", "kernel") | pair(f"{ours}.mlp.out", f"{mlp}/Dense_1", "kernel")
    for part in ("query", "key", "value", "out"):
        table |= pair(f"{ours}.attention.{part}", f"{attention}/{part}", "kernel")
    return table


def pair(ours: str, theirs: str, weight: str) -> dict[str, str]:
    """Return the names of the weight and the bias of a layer; in the file the weight is called `weight`."""
    return {f"{ours}.weight": f"{theirs}/{weight}", f"{ours}.bias": f"{theirs}/bias"}


def post_activation_table(depths: Sequence[int], prefix: str = "") -> dict[str, str]:
    """Return the names of a post-activation ResNet's parameters, ours behind `prefix`, mapped to the file's."""
    table = {f"{prefix}root.conv.weight": "conv_root/kernel", **pair(f"{prefix}root.norm", "gn_root", "scale")}
    for stage, depth in enumerate(depths):
        for unit in range(depth):
            ours, theirs = f"{prefix}stages.{stage}.{unit}", f"block{stage + 1}/unit{unit + 1}"
            parts = ("1", "2", "3", "_proj") if unit == 0 else ("1", "2", "3")
            for part in parts:
                table[f"{ours}.conv{part}.weight"] = f"{theirs}/conv{part}/kernel"
                table |= pair(f"{ours}.norm{part}", f"{theirs}/gn{part}", "scale")
    return table


def _embedding(settings: ViTSettings) -> str:
    return "stem.embedding.projection" if isinstance(settings.stem, ResNetStem) else "stem.projection"


def file_shape(name: str, settings: ViTSettings, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that our parameter `name` of `shape` has in the file."""
    heads = settings.num_heads
    per_head = settings.width // heads
    if name.startswith("stem.") and len(shape) == 4:
        return (*shape[2:], shape[1], shape[0])
    if name == f"{_embedding(settings)}.weight":
        patch = settings.stem.patch_size
        return (patch.height, patch.width, shape[1] // (patch.height * patch.width), shape[0])
    if re.search(r"attention\.(query|key|value)\.", name):
        return (settings.width, heads, per_head) if len(shape) == 2 else (heads, per_head)
    if name.endswith("attention.out.weight"):
        return (heads, per_head, settings.width)
    return shape[::-1] if len(shape) == 2 else shape


def to_ours(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> Tensor:
    """Return a file's array as our parameter `name` of `shape`, in float32."""
    values = np.ascontiguousarray(array, np.float32)
    if values.ndim == 4 and name.endswith(("projection.weight", *CONVOLUTIONS)):
        values = values.transpose(3, 2, 0, 1).reshape(shape)
    elif len(shape) == 2:
        values = values.reshape(shape[::-1]).T
    return torch.from_numpy(np.ascontiguousarray(values.reshape(shape)))


def to_official(name: str, tensor: Tensor, settings: ViTSettings) -> NDArray[np.float32]:
    """Return our parameter as the file's array: the inverse of `to_ours`."""
    shape = file_shape(name, settings, tuple(tensor.shape))
    values: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    if len(shape) == 4:
        height, width, channels, dim = shape
        return np.ascontiguousarray(values.reshape(dim, channels, height, width).transpose(2, 3, 1, 0))
    return np.ascontiguousarray((values.T if values.ndim == 2 else values).reshape(shape))


def export(model: Classifier) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a ViT as the paper's authors released theirs, by their names and in their shapes.

    Read back they are the same weights bit by bit. Such a file has no place for class names, `dropout`, `stochastic_depth`,
    `head_bias` and how an image is fitted, which change nothing of what the weights compute; nor for the image size: it is taken
    for that of a square grid unless `trained_size` says it.

    Raises:
        WeightsError: the model has a part or a setting that such a file cannot hold.
    """
    settings = model.settings
    if not isinstance(settings, ViTSettings):
        raise _no_place("for a ResNet")
    _check_exportable(settings, model.image_spec)
    table = name_table(settings)
    return {table[name]: to_official(name, tensor, settings) for name, tensor in model.named_parameters()}


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of an .npz file, not compressed; the same arrays give the same bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", date_time=FIRST_ZIP_DATE)
            member.create_system = 3  # or it would be the system that runs this
            with archive.open(member, "w", force_zip64=True) as file:
                npy.write_array(file, arrays[name], allow_pickle=False)
    return content.getvalue()


def _check_exportable(settings: ViTSettings, image_spec: ImageSpec) -> None:
    """Refuse what readers of a released file, ours too, would take for something else."""
    position, default = settings.position, ViTSettings()
    if settings.pool not in (ClassToken(), Mean()):
        raise _no_place(f"for pool {settings.pool}")
    if position != Learned1D() and (settings.pool.num_prefix or position != Learned1D(class_token=False)):
        raise _no_place(f"for position {position}")
    if isinstance(settings.stem, ResNetStem) and settings.stem.unit != ResNetStem().unit:
        raise _no_place(f"for stem.unit {settings.stem.unit}")
    for name in ("attention", "registers", "activation", "qkv_bias", "norm_eps", "layer_scale"):
        if getattr(settings, name) != getattr(default, name):
            raise _no_place(f"for {name} {getattr(settings, name)}")
    if (image_spec.mean, image_spec.std) != (ImageSpec().mean, ImageSpec().std):
        raise _no_place("for another range of pixel values than [-1, 1]")


def _no_place(what: str) -> WeightsError:
    return WeightsError("model", f"the released .npz layout has no place {what}", KEEP)
