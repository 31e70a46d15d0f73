"""Worker: a process that decodes images for a server, within limits; without torch, so that a new one is there in a moment.

It hears from one end of a socket pair: a task as JSON, then the bytes of a file; and answers with one byte that says what follows,
pixels or the reason why there are none. It ends when the other end is closed.
"""

import os
import resource
import signal
import sys
from functools import lru_cache
from multiprocessing.connection import Connection

from pydantic import PositiveInt

from vitlab.config import Settings
from vitlab.data.fit import Fit, box_of
from vitlab.data.image import Decoding, open_image
from vitlab.data.limits import Limits
from vitlab.data.resize import Interpolation, resize
from vitlab.errors import VitlabError

READY, PIXELS, REFUSED = b"r", b"p", b"e"
"""The first byte of an answer."""


class Task(Settings):
    """What to make of a file, and what that may cost: seconds of a processor's time, and bytes beyond what an idle worker has."""

    height: PositiveInt
    width: PositiveInt
    fit: Fit
    interpolation: Interpolation
    decoding: Decoding
    limits: Limits
    seconds: PositiveInt


def main() -> None:
    """Answer until the other end is closed; its descriptor and the bytes that an image may take are the arguments."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # they reach every process of a service; who asks decides when to end
        signal.signal(number, signal.SIG_IGN)
    descriptor, extra = map(int, sys.argv[1:3])
    with Connection(descriptor) as line:
        _limit(extra)
        line.send_bytes(READY)
        while True:
            try:
                line.send_bytes(_answer(line.recv_bytes().decode(), line.recv_bytes()))
            except (EOFError, OSError):
                return


def _limit(extra: int) -> None:
    """Forbid files and core dumps, and on Linux bound memory: elsewhere no such limit works."""
    if sys.platform == "linux":
        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + extra, now + extra))
    for which in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(which, (0, 0))


def _answer(task: str, data: bytes) -> bytes:
    wanted = _task(task)
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + 1 + wanted.seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))  # beyond it SIGXCPU ends the process
    target = (wanted.height, wanted.width)
    try:
        image = open_image(data, "image", wanted.limits, wanted.decoding)
        pixels = resize(image, *target, wanted.interpolation, box_of(wanted.fit, image.shape[:2], target))
    except VitlabError as error:
        return REFUSED + error.what.encode()
    except MemoryError:
        return REFUSED + b"needs more memory than an image may take"
    return PIXELS + pixels.tobytes()


@lru_cache(16)  # one a model
def _task(text: str) -> Task:
    return Task.model_validate_json(text)


if __name__ == "__main__":
    main()
    os._exit(0)  # nothing is left to tidy, and a decoder's threads might be stuck
