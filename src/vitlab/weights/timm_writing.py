"""The config.json with which timm, and transformers through it, build one of our models; or why they cannot."""

import math
from collections.abc import Mapping
from typing import Any

from vitlab.config import Json, parse, to_json
from vitlab.data.preprocess import ImageSpec, Squash
from vitlab.errors import SettingsError, WeightsError
from vitlab.models.classifier import AnySettings
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import CHANNELS, Axial, ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.pooling import Mean
from vitlab.nn.position import Learned1D, NoPosition
from vitlab.nn.resnet import feature_size, output_channels
from vitlab.nn.stem import ResNetStem
from vitlab.weights.layout import KEEP
from vitlab.weights.timm_config import BIT_UNIT, GLOBAL_POOL, HYBRID_UNIT

ROOT_WIDTH = 64
NORM_EPS = 1e-6
VITS = {
    (192, 12, 3): "tiny",
    (384, 12, 6): "small",
    (768, 12, 12): "base",
    (1024, 24, 16): "large",
    (1280, 32, 16): "huge",
}
"""timm's names of a width, a depth and a number of heads."""
PATCHES = {"tiny": (16,), "small": (8, 16, 32), "base": (8, 16, 32), "large": (14, 16, 32), "huge": (14,)}
AT_384 = {
    "tiny_patch16",
    "small_patch16",
    "small_patch32",
    "base_patch16",
    "base_patch32",
    "large_patch16",
    "large_patch32",
}
ANY_VIT = "vit_base_patch16_224"
"""The architecture whose every option is replaced, for a shape that has no name."""
HYBRIDS: Mapping[tuple[int, ...], str] = {
    (): "vit_tiny_r_s16_p8_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
}
"""An architecture for each ResNet that has one; the ViT behind it is replaced."""
BITS: Mapping[tuple[int, ...], str] = {(3, 4, 6, 3): "50", (3, 4, 23, 3): "101", (3, 8, 36, 3): "152"}
BIT_WIDTHS: Mapping[str, tuple[int, ...]] = {"50": (1, 3), "101": (1, 3), "152": (2, 4)}


def config_of(settings: AnySettings, spec: ImageSpec, classes: tuple[str, ...]) -> Json:
    """Return the config.json of a model.

    `model_args` has no num_classes: transformers gives that option a second time and fails. `label_names` is a list, of which
    transformers keeps the names; of a dictionary it does not. Under "vitlab" are the settings that timm has no words for.

    Raises:
        WeightsError: timm has no such model.
    """
    num_classes = settings.num_classes or 0
    resnet = isinstance(settings, ResNetSettings)
    width = output_channels(settings.depths, settings.root_width) if resnet else settings.width
    pretrained = {
        "tag": "vitlab",
        "custom_load": False,
        "input_size": [CHANNELS, *settings.image_size],
        "fixed_input_size": not resnet,
        "interpolation": spec.interpolation,
        "crop_pct": 1.0 if isinstance(spec.fit, Squash) else spec.fit.fraction,
        "crop_mode": "squash" if isinstance(spec.fit, Squash) else "center",
        "mean": list(spec.mean),
        "std": list(spec.std),
        "num_classes": num_classes,
        "pool_size": None,
        "first_conv": _first_convolution(settings),
        "classifier": "head.fc" if resnet else "head",
    }
    return {
        "architecture": architecture_of(settings),
        "num_classes": num_classes,
        "num_features": width,
        "global_pool": "avg" if resnet else GLOBAL_POOL[settings.pool.type],
        **({"label_names": list(classes)} if classes else {}),
        "model_args": model_args(settings),
        "pretrained_cfg": pretrained,
        "vitlab": {"schema": 1, "exif": True, "settings": to_json(settings)},
    }


def recorded(config: Mapping[str, Any], num_arrays: int) -> AnySettings | None:
    """Return the settings that our own config.json holds, None where it is another's, or was changed since we wrote it.

    A file of `num_arrays` has no model with more layers.
    """
    block = config.get("vitlab")
    if not isinstance(block, dict) or not isinstance(block.get("settings"), dict):
        return None
    kind = ResNetSettings if block["settings"].get("type") == "ResNet" else ViTSettings
    try:
        settings = parse(kind, block["settings"], "config.json")
        same = settings.num_layers <= num_arrays and all(
            config.get(name) == value
            for name, value in config_of(settings, ImageSpec(), ()).items()
            if name in ("architecture", "num_classes", "global_pool", "model_args")
        )
    except (SettingsError, WeightsError):
        return None
    return settings if same else None


def architecture_of(settings: AnySettings) -> str:
    """Return timm's name for a model, or for the nearest one, of which `model_args` replaces the rest.

    Raises:
        WeightsError: timm has no such model.
    """
    if isinstance(settings, ResNetSettings):
        return _bit(settings)
    _check_vit(settings)
    if isinstance(settings.stem, ResNetStem):
        return HYBRIDS[settings.stem.depths]
    kind, patch = VITS.get((settings.width, settings.depth, settings.num_heads)), settings.stem.patch_size
    if kind is None or patch.height != patch.width or patch.height not in PATCHES[kind]:
        return ANY_VIT
    name = f"{kind}_patch{patch.height}"
    return f"vit_{name}_{384 if settings.image_size == Size(384, 384) and name in AT_384 else 224}"


def model_args(settings: AnySettings) -> Json:
    """Return the options of timm's constructor for a model."""
    if isinstance(settings, ResNetSettings):
        return {"in_chans": CHANNELS}
    s, patch = settings, settings.stem.patch_size
    options: Json = {
        "img_size": list(s.image_size),
        "in_chans": CHANNELS,
        "patch_size": patch.height if patch.height == patch.width else list(patch),
        "embed_dim": s.width,
        "depth": s.depth,
        "num_heads": s.num_heads,
        "mlp_ratio": _ratio(s.width, s.mlp_dim),
        "qkv_bias": s.qkv_bias,
        "class_token": s.pool.num_prefix > 0,
        "reg_tokens": s.registers,
        "no_embed_class": isinstance(s.position, Learned1D) and (not s.position.class_token or s.registers > 0),
        "pos_embed": "none" if isinstance(s.position, NoPosition) else "learn",
        "global_pool": GLOBAL_POOL[s.pool.type],
        "fc_norm": isinstance(s.pool, Mean) and s.pool.norm == "mean",
        "act_layer": s.activation,
    }
    if s.layer_scale is not None:
        options["init_values"] = s.layer_scale
    if s.dropout:
        options |= {"pos_drop_rate": s.dropout, "proj_drop_rate": s.dropout}
    return options | ({"drop_path_rate": s.stochastic_depth} if s.stochastic_depth else {})


def _ratio(width: int, mlp_dim: int) -> float:
    """Return the ratio of which timm makes `mlp_dim` again, rounding down."""
    ratio = mlp_dim / width
    return ratio if int(width * ratio) == mlp_dim else math.nextafter(ratio, math.inf)


def _first_convolution(settings: AnySettings) -> str:
    if isinstance(settings, ResNetSettings):
        return "stem.conv"
    if isinstance(settings.stem, ResNetStem):
        return "patch_embed.backbone." + ("stem.conv" if settings.stem.depths else "conv")
    return "patch_embed.proj"


def _check_vit(settings: ViTSettings) -> None:
    """Refuse what timm's VisionTransformer does not have."""
    s = settings
    if s.representation_dim:
        raise _refusal("a representation layer", "--to huggingface")
    if s.pool.type not in GLOBAL_POOL:
        raise _refusal(f"pooling of the kind {s.pool.type}")
    if isinstance(s.attention, Axial):
        raise _refusal("axial attention")
    if not isinstance(s.position, Learned1D | NoPosition) or s.position.place not in ("stem", None):
        raise _refusal(f"positions of the kind {s.position.type} in that place")
    if s.registers and isinstance(s.position, Learned1D) and s.position.class_token and s.pool.num_prefix:
        raise _refusal("registers without positions beside a class token with one")
    if s.norm_eps != NORM_EPS:
        raise _refusal(f"an epsilon of {s.norm_eps} in its LayerNorms", "--to huggingface")
    if isinstance(s.stem, ResNetStem):
        _check_stem(s.stem, s.image_size)


def _check_stem(stem: ResNetStem, image: Size) -> None:
    features = feature_size(image, stem.depths)
    if stem.unit != HYBRID_UNIT:
        raise _refusal("a ResNet with the constants of the paper's code")
    if stem.root_width != ROOT_WIDTH or stem.depths not in HYBRIDS:
        raise _refusal(f"a hybrid on a ResNet of {stem.depths} units and width {stem.root_width}")
    if features.height % stem.patch_size.height or features.width % stem.patch_size.width:
        raise _refusal(f"a feature map of {features} cells cut into patches of {stem.patch_size}")


def _bit(settings: ResNetSettings) -> str:
    depth, width = BITS.get(settings.depths, ""), settings.root_width // ROOT_WIDTH
    if settings.unit != BIT_UNIT:
        raise _refusal("a ResNet with these units and constants")
    if settings.root_width % ROOT_WIDTH or width not in BIT_WIDTHS.get(depth, ()):
        raise _refusal(f"a BiT of {settings.depths} units and width {settings.root_width}")
    return f"resnetv2_{depth}x{width}_bit"


def _refusal(what: str, other: str = "") -> WeightsError:
    more = f" or {other}" if other else ""
    return WeightsError("timm", f"has no model with {what}", KEEP + more)
