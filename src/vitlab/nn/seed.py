"""Random streams by key: what a stream holds depends on what it is for, never on what was drawn before."""

import hashlib


def keyed_seed(*key: int | str) -> int:
    """Return a 63-bit seed that is a pure function of `key`, the same on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
