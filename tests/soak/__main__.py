"""`python -m tests.soak`: soak a server of its own. The exit status is 0 if everything was right, else 1."""

import secrets
import shutil
import signal
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

import uvloop

from tests.soak.server import WORKERS, start_server
from tests.soak.soak import CLIENTS, Soak, say


def arguments() -> Namespace:
    """The command line."""
    parser = ArgumentParser(
        prog="scripts/soak", description="Run random operations and faults, and compare every response with a model."
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=10.0, help="how long to run (default: 10)")
    length.add_argument("--seconds", type=float, help="the same, in seconds")
    parser.add_argument("--seed", type=int, help="seed of all random choices (default: a new one)")
    return parser.parse_args()


def main() -> int:
    """Soak, and print the results."""
    options = arguments()
    seconds = options.minutes * 60 if options.seconds is None else options.seconds
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    # Handled as Ctrl-C, on which asyncio cancels its tasks.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    home = Path(tempfile.mkdtemp(prefix="scc-soak-"))
    try:
        with start_server(home) as server:
            say(f"seed {seed}, {CLIENTS} clients, {WORKERS} workers, {seconds:.0f} s, data directory {server.data_dir}")
            return uvloop.run(Soak(server, seed).run(seconds))
    except KeyboardInterrupt:
        say("interrupted; the server is stopped")
        return 130
    except AssertionError as error:
        say(f"the server did not start: {error}")
        return 1
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
