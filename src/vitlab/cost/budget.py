"""How much compute a number of devices gives in a time: "8xH200 24h"."""

import csv
import math
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import NamedTuple

from vitlab.config import nearest
from vitlab.errors import SettingsError

UTILISATION = 0.4
"""The share of a device's peak rate that training is taken to use.

The paper's own runs used 43 % (L/16 on JFT: 1,567 exaFLOPs in 680 TPUv3-core-days) and 32 % (H/14: 4,259 in 2,500); published
training of ViT-g/14 on H100s used 29 %.
"""
EXA, TERA = 1e18, 1e12
HOURS = {"min": 1 / 60, "minute": 1 / 60, "h": 1, "hour": 1, "d": 24, "day": 24, "w": 168, "week": 168}
EXAMPLE = "write it like '8xH200 24h', or 'A100 3 days'"
_FORM = re.compile(
    r"(?:(?P<count>\d{1,9})\s*[x×*]\s*)?(?P<device>\S.{0,39}?)"
    rf"(?:[\s,]+(?:for\s+)?(?P<time>\d{{1,9}}(?:\.\d{{1,9}})?)\s*(?P<unit>{'|'.join(HOURS)})s?)?",
    re.IGNORECASE,
)


class Device(NamedTuple):
    """A device as its maker states it: the peak of dense matrix products, in 10¹² operations a second of 16-bit numbers."""

    name: str
    tflops: float
    precision: str
    memory_gb: float
    source: str


@cache
def devices() -> tuple[Device, ...]:
    """Return every device whose peak is known here."""
    text = (resources.files("vitlab.cost") / "devices.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return tuple(
        Device(row["name"], float(row["tflops"]), row["precision"], float(row["memory_gb"]), row["source"])
        for row in rows
    )


def device_named(name: str) -> Device:
    """Return the device called `name`, whatever its case, spaces and hyphens.

    Raises:
        SettingsError: none is; the message names the nearest.
    """
    known = {_plain(device.name): device for device in devices()}
    if (found := known.get(_plain(name))) is None:
        names = [device.name for device in devices()]
        remedy = f"{nearest(name, names)}; of another device give what it reaches: --rate in TFLOP/s"
        raise SettingsError("--budget", f"the rate of '{name}' is not known", remedy)
    return found


@dataclass(frozen=True)
class Budget:
    """So many devices, each taken to reach `rate` FLOP/s, for `hours`, or for as long as it takes where they are None.

    `basis` says in words where the rate is from.
    """

    count: int
    device: str
    rate: float
    hours: float | None
    basis: str

    @property
    def exaflops(self) -> float | None:
        """What they compute in that time, in 10¹⁸ operations."""
        return None if self.hours is None else self.count * self.rate * 3600 * self.hours / EXA

    def device_hours(self, exaflops: float) -> float:
        """Return the hours of one device that `exaflops` take."""
        return exaflops * EXA / self.rate / 3600

    def hours_for(self, exaflops: float) -> float:
        """Return the hours that all devices together need for `exaflops`, if they divide the work without loss."""
        return self.device_hours(exaflops) / self.count


def parse_budget(text: str, utilisation: float | None = None, rate: float | None = None) -> Budget:
    """Return the budget that a person wrote: "8xH200 24h", "A100, 3 days", "64 x TPUv3 core 2.5d"; the time may be left out.

    `rate` is what a device reaches, in TFLOP/s; without it that is the share `utilisation` (by default `UTILISATION`)
    of the peak that its maker states.

    Raises:
        SettingsError: it is no budget, the device is unknown, or a number is out of range.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise SettingsError("--budget", f"'{shown}' is no budget", EXAMPLE)
    count, hours = int(found["count"] or 1), _hours(found["time"], found["unit"])
    if count < 1 or hours == 0:
        raise SettingsError("--budget", f"'{text}' is nothing", EXAMPLE)
    _refuse_more(found["device"], text)
    if rate is not None and utilisation is not None:
        raise SettingsError(
            "--utilisation", "contradicts --rate, which is what a device reaches", "give one of the two"
        )
    if rate is not None:
        _positive("--rate", rate)
        return Budget(count, found["device"], rate * TERA, hours, f"{rate:g} TFLOP/s a device, as given")
    share, device = UTILISATION if utilisation is None else utilisation, device_named(found["device"])
    if not 0 < share <= 1:
        raise SettingsError("--utilisation", f"{share:g} is no share", "give a number above 0 and up to 1, as 0.4")
    basis = f"{100 * share:g} % of {device.tflops:g} TFLOP/s a device ({device.precision}, {device.source})"
    return Budget(count, device.name, share * device.tflops * TERA, hours, basis)


def _refuse_more(device: str, text: str) -> None:
    """Refuse a number behind the name of a known device: a time without its unit, or two of them."""
    words, known = re.split(r"[\s,]+", device), {_plain(each.name) for each in devices()}
    for place in (place for place in range(1, len(words)) if re.match(r"[+-]?\d", words[place])):
        name = " ".join(words[:place])
        if _plain(name) in known and _plain(device) not in known:
            raise SettingsError("--budget", f"what follows '{name}' in '{text}' is not one time", EXAMPLE)


def _hours(number: str | None, unit: str | None) -> float | None:
    return None if number is None or unit is None else float(number) * HOURS[unit.lower()]


def _positive(flag: str, number: float) -> None:
    if not 0 < number < math.inf:
        raise SettingsError(flag, f"{number:g} is no rate", "give TFLOP/s of one device, above 0")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()
