"""The program `session-configs`, which is also `python -m service`."""

import sys
from typing import NoReturn

from service.process import streams


def main() -> NoReturn:
    """Run the command that the arguments name, and exit with its status."""
    streams.prepare()
    # No file is opened before the line above, by an import neither.
    from service import cli

    sys.exit(streams.finish(cli.main()))


if __name__ == "__main__":
    main()
