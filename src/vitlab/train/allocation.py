"""What the C library does with memory that a training step frees: keep it for the next step, or give it back at once."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
"""The largest value of the C type: tensors below 2 GiB come from the heap, and the heap is not given back."""
_MAPPED = 1 << 20
"""Tensors from this size on are mapped each by itself, which leaves no holes that only a smaller one would fit in."""


def keep_freed_memory(keep: bool) -> None:
    """Let glibc keep freed memory for what is asked for next, or return it to the system at once; elsewhere do nothing.

    By itself glibc maps what is above 32 MB, and unmaps it when it is freed. A step frees and asks for the same activations again
    and again, and the system has to clear each page anew, which is felt where activations are that large. Kept, they cost
    nothing but that the process stays at its highest memory, which the next step needs anyhow.

    Activation checkpointing is for those who have too little memory, and there the heap's holes are much of it (see
    benchmarks/README.md). Mapped one by one tensors leave no holes.

    Both are rules of the whole process and hold to its end; therefore training sets them when it starts, not an import.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):  # musl has neither the function nor the rules
        library.mallopt(_MMAP_THRESHOLD, _NEVER if keep else _MAPPED)
        library.mallopt(_TRIM_THRESHOLD, _NEVER if keep else _MAPPED)
