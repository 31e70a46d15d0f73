"""The Vision Transformer (sections 3.1 and appendix A)."""

import logging
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vitlab.config import Settings
from vitlab.data.preprocess import ImageSpec
from vitlab.nn.encoder import Activation, Block, Encoder
from vitlab.nn.grid import Grid, Size, SizeField, grid_of, remainder_of
from vitlab.nn.initial import initialise, vit_table
from vitlab.nn.patches import PatchEmbedding, Patches
from vitlab.nn.pooling import ClassToken, Pool
from vitlab.nn.position import Learned1D, LearnedPosition

CHANNELS = 3
log = logging.getLogger("vitlab")


class ViTSettings(Settings):
    """Everything that builds a ViT; the defaults are ViT-B/16 at 224 px with 1,000 classes (table 1).

    `activation` is the tanh form of GELU because every released checkpoint was trained with it. `representation_dim` is the
    width of the tanh layer before the head, which pre-training has and fine-tuning drops. `dropout` acts after the position
    embedding, the attention output and both MLP layers. `head_bias` starts at -10 for sigmoid pre-training. `num_classes=None`
    leaves out the head: the model returns features.
    """

    type: Literal["ViT"] = "ViT"
    image_size: SizeField = Size(224, 224)
    stem: Patches = Patches()
    width: PositiveInt = 768
    depth: PositiveInt = 12
    num_heads: PositiveInt = 12
    mlp_dim: PositiveInt = 3072
    position: Learned1D = Learned1D()
    pool: Annotated[Pool, Field(discriminator="type")] = ClassToken()
    representation_dim: PositiveInt | None = None
    activation: Activation = "gelu_tanh"
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    num_classes: PositiveInt | None = 1000
    head_bias: float = 0.0

    @model_validator(mode="after")
    def _fits(self) -> "ViTSettings":
        if self.width % self.num_heads:
            raise ValueError(
                f"a width of {self.width} does not divide into {self.num_heads} heads; change width or num_heads"
            )
        grid_of(self.image_size, self.stem.patch_size)
        return self

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches."""
        return grid_of(self.image_size, self.stem.patch_size)


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
        self.stem = PatchEmbedding(s.stem, CHANNELS, s.width)
        prefix = s.pool.num_prefix
        self.class_token = nn.Parameter(torch.empty(1, 1, s.width)) if prefix else None
        self.position = LearnedPosition(s.grid, prefix, s.width)
        self.dropout = nn.Dropout(s.dropout)
        blocks = [
            Block(s.width, s.num_heads, s.mlp_dim, activation=s.activation, norm_eps=s.norm_eps, dropout=s.dropout)
            for _ in range(s.depth)
        ]
        self.encoder = Encoder(blocks, s.width, s.norm_eps)
        feature_dim = s.representation_dim or s.width
        self.representation = nn.Linear(s.width, feature_dim) if s.representation_dim else None
        self.head = nn.Linear(feature_dim, s.num_classes) if s.num_classes else nn.Identity()

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of `images`, which are in the value range of `image_spec` (features where there is no head)."""
        return self.head(self.features(images))

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b r"]:
        """Return what the head reads: the pooled output, after the representation layer where there is one."""
        return self.pool(self.encode(self.embed(images), self.settings.pool.num_inputs))

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Return the tokens: embedded patches behind the class token, with their positions (equation 1).

        Raises:
            ValueError: the images give another grid than the position table is for.
        """
        grid = self.stem.grid(Size(images.shape[2], images.shape[3]))
        if grid != self.position.grid:
            raise ValueError(
                f"images of {images.shape[2]}×{images.shape[3]} pixels have {grid} patches, the model was built for "
                f"{self.position.grid}; give the size when it is built or loaded (image_size=...)"
            )
        tokens = self.stem(images)
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return self.dropout(self.position(tokens))

    def encode(self, tokens: Float[Tensor, "b n d"], num_outputs: int | None = None) -> Float[Tensor, "b q d"]:
        """Return the first `num_outputs` encoded tokens, all when None (equations 2–4)."""
        return self.encoder(tokens, num_outputs)

    def pool(self, encoded: Float[Tensor, "b n d"]) -> Float[Tensor, "b r"]:
        """Return one vector an image: the pooled tokens, then the tanh layer where there is one."""
        pooled = self.settings.pool.pool(encoded)
        return pooled if self.representation is None else torch.tanh(self.representation(pooled))


def empty(settings: ViTSettings, image_spec: ImageSpec | None = None, classes: tuple[str, ...] = ()) -> ViT:
    """Return a ViT on the meta device: shapes without memory, for counting parameters or to be filled."""
    with torch.device("meta"):
        return ViT(settings, image_spec, classes)


def build(settings: ViTSettings, seed: int = 0, classes: tuple[str, ...] = ()) -> ViT:
    """Return a ViT with fresh weights, a pure function of `settings` and `seed`."""
    model = empty(settings, classes=classes)
    initialise(model, vit_table(settings.head_bias), seed)
    say_remainder(settings)
    return model


def say_remainder(settings: ViTSettings) -> None:
    """Log which pixels the model never sees because they fill no patch."""
    rows, columns = remainder_of(settings.image_size, settings.stem.patch_size)
    if rows or columns:
        log.warning(
            "image size %s is not a multiple of patch size %s: %d rows at the bottom and %d columns at the right are not seen",
            settings.image_size,
            settings.stem.patch_size,
            rows,
            columns,
        )
