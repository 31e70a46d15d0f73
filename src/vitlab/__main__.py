"""`python -m vitlab` is the same as `vitlab`."""

import sys


def run() -> None:
    """Run the command line and exit; Ctrl-C while it is still being loaded ends it as at any other time."""
    try:
        from vitlab.cli import main  # here, since loading it takes a moment

        main.run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    run()
