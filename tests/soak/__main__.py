"""`python -m tests.soak`: soak a server of its own; 0 where everything was as it must be, else 1 and what was not."""

import secrets
import shutil
import signal
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

import uvloop

from scripts.lib.program import Failed
from tests.soak.server import WORKERS, Server
from tests.soak.soak import CLIENTS, Soak, say


def arguments() -> Namespace:
    """The command line."""
    parser = ArgumentParser(prog="scripts/soak", description="Random operations beside a model, while faults happen.")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    length.add_argument("--seconds", type=float, help="the same in seconds")
    parser.add_argument("--seed", type=int, help="of all choices; by default another one each time")
    return parser.parse_args()


def main() -> int:
    """Soak, and print how it went."""
    given = arguments()
    seconds = given.minutes * 60 if given.seconds is None else given.seconds
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    # As Ctrl-C, which asyncio knows how to end in order.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    home = Path(tempfile.mkdtemp(prefix="scc-soak-"))
    try:
        with Server(home / "server") as server:
            say(f"seed {seed}, {CLIENTS} clients, {WORKERS} workers, {seconds:.0f} s, data directory {server.data}")
            return uvloop.run(Soak(server, seed).run(seconds))
    except KeyboardInterrupt:
        say("interrupted; everything that was started is stopped")
        return 130
    except Failed as failed:
        say(str(failed))
        return 1
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
