"""How long a run may take: said before its first step, from a measured rate and an assumed use of it."""

import torch

from vitlab.cost.flops import PASSES
from vitlab.studies.recipe import RunSettings
from vitlab.train.meter import matrix_rate, training_flops
from vitlab.train.precision import dtype_of

ASSUMED_USE = {"cpu": 0.6, "cuda": 0.35}
"""The share of a device's rate at matrix products that training uses, by kind: ViT-S/16 on two cores, ViT-g/14 on H100s. Small
models use less of a GPU."""
_OTHERWISE = 0.3
_NAMES = {"cpu": "this CPU", "cuda": "the GPU", "mps": "the GPU"}


def time_line(settings: RunSettings, world: int = 1, held_out: int = 0) -> str | None:
    """Return what to say before the first step about the time that all steps take, on `world` devices like this one.

    With the evaluations of `held_out` images each that the settings ask for. The rate is measured once a process, in about half a
    second. None for a run that ends before its progress says how much is used.
    """
    train, device = settings.train, torch.device(settings.device)
    if train.steps <= train.log_every:
        return None
    rate = world * matrix_rate(device, dtype_of(train.precision))
    share = ASSUMED_USE.get(device.type, _OTHERWISE)
    flops = training_flops(settings.model)
    made = flops * (1 + 1 / PASSES if train.remat else 1)  # layers that are computed again are one more forward pass
    speed = share * rate / made
    evaluations = train.steps // train.eval_every if train.eval_every else 1
    seconds = train.steps * train.batch_size / speed + evaluations * held_out * flops / PASSES / (share * rate)
    devices = _NAMES.get(device.type, str(device)) if world == 1 else f"{world} processes like this one"
    measured = f"{rate / 1e12:,.1f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:,.0f} GFLOP/s"
    return (
        f"about {spoken(seconds)} at {_figure(speed)} images/s, if it uses {100 * share:.0f} % of what {devices} "
        f"can do ({measured} in {train.precision}); what it really uses is said as it goes"
    )


def spoken(seconds: float) -> str:
    """Return a time for people, in its two largest units: "40 s", "12 min", "1 h 20 min", "3 d 4 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(hours + minutes / 60), 24)
    return f"{days:,} d {hours} h" if hours else f"{days:,} d"


def _figure(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
