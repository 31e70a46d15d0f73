"""The names and configs of the ViTs of transformers (Hugging Face), in both directions.

A model is a folder: model.safetensors with the arrays, config.json with what they do not say, preprocessor_config.json with how
images are prepared. The names in files are those of transformers 4, which transformers 5 writes too; the names that it has in
memory are read as well. Nothing in a config is ever run: names of code in it (`auto_map`) are left alone.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from vitlab.config import Json, parse
from vitlab.errors import WeightsError
from vitlab.models.classifier import Classifier
from vitlab.models.vit import Global, ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import ClassToken
from vitlab.nn.position import Learned1D
from vitlab.nn.stem import ResNetStem, Stem
from vitlab.weights import huggingface_resnet as resnet
from vitlab.weights.huggingface_config import ACTIVATIONS, Config, check, classes_of, placeholders, read_config
from vitlab.weights.layout import KEEP, Beside, Contents, Piece, Shape, Shapes, lay_out, square_size, wrong
from vitlab.weights.preprocessor import read_preprocessor, write_preprocessor

NUM_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""The heads of the well-known widths, for arrays without a config."""
BACKBONE = "embeddings.patch_embeddings.backbone.bit."
"""What stands before the names of a hybrid's ResNet."""
VERSION = "5.23.0"
"""The transformers that what is written here was compared with."""


class Naming(NamedTuple):
    """What the blocks are called in a file, and their parts by our names."""

    layers: str
    parts: Mapping[str, str]


NORMS = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
IN_FILES = Naming(
    "encoder.layer",
    {
        **NORMS,
        **{f"attention.{part}": f"attention.attention.{part}" for part in ("query", "key", "value")},
        "attention.out": "attention.output.dense",
        "mlp.hidden": "intermediate.dense",
        "mlp.out": "output.dense",
    },
)
IN_MEMORY = Naming(
    "layers",
    {
        **NORMS,
        **{f"attention.{part}": f"attention.{part[0]}_proj" for part in ("query", "key", "value", "out")},
        "mlp.hidden": "mlp.fc1",
        "mlp.out": "mlp.fc2",
    },
)


def is_huggingface(names: Iterable[str]) -> bool:
    """Return whether array `names` are those of a ViT of transformers, or of its hybrid."""
    bare = {name.removeprefix("vit.") for name in names}
    layers = {f"{naming.layers}.0.layernorm_before.weight" for naming in (IN_FILES, IN_MEMORY)}
    return {"embeddings.cls_token", "embeddings.patch_embeddings.projection.weight"} <= bare and bool(layers & bare)


def contents_of(path: Path, shapes: Shapes, beside: Beside) -> Contents:
    """Return what the file of a ViTModel, ViTForImageClassification or ViTForMaskedImageModeling holds, or of their hybrids.

    A ViTModel's pooler is the paper's representation layer. Without a config.json the number of heads is what the caller says, or
    that of the well-known widths, GELU is exact, and the epsilon of norms is transformers' 1e-12.

    Raises:
        WeightsError: the arrays are of no such model, the config contradicts them, or asks for what is not known here.
        SettingsError: no model has such settings.
    """
    prefix, naming = _prefix(shapes), _naming(shapes)
    config = read_config(Config, path, beside.config)
    settings = settings_of(path, shapes, config, beside)
    table = name_table(settings, naming, prefix)

    def piece_of(name: str, shape: Shape) -> Piece:
        if name.endswith("projection.weight"):
            height, width = settings.stem.patch_size
            there = (shape[0], shape[1] // (height * width), height, width)
            return Piece(table[name], there, lambda tensor: tensor.reshape(shape))
        return Piece(table[name], shape)

    spec = read_preprocessor(path, beside.preprocessor, settings.image_size)
    classes = classes_of(path, config, settings.num_classes)
    contents = lay_out(settings, shapes, piece_of, image_spec=spec, classes=classes)
    inside = (f"{prefix}embeddings.", f"{prefix}{naming.layers}.")
    foreign = [name for name in contents.extra if name.startswith(inside) and not name.endswith("mask_token")]
    if foreign:  # a relative of the ViT, which without them would be another model
        raise WeightsError(path, f"is no plain ViT: it has {foreign[0]!r}", "only ViTs of transformers can be read")
    return contents


def name_table(settings: ViTSettings, naming: Naming = IN_FILES, prefix: str = "vit.") -> dict[str, str]:
    """Return our parameter names mapped to the file's for a model of `settings`."""
    embeddings = f"{prefix}embeddings."
    table = {
        "class_token": f"{embeddings}cls_token",
        "position.table": f"{embeddings}position_embeddings",
        **_pair("stem.projection", f"{embeddings}patch_embeddings.projection"),
        **_pair("stem.embedding.projection", f"{embeddings}patch_embeddings.projection"),
        **_pair("encoder.norm", f"{prefix}layernorm"),
        **_pair("representation", f"{prefix}pooler.dense"),
        **_pair("head", "classifier"),
    }
    if isinstance(settings.stem, ResNetStem):
        table |= resnet.name_table(settings.stem.depths, "stem.", f"{prefix}{BACKBONE}")
    for layer in range(settings.depth):
        for ours, theirs in naming.parts.items():
            table |= _pair(f"encoder.blocks.{layer}.{ours}", f"{prefix}{naming.layers}.{layer}.{theirs}")
    return table


def settings_of(path: Path, shapes: Shapes, config: Config, beside: Beside) -> ViTSettings:
    """Return the settings of the model that arrays of `shapes` belong to, with what only the config says.

    Raises:
        WeightsError: an array that decides a setting is missing or has an impossible shape, or the config contradicts it.
        SettingsError: no model has such settings.
    """
    prefix, naming = _prefix(shapes), _naming(shapes)
    first = f"{prefix}{naming.layers}.0."
    try:
        width, *_ = shapes[f"{prefix}embeddings.patch_embeddings.projection.weight"]
        _, positions, _ = shapes[f"{prefix}embeddings.position_embeddings"]
        mlp_dim, _ = shapes[f"{first}{naming.parts['mlp.hidden']}.weight"]
        num_classes, _ = shapes.get("classifier.weight", (None, None))
        pooler = shapes.get(f"{prefix}pooler.dense.weight") if num_classes is None else None  # a classifier reads none
        representation_dim, _ = pooler or (None, None)
    except (KeyError, ValueError) as error:
        raise WeightsError(path, f"is not a complete ViT ({error})", "get the file again") from None
    stem = _stem(path, shapes, prefix, config)
    layers = re.compile(re.escape(f"{prefix}{naming.layers}.") + r"(\d+)\.")
    depth = len({match[1] for name in shapes if (match := layers.match(name))})
    qkv_bias = f"{first}{naming.parts['attention.query']}.bias" in shapes
    found = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "intermediate_size": mlp_dim,
        "patch_size": stem.patch_size,
    }
    found |= {"qkv_bias": qkv_bias} | ({"pooler_output_size": representation_dim} if representation_dim else {})
    check(path, config, found)
    settings = {
        "image_size": _image_size(path, positions - 1, stem, config.image_size or beside.trained_size),
        "stem": stem,
        "width": width,
        "depth": depth,
        "num_heads": _num_heads(path, width, config, beside),
        "mlp_dim": mlp_dim,
        "representation_dim": representation_dim,
        "activation": ACTIVATIONS[config.hidden_act],
        "qkv_bias": qkv_bias,
        "norm_eps": config.layer_norm_eps,
        "dropout": config.hidden_dropout_prob,
        "num_classes": num_classes,
    }
    return parse(ViTSettings, settings, path)


def export(model: Classifier) -> tuple[dict[str, Tensor], Json, Json]:
    """Return the arrays of `model` by their names in files, its config.json, and its preprocessor_config.json.

    What only training uses (stochastic depth, the first bias of the head) has no place there, and is left out.

    Raises:
        WeightsError: transformers has no such model.
    """
    settings = _expressible(model)
    preprocessor = write_preprocessor(model.image_spec)
    table = name_table(settings, prefix="vit." if settings.num_classes else "")
    arrays = {table[name]: tensor.detach().float().cpu().contiguous() for name, tensor in model.named_parameters()}
    projection = table["stem.projection.weight"]
    arrays[projection] = arrays[projection].reshape(settings.width, 3, *settings.stem.patch_size)
    return arrays, _config(settings, model.classes), preprocessor


def _expressible(model: Classifier) -> ViTSettings:
    """Return the settings of `model`, if transformers can have it."""
    s = model.settings
    if not isinstance(s, ViTSettings):
        raise WeightsError("the model", "is a ResNet, no ViT of transformers", KEEP)
    plain = isinstance(s.stem, Patches)
    reasons = {
        "ResNet as its stem": not plain,
        f"patches of {s.stem.patch_size}": plain and s.stem.patch_size.height != s.stem.patch_size.width,
        "axial attention": not isinstance(s.attention, Global),
        f"position {s.position.type}": not isinstance(s.position, Learned1D),
        "positions in every layer": isinstance(s.position, Learned1D) and s.position.place != "stem",
        "positions of patches only": s.position == Learned1D(class_token=False),
        f"pool {s.pool.type}": not isinstance(s.pool, ClassToken),
        "registers": s.registers > 0,
        "layer scale": s.layer_scale is not None,
    }
    for reason in (reason for reason, holds in reasons.items() if holds):
        raise _inexpressible(reason)
    if s.representation_dim and s.num_classes:
        what = "transformers has no ViT with both a representation layer and a head"
        raise WeightsError("the model", what, f"{KEEP}, or load it with representation=False")
    return s


def _inexpressible(what: str) -> WeightsError:
    return WeightsError("the model", f"transformers' ViT has no {what}", KEEP)


def _config(settings: ViTSettings, classes: tuple[str, ...]) -> Json:
    """Return the config.json of a model of `settings`; square images are a single number, as transformers has it."""
    s = settings
    height, width = s.image_size
    written = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    config: Json = {
        "architectures": ["ViTForImageClassification" if s.num_classes else "ViTModel"],
        "model_type": "vit",
        "hidden_size": s.width,
        "num_hidden_layers": s.depth,
        "num_attention_heads": s.num_heads,
        "intermediate_size": s.mlp_dim,
        "hidden_act": written[s.activation],
        "hidden_dropout_prob": s.dropout,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": s.norm_eps,
        "image_size": height if height == width else [height, width],
        "patch_size": s.stem.cell.height,
        "num_channels": 3,
        "qkv_bias": s.qkv_bias,
        "encoder_stride": s.stem.cell.height,
        "pooler_act": "tanh",
        "pooler_output_size": s.representation_dim or s.width,
        "dtype": "float32",
        "transformers_version": VERSION,
    }
    if s.num_classes:
        names = classes or placeholders(s.num_classes)
        config |= {"id2label": {str(index): name for index, name in enumerate(names)}}
        config |= {"label2id": {name: index for index, name in enumerate(names)}}
    return config


def _prefix(names: Iterable[str]) -> str:
    return "vit." if "vit.embeddings.cls_token" in names else ""


def _naming(names: Iterable[str]) -> Naming:
    first = f"{_prefix(names)}{IN_MEMORY.layers}.0."
    return IN_MEMORY if any(name.startswith(first) for name in names) else IN_FILES


def _num_heads(path: Path, width: int, config: Config, beside: Beside) -> int:
    num_heads = config.num_attention_heads or beside.num_heads
    if num_heads is None and beside.config:
        raise wrong(path, "says no num_attention_heads", "add it")
    if num_heads is None and width not in NUM_HEADS:
        what = f"does not say how many heads share its width of {width}"
        raise WeightsError(path, what, "put the config.json of the model beside it")
    if config.num_attention_heads and width % config.num_attention_heads:
        raise wrong(path, f"num_attention_heads is {config.num_attention_heads}, which does not divide {width}")
    return num_heads or NUM_HEADS[width]


def _stem(path: Path, shapes: Shapes, prefix: str, config: Config) -> Stem:
    """Return the stem that the arrays are for: patches, or a ResNet with as many stages and units as there are."""
    hybrid = f"{prefix}{BACKBONE}{resnet.ROOT}" in shapes
    if config.model_type != ("vit-hybrid" if hybrid else "vit") and "model_type" in config.model_fields_set:
        raise wrong(
            path, f"model_type is {config.model_type}, but {path.name} is {'' if hybrid else 'not '}of a hybrid"
        )
    _, channels, *patch_size = shapes[f"{prefix}embeddings.patch_embeddings.projection.weight"]
    if hybrid:
        depths, root_width, unit = resnet.shape_of(path, shapes, f"{prefix}{BACKBONE}", config.backbone_config)
        channels = shapes[f"{prefix}{BACKBONE}{resnet.ROOT}"][1]
        shape = {"depths": depths, "root_width": root_width, "patch_size": patch_size, "unit": unit}
        stem = parse(ResNetStem, shape, path)
    else:
        stem = parse(Patches, {"patch_size": patch_size}, path)
    if channels != 3:
        raise WeightsError(path, f"is for images of {channels} channels", "only RGB models can be read")
    check(path, config, {"num_channels": channels})
    return stem


def _image_size(path: Path, cells: int, stem: Stem, said: Size | None) -> Size:
    """Return the size of images: as said, if that gives so many patches, or else square."""
    if said is None:
        size = square_size(cells, stem)
        if size is None:
            raise WeightsError(path, f"has {cells} positions, not a square grid", "put its config.json beside it")
        return size
    try:
        claimed = stem.grid(said).cells
    except (ValueError, OverflowError):  # smaller than one patch, or larger than any number
        claimed = 0
    if claimed != cells:
        raise wrong(path, f"image_size is {said}, which has {claimed} patches, but {cells} in {path.name}")
    return said


def _pair(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.weight": f"{theirs}.weight", f"{ours}.bias": f"{theirs}.bias"}
