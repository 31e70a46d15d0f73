"""The precision of a training step: all float32, or products in bfloat16 where the weights stay float32."""

from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context of a forward pass and its loss; the backward pass follows what they did and is left outside.

    In bfloat16 matrix products and convolutions round what they read to 8 bits of mantissa; norms, softmax, losses, weights,
    gradients and the optimizer stay float32, and as the exponent has float32's range no loss needs scaling.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def dtype_of(precision: Precision) -> torch.dtype:
    """Return what matrix products read."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def best_precision(device: torch.device) -> Precision:
    """Return the precision that "auto" stands for: bfloat16 on a GPU that computes in it, else float32."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    return "float32"
