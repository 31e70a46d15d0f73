"""`python -m vitlab` is the same as `vitlab`."""

import signal
import sys
from types import FrameType

_AGAIN_SECONDS = 0.02


def run() -> None:
    """Run the command line and exit; Ctrl-C while it is still being loaded ends it as at any other time."""
    signal.signal(signal.SIGINT, _interrupt)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _interrupt)
    try:
        from vitlab.cli import main  # here, since loading it takes most of a second on a slow disk

        main.run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, later while a module is being loaded: some take it for a failure of theirs and go on by half."""
    del number
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if frame is None or not hasattr(signal, "setitimer"):
        raise KeyboardInterrupt
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)


if __name__ == "__main__":
    run()
