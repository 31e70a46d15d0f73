"""How much memory training takes, by part: estimated from settings, before anything is computed."""

from dataclasses import asdict, dataclass

from vitlab.models.classifier import AnySettings, empty

FLOAT, HALF = 4, 2
"""Bytes of a number in float32 and in bfloat16."""
HALF_SHARE = 0.55
"""What is kept for the backward pass in bfloat16, of what is kept in float32: norms and the residual stream stay float32."""


@dataclass(frozen=True)
class Memory:
    """Bytes that training takes on a device, besides the program itself.

    `activations` are what the forward pass of one piece keeps for the backward pass; `copies` what a checkpoint is written from
    while training goes on, which is in the memory of the machine.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    copies: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(asdict(self).values())

    @property
    def parts(self) -> str:
        """Each of them, for people."""
        return ", ".join(f"{name} {gigabytes(size)}" for name, size in asdict(self).items() if size)

    def __str__(self) -> str:
        return f"{gigabytes(self.total)} ({self.parts})"


def training_memory(
    model: AnySettings,
    images: int,
    *,
    moments: float = 8,
    sums: int = 1,
    half: bool = False,
    remat: bool = False,
    on_host: bool = True,
) -> Memory:
    """Return what a step takes that computes `images` at a time, as tensors; the allocator's own losses come on top.

    `moments` are the optimizer's bytes a parameter: 8 for Adam, 4 for SGD with momentum. `sums` are the gradients that are kept
    at once. `half` is bfloat16 under autocast, which also keeps a copy of the weights. `remat` keeps only what goes into each
    layer. `on_host` says that the device's memory is the machine's.
    """
    parameters = sum(parameter.numel() for parameter in empty(model).parameters())
    weights, optimizer = FLOAT * parameters, round(moments * parameters)
    activations = images * bytes_per_image(model, half=half, remat=remat) + (HALF * parameters if half else 0)
    return Memory(weights, sums * weights, optimizer, activations, weights + optimizer if on_host else 0)


def bytes_per_image(model: AnySettings, *, half: bool = False, remat: bool = False) -> int:
    """Return what the forward pass keeps of each image for the backward pass."""
    kept = FLOAT * (model.remat_floats_per_image if remat else model.floats_per_image)
    return round(HALF_SHARE * kept) if half else kept


def forward_bytes_per_image(model: AnySettings) -> int:
    """Return what inference in float32 holds at once of each image."""
    return FLOAT * model.forward_floats_per_image


def gigabytes(size: float) -> str:
    """Return a number of bytes for people: "3.1 GB", and below a tenth of one "52 MB"."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.0f} MB"
