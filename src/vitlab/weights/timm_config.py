"""The config.json that timm keeps beside its weights: what the arrays do not say of a model."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from vitlab.config import Settings, parse
from vitlab.data.preprocess import CentralCrop, ImageSpec, Squash
from vitlab.data.resize import Interpolation
from vitlab.errors import WeightsError
from vitlab.nn.encoder import Activation
from vitlab.nn.grid import Size, SizeField
from vitlab.nn.pooling import AttentionPool, ClassToken, Mean, Pool
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.weights.layout import Beside

HEADS = {
    **{64 * heads: heads for heads in (3, 4, 5, 6, 8, 10, 12, 14, 16)},
    **dict.fromkeys((1152, 1280, 1408, 1664), 16),
}
"""How many heads timm's ViTs of a width have; there are several with 1536."""
ODD_HEADS = {"vit_base_patch16_gap_224": 16}
"""The architectures for which that is not so."""
GLOBAL_POOL = {"ClassToken": "token", "Mean": "avg", "AttentionPool": "map"}
"""Our kinds of pooling by timm's names."""
HYBRID_UNIT = PostActivation(variance_eps=1e-8, std_eps=0.0, norm_eps=1e-5)
"""The constants of the ResNets in timm's hybrids."""
BIT_UNIT = PreActivation(variance_eps=1e-8)
"""The constants of timm's BiTs."""
TANH = re.compile(r"giantopt|so400m_patch16_siglip|base_patch32_siglip|large_patch16_siglip(_gap)?_512")
"""The architectures with the tanh form of GELU; their configs do not repeat it."""
OTHERS = re.compile(r"rope|dinov3|_pe_|_rpn_|naflex|quickgelu")
"""Architectures that compute something else with arrays of the same names."""


class ModelArgs(Settings, extra="ignore"):
    """The options of timm's constructor that arrays do not say; what is not read here shows in the arrays."""

    img_size: SizeField | None = None
    num_heads: PositiveInt | None = None
    act_layer: str | None = None
    init_values: float | None = None
    global_pool: str | None = None
    pos_embed: str = "learn"


class PretrainedCfg(Settings, extra="ignore"):
    """How timm prepares images for a model."""

    input_size: tuple[int, PositiveInt, PositiveInt] | None = None
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    interpolation: str | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    crop_mode: str | None = None


class Config(Settings, extra="ignore"):
    """A config.json of timm; everything in it may be missing."""

    architecture: str = ""
    num_classes: NonNegativeInt | None = None
    global_pool: str | None = None
    label_names: list[str] | dict[NonNegativeInt, str] | None = None
    model_args: ModelArgs = ModelArgs()
    pretrained_cfg: PretrainedCfg = PretrainedCfg()


def config_of(path: Path, beside: Beside) -> Config:
    """Return the config beside the weights `path`, empty where there is none.

    Raises:
        SettingsError: a value in it is of the wrong type.
        WeightsError: it is of an architecture that is not known here.
    """
    said = {name: value for name, value in beside.config.items() if value is not None}
    config = parse(Config, said, path.with_name("config.json"))
    if OTHERS.search(config.architecture):
        raise WeightsError(path, f"is a {config.architecture}, which is not known here", "see the README")
    return config


def size_of(config: Config, beside: Beside) -> Size | None:
    """Return the image size that the caller or the config says, None where neither does."""
    if beside.trained_size or config.model_args.img_size:
        return beside.trained_size or config.model_args.img_size
    input_size = config.pretrained_cfg.input_size
    return Size(*input_size[1:]) if input_size else None


def heads_of(path: Path, config: Config, beside: Beside, width: int) -> int:
    """Return the number of heads: what the caller or the config says, else what timm's ViTs of this width have.

    Raises:
        WeightsError: nothing says it.
    """
    heads = beside.num_heads or config.model_args.num_heads or ODD_HEADS.get(config.architecture) or HEADS.get(width)
    if heads is None:
        remedy = "give num_heads (vitlab convert --num-heads), or a config.json with model_args.num_heads beside it"
        raise WeightsError(path, f"does not say how many heads share a width of {width}", remedy)
    return heads


def activation_of(config: Config) -> Activation:
    """Return the form of GELU: the exact one unless the config or the architecture says the other.

    Raises:
        ValueError: the model has another activation.
    """
    match config.model_args.act_layer:
        case None:
            return "gelu_tanh" if TANH.search(config.architecture) else "gelu"
        case "gelu" | "gelu_tanh" as known:
            return known
        case other:
            raise ValueError(f"its act_layer '{other}' is not known here, only gelu and gelu_tanh")


def pool_of(config: Config, names: frozenset[str]) -> Pool:
    """Return the pooling that a ViT with arrays of `names` has; the config tells the class token from the mean beside one.

    Raises:
        ValueError: the config contradicts the arrays, or the pooling is not known.
    """
    stated = config.model_args.global_pool
    stated = config.global_pool if stated is None else stated
    class_token = "cls_token" in names
    pool: Pool = ClassToken()
    if "attn_pool.latent" in names:
        if class_token:
            raise ValueError("a class token beside attention pooling is not known here")
        pool = AttentionPool()
    elif "fc_norm.weight" in names:
        pool = Mean(class_token=class_token, norm="mean")
    elif not class_token or stated == "avg":
        pool = Mean(class_token=class_token)
    if stated not in (None, GLOBAL_POOL[pool.type]):
        raise ValueError(
            f"its global_pool '{stated}' contradicts its arrays, which are those of '{GLOBAL_POOL[pool.type]}'"
        )
    return pool


def spec_of(config: Config, size: Size, *, crop_pct: float, interpolation: Interpolation) -> ImageSpec:
    """Return how images are prepared; `crop_pct` and `interpolation` are what timm takes for the family.

    Raises:
        SettingsError: the interpolation is not known.
        ValueError: the way of cropping is not known.
    """
    given = config.pretrained_cfg
    fraction, mode = given.crop_pct or crop_pct, given.crop_mode or "center"
    if mode == "center":
        fit = CentralCrop(fraction=fraction)
    elif (mode, fraction) == ("squash", 1.0):
        fit = Squash()
    else:
        raise ValueError(f"its crop_mode '{mode}' with crop_pct {fraction} is not known here")
    values = {"height": size.height, "width": size.width, "fit": fit, "mean": given.mean, "std": given.std}
    return parse(ImageSpec, {**values, "interpolation": given.interpolation or interpolation}, "config.json")


def classes_of(config: Config, num_classes: int | None) -> tuple[str, ...]:
    """Return the class names that the config has for a head of `num_classes`.

    Raises:
        ValueError: the config says another number of classes, or does not name each.
    """
    found = num_classes or 0
    if config.num_classes not in (None, found):
        raise ValueError(f"its config says num_classes {config.num_classes}, its head has {found}")
    names = config.label_names or []
    if isinstance(names, dict):
        names = [names.get(index, "") for index in range(max(names) + 1)]
    if names and len(names) != found:
        raise ValueError(f"its config has {len(names)} label_names, its head {found} classes")
    return tuple(names)
