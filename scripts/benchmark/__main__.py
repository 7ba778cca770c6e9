"""`python -m scripts.benchmark`: measure the rows, print the table, write results.md and results.json."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from shutil import rmtree
from types import FrameType

from scripts.benchmark import host, report, tools
from scripts.benchmark.run import Bench, Options
from scripts.benchmark.statistics import PageTimes, Result
from scripts.benchmark.targets import AGAINST, GROUPS, WHOLE_RUN, Group
from scripts.lib.program import ROOT, Failed

_QUICK = Options(
    rounds=3, seconds=1.0, list_seconds=0.02, sessions=20_000, default_sessions=20_000, redis_requests=20_000, warm_up=False
)


def parse_arguments() -> Namespace:
    """Parse the command line."""
    names = [group.name for group in GROUPS]
    parser = ArgumentParser(prog="scripts/bench", description="Measure the service against what people use instead.")
    parser.add_argument("--quick", action="store_true", help="20,000 sessions and short rounds: a few minutes")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"only these: {', '.join(names)}")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="measure only GET and PATCH, in turn with the code in another checkout"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out", metavar="DIR", help="where to write the results")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--sessions", type=int, help="sessions in the large store")
    arguments = parser.parse_args()
    if arguments.against and not (arguments.against / "service").is_dir():
        parser.error(f"{arguments.against} is not a checkout of this project")
    return arguments


def main() -> int:
    """Run; 0 when everything was measured, whether or not targets are met."""
    arguments = parse_arguments()
    options = _QUICK if arguments.quick else Options()
    options = replace(
        options,
        rounds=arguments.rounds or options.rounds,
        sessions=arguments.sessions or options.sessions,
        other_checkout=arguments.against and arguments.against.resolve(),
    )
    groups = [group for group in GROUPS if not arguments.only or group.name in arguments.only]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _run(options, [AGAINST] if arguments.against else [*groups, WHOLE_RUN], arguments.out)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; all servers are stopped\n")
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


def _run(options: Options, groups: Sequence[Group], directory: Path) -> None:
    start = time.monotonic()
    tools.ensure({"wrk", "redis-server"}.union(*(group.programs for group in groups)))
    with ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="scc-bench-"))
        stack.callback(rmtree, home, ignore_errors=True)
        home.chmod(0o711)  # Postgres runs as another user
        bench = Bench(options, home, stack)
        results: list[Result] = []
        for group in groups:
            bench.say(f"[{time.monotonic() - start:4.0f} s] {group.name}")
            for result in group.results(bench):
                results.append(result)
                bench.say(report.result_line(result))
        _write(bench, results, directory, time.monotonic() - start)
        bench.say("stopping the servers")


def _write(bench: Bench, results: Sequence[Result], directory: Path, seconds: float) -> None:
    options = bench.options
    about = host.describe() | {
        "sessions": f"{options.sessions:,}",
        "rounds": str(options.rounds),
        "run": f"{seconds / 60:.1f} min",
    }
    if options.other_checkout:
        about["other checkout"] = host.commit(options.other_checkout)
    text = report.markdown(results, bench.details, bench.slow_commands, about)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.md").write_text(text, encoding="utf-8")
    raw = {
        "about": about,
        "results": [{"name": one.row.name} | asdict(one.measurement) | {"met": one.met} for one in results],
        "details": bench.details,
        "holds": [asdict(one) for one in bench.slow_commands],
        "quiet holds": bench.script_times,
    }
    text_of_raw = json.dumps(raw, indent=1, ensure_ascii=False, default=_page_times)
    (directory / "results.json").write_text(text_of_raw + "\n", encoding="utf-8")
    sys.stdout.write(text)
    sys.stderr.write(f"wrote the results to {directory}\n")


def _page_times(times: PageTimes) -> dict[str, object]:
    return asdict(times) | {"ratio": times.ratio}


if __name__ == "__main__":
    sys.exit(main())
