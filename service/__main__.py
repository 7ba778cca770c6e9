"""The program `session-configs`, which is also `python -m service`."""

import sys
from typing import NoReturn

from service.process import streams


def main() -> NoReturn:
    """Run the command that the arguments name, and exit with its status."""
    streams.prepare()
    # No file is opened before the line above, by an import neither.
    from service import cli

    try:
        status = cli.main()
    except SystemExit as end:  # argparse: help, the version, or wrong usage
        status = end.code if isinstance(end.code, int) else 0
    sys.exit(streams.finish(status))


if __name__ == "__main__":
    main()
