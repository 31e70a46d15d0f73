"""What the last block saves when only the class token's output is computed, against computing every token's."""

import torch
from timing import Row, compare

from vitlab.models.catalog import build_named
from vitlab.models.vit import ViT


def _every_token(model: ViT, images: torch.Tensor) -> torch.Tensor:
    return model.head(model.pool(model.encode(model.embed(images))))


def _train(logits: torch.Tensor) -> None:
    logits.square().mean().backward()


def measure() -> list[Row]:
    rows: list[Row] = []
    for name, batch in (("S/16", 1), ("S/16", 8), ("B/16", 1)):
        model, images = build_named(name).eval(), torch.randn(batch, 3, 224, 224)
        with torch.inference_mode():
            rows.append(
                compare(
                    f"inference, {name} at 224, batch {batch}",
                    "every token of the last block",
                    lambda model=model, images=images: model(images),
                    lambda model=model, images=images: _every_token(model, images),
                )
            )
    model, images = build_named("S/16").train(), torch.randn(8, 3, 224, 224)
    rows.append(
        compare(
            "forward and backward, S/16 at 224, batch 8",
            "every token of the last block",
            lambda: _train(model(images)),
            lambda: _train(_every_token(model, images)),
        )
    )
    return rows
