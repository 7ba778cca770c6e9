"""`python -m scripts.benchmark`: run the rows, print the table, write results.md, results.svg and results.json."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

from scripts.benchmark import plot, report, tools
from scripts.benchmark.host import machine
from scripts.benchmark.rows import costs, lists, overload, owner, partitions, requests
from scripts.benchmark.run import Bench, Options
from scripts.benchmark.servers.processes import remove
from scripts.benchmark.targets import GROUPS
from scripts.lib.program import ROOT, Failed

QUICK = Options(
    rounds=3, seconds=1.0, list_seconds=0.02, sessions=20_000, default_sessions=20_000, redis_requests=20_000, warm=False
)

MEASURES: dict[str, Callable[[Bench], None]] = {
    "get": requests.get,
    "latency": requests.latency,
    "webdis": requests.webdis,
    "patch": requests.patch,
    "owner": owner.owner,
    "post": requests.post,
    "304": requests.not_modified,
    "overload": overload.overload,
    "footprint": costs.footprint,
    "hold": costs.hold,
    "listing": lists.listing,
    "growth": lists.growth,
    "memory": lists.memory,
    "p99": requests.p99,
    "partitions": partitions.partitions,
}


def arguments() -> Namespace:
    """The command line."""
    parser = ArgumentParser(prog="scripts/bench", description="The service beside what people use instead.")
    parser.add_argument("--quick", action="store_true", help="less than two minutes: 20,000 sessions, short rounds")
    parser.add_argument("--only", action="append", choices=GROUPS, metavar="NAME", help=f"only these: {', '.join(GROUPS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out", metavar="DIR", help="where the results go")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--sessions", type=int, help="sessions of the large store")
    return parser.parse_args()


def main() -> int:
    """Run; 0 once everything is measured, whether or not targets are met."""
    given = arguments()
    options = QUICK if given.quick else Options()
    options = replace(options, rounds=given.rounds or options.rounds, sessions=given.sessions or options.sessions)
    groups = [group for group in GROUPS if not given.only or group in given.only]
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    try:
        tools.ensure(groups)
        with ExitStack() as stack:
            home = Path(tempfile.mkdtemp(prefix="scc-bench-"))
            stack.callback(remove, home)
            home.chmod(0o711)  # Postgres runs as another user.
            bench = Bench(options, home, stack)
            for group in groups:
                bench.say(f"[{time.monotonic() - started:4.0f} s] {group}")
                MEASURES[group](bench)
            costs.longest_hold(bench)
            _write(bench, given.out, time.monotonic() - started)
            bench.say("stopping")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; everything that was started is stopped\n")
        return 130
    except (tools.Missing, Failed) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{error}\n{error.stderr or ''}\n")
        return 1
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    raise KeyboardInterrupt


def _write(bench: Bench, directory: Path, seconds: float) -> None:
    about = machine() | {
        "sessions": f"{bench.options.sessions:,}",
        "rounds": str(bench.options.rounds),
        "run": f"{seconds / 60:.1f} min",
    }
    cells = bench.details.get("lists")
    pages = cells if isinstance(cells, list) else []
    text = report.markdown(bench.results, bench.details, bench.holds, about)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.md").write_text(text, encoding="utf-8")
    (directory / "results.svg").write_text(plot.svg(bench.results, pages), encoding="utf-8")
    raw = {
        "about": about,
        "results": [asdict(result) | {"met": result.met} for result in bench.results],
        "details": bench.details | {"lists": lists.as_json(pages)},
        "holds": [asdict(hold) for hold in bench.holds],
        "quiet holds": bench.quiet_holds,
    }
    (directory / "results.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(text)
    sys.stderr.write(f"written to {directory}\n")


if __name__ == "__main__":
    sys.exit(main())
