"""The Vision Transformer (sections 3.1 and appendix A): plain, hybrid and axial."""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from vitlab.config import Settings
from vitlab.data.labels import Probabilities
from vitlab.data.preprocess import ImageSpec
from vitlab.nn import position
from vitlab.nn.axial import AxialBlock
from vitlab.nn.bounds import MAX_TOKEN_VALUES, Count, Dimension, check_layers
from vitlab.nn.encoder import Activation, Block, BlockSettings, Encoder
from vitlab.nn.grid import Grid, Size, SizeField
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import ClassToken, Mean, Pool, build_pooling
from vitlab.nn.position import AddedPosition, Learned1D, Position, Relative
from vitlab.nn.stem import ResNetStem, Stem

CHANNELS = 3


class Global(Settings):
    """Every token attends to every token (the paper's default)."""

    type: Literal["Global"] = "Global"


class Axial(Settings):
    """Tokens attend within their column, then within their row: two blocks in the place of one (appendix D.6)."""

    type: Literal["Axial"] = "Axial"


class ViTSettings(Settings):
    """Everything that builds a ViT; the defaults are ViT-B/16 at 224 px with 1,000 classes (table 1).

    `activation` is the tanh form of GELU because every released checkpoint was trained with it. `representation_dim` is the
    width of the tanh layer before the head, which pre-training has and fine-tuning drops. `dropout` acts after the position
    embedding, the attention output and both MLP layers. `head_bias` starts at -10 for sigmoid pre-training. `num_classes=None`
    leaves out the head: the model returns features.

    Not in the paper and off by default: `registers` (extra tokens without positions, Darcet et al. 2024), `stochastic_depth` (the
    rate of the last block, from 0 at the first, Huang et al. 2016), `layer_scale` (its first value, Touvron et al. 2021).
    `qkv_bias=False`, `position.class_token`, `pool.class_token` and `pool.norm` are for weights of other libraries.
    """

    type: Literal["ViT"] = "ViT"
    image_size: SizeField = Size(224, 224)
    stem: Annotated[Stem, Field(discriminator="type")] = Patches()
    width: Dimension = 768
    depth: Dimension = 12
    num_heads: Dimension = 12
    mlp_dim: Dimension = 3072
    attention: Annotated[Global | Axial, Field(discriminator="type")] = Global()
    position: Annotated[Position, Field(discriminator="type")] = Learned1D()
    pool: Annotated[Pool, Field(discriminator="type")] = ClassToken()
    registers: Count = 0
    representation_dim: Dimension | None = None
    activation: Activation = "gelu_tanh"
    qkv_bias: bool = True
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layer_scale: PositiveFloat | None = None
    num_classes: Dimension | None = 1000
    head_bias: float = 0.0

    @model_validator(mode="after")
    def _fits(self) -> "ViTSettings":
        check_layers(self.num_layers)
        if self.width % self.num_heads:  # 1 divides any width: what is farther than 1 need not be tried
            near = [heads for heads in range(1, min(self.width, 2 * self.num_heads) + 1) if self.width % heads == 0]
            best = min(near, key=lambda heads: abs(heads - self.num_heads))
            raise ValueError(
                f"a width of {self.width} does not divide into {self.num_heads} heads; use num_heads {best}"
            )
        pieces = {"Learned2D": 2, "SinCos2D": 4}.get(self.position.type, 1)
        if self.width % pieces:
            step = math.lcm(pieces, self.num_heads)  # or the advice would be refused for the heads
            near_width = max(1, round(self.width / step)) * step
            raise ValueError(
                f"position {self.position.type} needs a width that is a multiple of {pieces}, not {self.width}; use {near_width}"
            )
        if isinstance(self.attention, Axial):
            self._check_axial()
        if self.num_tokens * self.width > MAX_TOKEN_VALUES:
            remedy = "fewer registers" if self.registers > self.grid.cells else "a smaller image_size"
            raise ValueError(
                f"{self.num_tokens:,} tokens of width {self.width:,} are more than a model can hold; use {remedy}"
            )
        return self

    def _check_axial(self) -> None:
        """Refuse what does not stay on the grid."""
        if self.num_prefix:
            remedy = "pool Mean" if self.pool.num_prefix else "registers 0"
            if isinstance(self.pool, Mean) and self.pool.class_token:
                remedy = "pool.class_token false"
            raise ValueError(
                f"axial attention keeps tokens on their grid, without class token or registers; use {remedy}"
            )
        if isinstance(self.position, Relative) or self.position.place not in ("stem", None):
            remedy = "position Learned2D" if isinstance(self.position, Relative) else "place stem"
            raise ValueError(f"axial attention has its positions after the stem; use {remedy}")

    @property
    def family(self) -> str:
        """What people call such a model."""
        return "A hybrid Vision Transformer" if isinstance(self.stem, ResNetStem) else "A Vision Transformer"

    def describe(self) -> str:
        """Return the dimensions in a line, for people."""
        return f"width {self.width}, depth {self.depth}, patch {self.stem.cell}, image {self.image_size}"

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches."""
        return self.stem.grid(self.image_size)

    @property
    def num_prefix(self) -> int:
        """How many tokens stand before the patches: the class token and the registers."""
        return self.pool.num_prefix + self.registers

    @property
    def num_tokens(self) -> int:
        """How many tokens the encoder reads."""
        return self.grid.cells + self.num_prefix

    @property
    def num_layers(self) -> int:
        """How many blocks lie on each other, a hybrid's units too."""
        return self.depth + (sum(self.stem.depths) if isinstance(self.stem, ResNetStem) else 0)

    @property
    def floats_per_image(self) -> int:
        """About how many numbers a training step keeps for each image, for the backward pass."""
        blocks = self.depth * (2 if isinstance(self.attention, Axial) else 1)
        return self.num_tokens * blocks * self._floats_per_token + self.stem.floats_per_image(self.image_size)

    @property
    def remat_floats_per_image(self) -> int:
        """The same where every layer is computed again: what goes into each, all of one, and the gradients inside it."""
        blocks = 2 if isinstance(self.attention, Axial) else 1
        inside = blocks * self._floats_per_token + 4 * self.width + 2 * self.mlp_dim
        return self.num_tokens * (self.depth * self.width + inside) + self.stem.remat_floats_per_image(self.image_size)

    @property
    def forward_floats_per_image(self) -> int:
        """About how many numbers inference holds at once for each image: the image, and the largest layer from input to output."""
        logits = 3 * self.num_heads * self.num_tokens if isinstance(self.position, Relative) else 0
        block = self.num_tokens * max(7 * self.width + logits, 5 * self.width + 2 * self.mlp_dim)
        return CHANNELS * math.prod(self.image_size) + max(block, self.stem.forward_floats_per_image(self.image_size))

    @property
    def _floats_per_token(self) -> int:
        """What a block keeps: nine times its width around attention, what goes into the GELU, and what comes out."""
        logits = 2 * self.num_heads * self.num_tokens if isinstance(self.position, Relative) else 0
        noise = 2 * self.width + 2 * self.mlp_dim if self.dropout else 0
        scaled = 2 * self.width if self.layer_scale else 0
        return 9 * self.width + 2 * self.mlp_dim + logits + noise + scaled


class ViT(nn.Module):
    """A Vision Transformer in four public stages: embed, encode, pool, head.

    The constructor leaves parameters unwritten; `build` initialises them and `vitlab.load` reads them from a file.
    """

    def __init__(
        self, settings: ViTSettings, image_spec: ImageSpec | None = None, classes: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        s = settings
        self.settings = s
        self.image_spec = image_spec or ImageSpec(height=s.image_size.height, width=s.image_size.width)
        self.classes = classes
        self.probabilities: Probabilities = "softmax"
        self.stem = s.stem.build(CHANNELS, s.width, s.image_size)
        self.class_token = nn.Parameter(torch.empty(1, 1, s.width)) if s.pool.num_prefix else None
        self.registers = nn.Parameter(torch.empty(1, s.registers, s.width)) if s.registers else None
        self.position = self._position() if s.position.place in ("stem", "shared") else None
        self.dropout = nn.Dropout(s.dropout)
        block = BlockSettings(
            s.width,
            s.num_heads,
            s.mlp_dim,
            s.activation,
            s.norm_eps,
            s.dropout,
            layer_scale=s.layer_scale is not None,
            relative_tokens=s.num_tokens if isinstance(s.position, Relative) else None,
            qkv_bias=s.qkv_bias,
        )
        norm_eps = None if isinstance(s.pool, Mean) and s.pool.norm == "mean" else s.norm_eps
        self.encoder = Encoder([self._block(block, layer) for layer in range(s.depth)], s.width, norm_eps)
        self.pooling = build_pooling(s.pool, block, s.num_prefix)
        feature_dim = s.representation_dim or s.width
        self.representation = nn.Linear(s.width, feature_dim) if s.representation_dim else None
        self.head = nn.Linear(feature_dim, s.num_classes) if s.num_classes else nn.Identity()

    def _block(self, block: BlockSettings, layer: int) -> nn.Module:
        s = self.settings
        drop_rate = s.stochastic_depth * layer / max(s.depth - 1, 1)
        if isinstance(s.attention, Axial):
            return AxialBlock(block, s.grid, drop_rate)
        position = self._position() if s.position.place == "layers" else None
        return Block(block, drop_rate, self.position if s.position.place == "shared" else position)

    def _position(self) -> AddedPosition | None:
        s = self.settings
        return s.position.build(s.grid, s.pool.num_prefix, s.width)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of `images`, which are in the value range of `image_spec` (features where there is no head)."""
        return self.head(self.features(images))

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b r"]:
        """Return what the head reads: the pooled output, after the representation layer where there is one."""
        return self.pool(self.encode(self.embed(images), self.settings.pool.num_inputs))

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Return the tokens: class token, registers and embedded patches, with their positions (equation 1).

        Raises:
            ValueError: the images give another grid than the model was built for.
        """
        self._check_size(images)
        return self.sequence(self.stem(images))

    def sequence(self, patches: Float[Tensor, "b p d"]) -> Float[Tensor, "b n d"]:
        """Return the embedded patches as the encoder's input: behind class token and registers, with their positions."""
        extra = [token for token in (self.class_token, self.registers) if token is not None]
        tokens = torch.cat([*(token.expand(patches.shape[0], -1, -1) for token in extra), patches], dim=1)
        if self.position is not None and self.settings.position.place == "stem":
            tokens = self.position(tokens)
        return self.dropout(tokens)

    def encode(self, tokens: Float[Tensor, "b n d"], num_outputs: int | None = None) -> Float[Tensor, "b q d"]:
        """Return the first `num_outputs` encoded tokens, all when None (equations 2–4)."""
        return self.encoder(tokens, num_outputs)

    def pool(self, encoded: Float[Tensor, "b n d"]) -> Float[Tensor, "b r"]:
        """Return one vector an image: the pooled tokens, then the tanh layer where there is one."""
        pooled = self.pooling(encoded)
        return pooled if self.representation is None else torch.tanh(self.representation(pooled))

    def _check_size(self, images: Float[Tensor, "b c h w"]) -> None:
        grid = self.settings.stem.grid(Size(images.shape[2], images.shape[3]))
        if grid != self.settings.grid:
            raise ValueError(
                f"images of {images.shape[2]}×{images.shape[3]} pixels have {grid} patches, the model was built for "
                f"{self.settings.grid}; give the size when it is built or loaded (image_size=...)"
            )


def resize(name: str, values: Tensor, old: ViTSettings, new: ViTSettings) -> Tensor | None:
    """Return the parameter `name` for the grid of `new`, None when it does not depend on the grid."""
    part, _, leaf = name.rpartition(".")
    if not part.endswith(("position", "attention.relative")):
        return None
    return position.resize(old.position, leaf, values, old.pool.num_prefix, old.grid, new.grid)
