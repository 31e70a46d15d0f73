"""How much memory there is for a process: on the machine, in its container, under its limits, or on its GPU."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60
"""What is no limit: version 1 of cgroups writes nearly 2⁶³ where there is none."""


def available_memory(device: torch.device, proc: Path = PROC, cgroup: Path = CGROUP) -> int | None:
    """Return how many bytes this process can still take on `device`, None where the system does not say.

    On a CPU it is the least of what the system can give without swapping, of what the process's cgroups (containers, Slurm,
    systemd) allow on top of what they hold, and of its own limit of address space (`ulimit -v`).
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    return min((*_machine(proc), *_cgroups(proc, cgroup), *_address_space(proc)), default=None)


def _machine(proc: Path) -> Iterator[int]:
    for line in _lines(proc / "meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _cgroups(proc: Path, cgroup: Path) -> Iterator[int]:
    """Yield what the process's group, and every group around it, leaves; of version 2 and of version 1."""
    for line in _lines(proc / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = cgroup if controllers == "" else cgroup / "memory"
        limit_name, held_name = (
            ("memory.max", "memory.current")
            if controllers == ""
            else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        inside = root / path.lstrip("/")
        for group in (inside, *(parent for parent in inside.parents if parent.is_relative_to(root))):
            limit, held = _number(group / limit_name), _number(group / held_name)
            if limit is not None and held is not None and limit < _UNLIMITED:
                yield max(0, limit - held + _reclaimable(group))


def _reclaimable(group: Path) -> int:
    """Return the bytes of files that a group has in memory and that the system drops when it needs them."""
    for line in _lines(group / "memory.stat"):
        name, _, value = line.partition(" ")
        if name in ("total_inactive_file", "inactive_file"):
            return int(value)
    return 0


def _address_space(proc: Path) -> Iterator[int]:
    with contextlib.suppress(ImportError):  # there is no such module, and no such limit, on Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        for line in _lines(proc / "self/status") if limit != resource.RLIM_INFINITY else ():
            if line.startswith("VmSize:"):
                yield max(0, limit - int(line.split()[1]) * 1024)


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdecimal() else None  # "max": no limit


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
