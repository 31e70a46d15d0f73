"""ServeSettings: where a server listens, and what one request, one client and one image may cost."""

from typing import Annotated

from pydantic import Field

from vitlab.config import Settings

Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class ServeSettings(Settings):
    """Where a server listens, and its limits.

    The defaults suit a machine of any size: what a client can make the server hold is bounded by `max_buffered` for bodies and by
    `decode_bytes` for each of the `decoders`.
    """

    host: str = "127.0.0.1"
    """Only this computer, unless told."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    """0: any that is free."""
    allow_hosts: tuple[str, ...] = ()
    """Further names under which browsers may ask: a page elsewhere cannot use the server by a name of its own."""
    max_bytes: Count = 16 << 20
    """Of the body of a request."""
    max_images: Count = 64
    """Of one request."""
    max_pixels: Count = 64_000_000
    """Of one image."""
    max_waiting: Count = 256
    """Images of one model that are being decoded, waiting, or being answered; a request beyond them is refused, with 503."""
    max_buffered: Count = 256 << 20
    """Bytes of all bodies in memory."""
    max_connections: Count = 512
    """A further one takes the place of the one that has been sending for longest."""
    batch_seconds: Annotated[float, Field(ge=0)] = 0.005
    """For how long an image waits for others to fill its batch."""
    read_seconds: Seconds = 20.0
    """For a request to arrive."""
    idle_seconds: Seconds = 15.0
    """For the next request on a connection to begin."""
    answer_seconds: Seconds = 30.0
    """For a request to be answered, once it is here."""
    decode_seconds: Seconds = 5.0
    """Of a processor's time, for one image."""
    decode_bytes: Count = 2 << 30
    """Of memory, for one image: the largest that is allowed takes about half of it."""
    access_log: bool = False
    """A line for each request, on standard error."""
    decoders: Count | None = None
    """Processes that decode; None: one a core, two at least, so that a slow image does not stall the others."""
