"""Masked patch prediction (section 4.6, appendix B.1.2): what a patch looked like, from the patches around it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn
from torch.nn import functional

from vitlab.config import Settings
from vitlab.data.loader import EvalBatches, bad_images_error, load
from vitlab.data.source import Source
from vitlab.errors import ImageError, SettingsError
from vitlab.models.classifier import AnySettings, Classifier
from vitlab.models.vit import ViT, ViTSettings
from vitlab.nn.grid import Grid, Size
from vitlab.nn.patches import to_patches
from vitlab.nn.seed import keyed_seed

LEVELS = 8
"""Three bits a channel, bins of equal width on 0–255; the paper does not say where its bins lie."""
COLOURS = LEVELS**3
SUBPATCHES = 4
"""A patch is reduced to so many cells a side for the target "colours"."""


class MaskedPatches(Settings):
    """Corrupt half of the patch embeddings and predict what those patches looked like; labels are not used.

    Of `corrupted`, the share `masked` becomes a learned embedding, `replaced` the embedding of another patch of the same image,
    and the rest stays as it is. Every corrupted patch is predicted, from its output token by one linear layer:

    - "mean_colour": the patch's mean colour, 3 bits a channel, one of 512 (what the paper reports);
    - "colours": 4×4 such colours of the patch reduced to 4×4, the mean of 16 losses;
    - "pixels": every value of the patch, by mean squared error.

    The embeddings are corrupted before positions are added, and start at zero: the paper does not say.
    """

    type: Literal["MaskedPatches"] = "MaskedPatches"
    target: Literal["mean_colour", "colours", "pixels"] = "mean_colour"
    corrupted: Annotated[float, Field(gt=0, le=1)] = 0.5
    masked: Annotated[float, Field(ge=0, le=1)] = 0.8
    replaced: Annotated[float, Field(ge=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _shares(self) -> "MaskedPatches":
        if self.masked + self.replaced > 1 + 1e-9:
            raise ValueError(
                f"masked {self.masked:g} and replaced {self.replaced:g} are more than 1 together; "
                f"use replaced {1 - self.masked:g} at most"
            )
        return self

    def outputs(self, patch: Size) -> int:
        """Return how many numbers are predicted for a patch of `patch` pixels."""
        return {
            "mean_colour": COLOURS,
            "colours": SUBPATCHES**2 * COLOURS,
            "pixels": 3 * patch.height * patch.width,
        }[self.target]


class MaskedTask(nn.Module):
    """The mask embedding [d] and the prediction layer, and the loss of a ViT with them."""

    def __init__(self, objective: MaskedPatches, settings: AnySettings) -> None:
        super().__init__()
        if not isinstance(settings, ViTSettings):
            raise SettingsError("train.objective", "MaskedPatches needs patches to mask", "choose a ViT, --model B/16")
        if settings.num_classes is not None:
            raise SettingsError(
                "train.objective", "MaskedPatches has no use for a head", "use pretrain --recipe masked"
            )
        self.objective, self.patch = objective, settings.stem.cell
        sides = tuple(zip(settings.image_size, self.patch, strict=True))
        if Grid(*(side // cell for side, cell in sides)) != settings.grid:  # a ResNet's feature map rounds up
            near = "x".join(str(max(1, round(side / cell)) * cell) for side, cell in sides)
            raise SettingsError(
                "train.objective", f"MaskedPatches needs whole patches of {self.patch}", f"use --image-size {near}"
            )
        self.mask_embedding = nn.Parameter(torch.zeros(settings.width))
        self.prediction = nn.Linear(settings.width, objective.outputs(self.patch))
        nn.init.zeros_(self.prediction.weight)
        nn.init.zeros_(self.prediction.bias)

    def forward(
        self,
        model: Classifier,
        images: UInt8[Tensor, "b c h w"],
        labels: Int64[Tensor, "b *m"],
        generator: Generator | None = None,
    ) -> Float[Tensor, " b"]:
        """Return the loss of every image, the mean over its corrupted patches."""
        del labels
        assert isinstance(model, ViT)  # the constructor refused every other kind
        embedded = model.stem(model.image_spec.normalise(images))
        corrupted = choose(embedded.shape[0], embedded.shape[1], self.objective.corrupted, embedded.device, generator)
        tokens = self.corrupt(embedded, corrupted, generator)
        encoded = model.encode(model.sequence(tokens))[:, model.settings.num_prefix :]
        places = places_of(corrupted, how_many(corrupted.shape[1], self.objective.corrupted))
        predicted = self.prediction(_taken(encoded, places))
        losses = self.losses(predicted, _taken(to_patches(images, self.patch), places))
        return losses.unflatten(0, (images.shape[0], -1)).mean(dim=1)

    def corrupt(
        self,
        embedded: Float[Tensor, "b n d"],
        corrupted: Bool[Tensor, "b n"],
        generator: Generator | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Return the patch embeddings with those of `corrupted` masked, replaced or left."""
        b, n, _ = embedded.shape
        draw = torch.rand(b, n, device=embedded.device, generator=generator)
        step = torch.randint(1, max(n, 2), (b, n), device=embedded.device, generator=generator)
        other = (torch.arange(n, device=embedded.device) + step) % n
        shuffled = embedded.gather(1, other[:, :, None].expand_as(embedded))
        masked = corrupted & (draw < self.objective.masked)
        replaced = corrupted & ~masked & (draw < self.objective.masked + self.objective.replaced)
        tokens = torch.where(replaced[:, :, None], shuffled, embedded)
        return torch.where(masked[:, :, None], self.mask_embedding.to(tokens.dtype), tokens)

    def losses(self, predicted: Float[Tensor, "p o"], patches: UInt8[Tensor, "p v"]) -> Float[Tensor, " p"]:
        """Return the loss of each corrupted patch, given its pixels (channel, row, column)."""
        match self.objective.target:
            case "mean_colour":
                return functional.cross_entropy(predicted, colours(patches, self.patch, 1)[:, 0], reduction="none")
            case "colours":
                targets = colours(patches, self.patch, SUBPATCHES)
                each = functional.cross_entropy(
                    predicted.unflatten(1, (-1, COLOURS)).flatten(0, 1), targets.flatten(), reduction="none"
                )
                return each.unflatten(0, targets.shape).mean(dim=1)
            case "pixels":
                return (predicted - (patches.float() / 127.5 - 1)).square().mean(dim=1)


def choose(
    images: int, patches: int, share: float, device: torch.device, generator: Generator | None = None
) -> Bool[Tensor, "b n"]:
    """Return which patches are corrupted: in every image the same number, at least one."""
    order = torch.rand(images, patches, device=device, generator=generator).argsort(dim=1)
    return order < how_many(patches, share)


def how_many(patches: int, share: float) -> int:
    """Return how many patches of an image are corrupted."""
    return max(1, round(share * patches))


def places_of(chosen: Bool[Tensor, "b n"], count: int) -> Int64[Tensor, "b c"]:
    """Return where each row of `chosen` is true, `count` times: to index by it would wait for the device to have counted them."""
    return chosen.int().argsort(dim=1, descending=True, stable=True)[:, :count]


def _taken(values: Shaped[Tensor, "b n d"], places: Int64[Tensor, "b c"]) -> Shaped[Tensor, "p d"]:
    return values.gather(1, places[:, :, None].expand(-1, -1, values.shape[2])).flatten(0, 1)


def colours(patches: UInt8[Tensor, "p v"], patch: Size, side: int) -> Int64[Tensor, "p s"]:
    """Return the mean colours of side×side cells of each patch (channel, row, column), as red · 64 + green · 8 + blue."""
    pixels = patches.reshape(-1, 3, patch.height, patch.width).float()
    means = functional.adaptive_avg_pool2d(pixels, side).flatten(2)
    levels = (means / (256 / LEVELS)).long().clamp(max=LEVELS - 1)
    return (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]


@dataclass
class MaskedLoss:
    """Evaluator: the loss of `task` on a source, every image with the same patches corrupted each time."""

    source: Source
    task: nn.Module
    batch_size: int = 64
    workers: int = 0

    @torch.inference_mode()
    def __call__(self, model: Classifier) -> Mapping[str, float]:
        """Return "loss" and "count".

        Raises:
            BadImagesError: some images cannot be decoded; each is named.
        """
        model.eval()
        device = next(model.parameters()).device
        batches = EvalBatches(self.source, model.image_spec, self.batch_size)
        total = 0.0
        try:
            for index, batch in enumerate(load(batches, range(len(batches)), self.workers)):
                generator = Generator(device).manual_seed(keyed_seed("masked patches", index))
                losses = self.task(model, batch.images.to(device), batch.labels.to(device), generator)
                total += float(losses.cpu()[batch.valid].double().sum())
        except ImageError as error:
            raise bad_images_error(self.source, error, model.image_spec.limits, self.workers) from error
        return {"loss": total / len(self.source), "count": float(len(self.source))}
