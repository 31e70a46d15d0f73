"""The config.json that timm keeps beside its weights: what the arrays do not say of a model."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field, NonNegativeInt, PositiveInt

from vitlab.config import Settings, parse
from vitlab.data.preprocess import CentralCrop, ImageSpec, Squash
from vitlab.data.resize import Interpolation
from vitlab.errors import SettingsError, WeightsError
from vitlab.nn.encoder import Activation
from vitlab.nn.grid import Size, SizeField
from vitlab.nn.pooling import AttentionPool, ClassToken, Mean, Pool
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.weights.layout import CONFIG, SAY_HEADS, Beside, wrong

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
TRAINING = r"(\w+_)?drop_rate|drop_path_rate|weight_init|fix_init|zero_init_last"
FREE = {
    "ViT": re.compile(
        rf"{TRAINING}|img_size|patch_size|in_chans|num_classes|embed_dim|depth|num_heads|mlp_ratio|qkv_bias|init_values|class_token"
        "|reg_tokens|pos_embed|no_embed_class|fc_norm|global_pool|act_layer|dynamic_img_size"
    ),
    "ResNet": re.compile(rf"{TRAINING}|img_size|in_chans|num_classes"),
}
"""The options of timm's constructor that may have any value, by kind of model: the arrays show them, they are read here, or they
change nothing that is computed from an image."""
ONLY: Mapping[str, Mapping[str, Any]] = {
    "ViT": {
        **dict.fromkeys(("qk_norm", "scale_attn_norm", "scale_mlp_norm", "pre_norm"), False),
        **dict.fromkeys(("pool_include_prefix", "dynamic_img_pad"), False),
        **dict.fromkeys(("proj_bias", "final_norm"), True),
    },
    "ResNet": {"global_pool": "avg", "output_stride": 32, "act_layer": "relu"},
}
"""The options that may have but one value; any other option is not known here, and may change what is computed."""
PREPARE = "change it, and prepare the images yourself"

Names = list[str] | dict[NonNegativeInt, str] | None


class ModelArgs(Settings, extra="allow"):
    """The options of timm's constructor; those that are read here have a type."""

    img_size: SizeField | None = None
    num_heads: PositiveInt | None = None
    act_layer: str | None = None
    init_values: float | None = None
    global_pool: str | None = None
    pos_embed: str = "learn"


class PretrainedCfg(Settings, extra="ignore"):
    """How timm prepares images for a model, and what it says of the weights that the model was trained from."""

    global_pool: str | None = None
    label_names: Names = None
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
    label_names: Names = None
    model_args: ModelArgs = ModelArgs()
    pretrained_cfg: PretrainedCfg = PretrainedCfg()

    @property
    def pooling(self) -> str | None:
        """timm's name of the pooling, None where nothing says it."""
        said = (self.model_args.global_pool, self.global_pool, self.pretrained_cfg.global_pool)
        return next((name for name in said if name is not None), None)


def config_of(path: Path, beside: Beside, kind: str) -> Config:
    """Return the config beside the weights `path` of a model of `kind`, "ViT" or "ResNet"; empty where there is none.

    Raises:
        WeightsError: a value in it is of the wrong type, or it is of a model that is not known here.
    """
    said = {name: value for name, value in beside.config.items() if value is not None}
    if "architecture" in said and "pretrained_cfg" not in said:  # as timm wrote it at first: all in one
        said = {"label_names": said.get("labels"), **said, "pretrained_cfg": said}
    try:
        config = parse(Config, said, path.with_name(CONFIG))
    except SettingsError as error:
        raise wrong(path, error.what, "correct it, or get it again") from None
    if OTHERS.search(config.architecture):
        raise WeightsError(path, f"is a {config.architecture}, which is not known here", "see the README")
    args = config.model_args.model_dump(exclude_unset=True) | {"global_pool": config.pooling}
    for name, value in args.items():
        if not (value is None or FREE[kind].fullmatch(name) or (name in ONLY[kind] and value == ONLY[kind][name])):
            known = f"only {json.dumps(ONLY[kind][name])} is" if name in ONLY[kind] else "nor what it changes"
            raise wrong(path, f"{name} {json.dumps(value)} is not known here, {known}", "see the README")
    return config


def size_of(config: Config, beside: Beside) -> Size | None:
    """Return the image size that the config or else the caller says, None where neither does."""
    input_size = config.pretrained_cfg.input_size
    return config.model_args.img_size or (Size(*input_size[1:]) if input_size else beside.trained_size)


def heads_of(path: Path, config: Config, beside: Beside, width: int) -> int:
    """Return the number of heads: what the config or else the caller says, else what timm's ViTs of this width have.

    Raises:
        WeightsError: nothing says it, or the config says what does not divide the width.
    """
    said = config.model_args.num_heads
    if said and width % said:
        raise wrong(path, f"num_heads is {said}, which does not divide {width}")
    heads = said or ODD_HEADS.get(config.architecture) or beside.num_heads or HEADS.get(width)
    if heads is None:
        raise WeightsError(path, f"does not say how many heads share a width of {width}", SAY_HEADS)
    return heads


def activation_of(path: Path, config: Config) -> Activation:
    """Return the form of GELU: the exact one unless the config or the architecture says the other.

    Raises:
        WeightsError: the model has another activation.
    """
    match config.model_args.act_layer:
        case None:
            return "gelu_tanh" if TANH.search(config.architecture) else "gelu"
        case "gelu" | "gelu_tanh" as known:
            return known
        case other:
            raise wrong(path, f"act_layer '{other}' is not known here, only gelu and gelu_tanh", "see the README")


def pool_of(path: Path, config: Config, names: frozenset[str]) -> Pool:
    """Return the pooling that a ViT with arrays of `names` has; the config tells the class token from the mean beside one.

    Raises:
        WeightsError: the config contradicts the arrays, or the pooling is not known.
    """
    stated, class_token = config.pooling, "cls_token" in names
    if stated not in (None, *GLOBAL_POOL.values()):
        known = ", ".join(GLOBAL_POOL.values())
        raise wrong(path, f"global_pool '{stated}' is not known here, only {known}", "see the README")
    pool: Pool = ClassToken()
    if "attn_pool.latent" in names:
        if class_token:
            raise WeightsError(
                path, "has a class token beside attention pooling, as no model known here", "see the README"
            )
        pool = AttentionPool()
    elif "fc_norm.weight" in names:
        pool = Mean(class_token=class_token, norm="mean")
    elif not class_token or stated == "avg":
        pool = Mean(class_token=class_token)
    if stated not in (None, GLOBAL_POOL[pool.type]):
        raise wrong(path, f"global_pool is '{stated}', but '{GLOBAL_POOL[pool.type]}' in {path.name}")
    return pool


def spec_of(path: Path, config: Config, size: Size, *, crop_pct: float, interpolation: Interpolation) -> ImageSpec:
    """Return how images are prepared; `crop_pct` and `interpolation` are what timm takes for the family.

    Raises:
        WeightsError: the interpolation or the way of cropping is not known.
    """
    given = config.pretrained_cfg
    fraction, mode = given.crop_pct or crop_pct, given.crop_mode or "center"
    known = get_args(Interpolation)
    if given.interpolation not in (None, *known):
        raise wrong(
            path, f"interpolation '{given.interpolation}' is not known here, only {' and '.join(known)}", PREPARE
        )
    if mode == "center":
        fit = CentralCrop(fraction=fraction)
    elif (mode, fraction) == ("squash", 1.0):
        fit = Squash()
    else:
        what = f"crop_mode '{mode}' with crop_pct {fraction} is not known here, only 'center', or 'squash' with 1.0"
        raise wrong(path, what, PREPARE)
    values = {"height": size.height, "width": size.width, "fit": fit, "mean": given.mean, "std": given.std}
    return parse(ImageSpec, {**values, "interpolation": given.interpolation or interpolation}, CONFIG)


def classes_of(path: Path, config: Config, num_classes: int | None) -> tuple[str, ...]:
    """Return the class names that the config has for a head of `num_classes`.

    Raises:
        WeightsError: the config says another number of classes, or does not name each.
    """
    found = num_classes or 0
    if config.num_classes not in (None, found):
        raise wrong(path, f"num_classes is {config.num_classes}, but {found} in {path.name}")
    names, old = _listed(config.label_names), _listed(config.pretrained_cfg.label_names)
    if names and len(names) != found:
        raise wrong(path, f"label_names has {len(names)} names, but there are {found} classes in {path.name}")
    return names or (old if len(old) == found else ())  # the names before training may be of another head


def _listed(names: Names) -> tuple[str, ...]:
    if isinstance(names, dict):
        names = [names.get(index, "") for index in range(min(max(names, default=-1), 1 << 20) + 1)]
    return tuple(names or ())
