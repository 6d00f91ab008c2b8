"""python -m bench.report BEFORE.json AFTER.json -o report.html

Runs of one machine are compared with the first of that machine; runs of several stand side by side, by their ratios to the yardsticks.
Exit status: 0, 1 where something became slower beyond noise, 2 on bad use.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.report.judge import UNJUDGED, Comparison, compare
from bench.report.page import page
from bench.report.plots import short
from bench.report.read import ReportError, Run, read_run


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", nargs="+", type=Path, help="JSON of pytest bench --benchmark-json=FILE, the baseline first"
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("report.html"), help="the page to write (report.html)")
    options = parser.parse_args(arguments)
    try:
        runs = [read_run(path) for path in options.files]
        comparisons = by_machine(runs)
        text = page(runs, comparisons)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    except ReportError as error:
        print(f"bench.report: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"bench.report: {error.name} is not installed; pip install 'sentcore[bench]'", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"bench.report: {options.out} cannot be written ({error.strerror}); name another with -o", file=sys.stderr
        )
        return 2
    slower = [change for comparison in comparisons for change in comparison.slower]
    for change in slower:
        print(
            f"slower: {short(change.after.name)}: {1000 * change.before.median:.3g} -> {1000 * change.after.median:.3g} ms"
        )
    unjudged = sum(change.verdict in UNJUDGED for comparison in comparisons for change in comparison.changes)
    print(
        f"{options.out}: {len(runs)} runs, {len(comparisons)} comparisons, {len(slower)} slower beyond noise, "
        f"{unjudged} that cannot be judged"
    )
    return 1 if slower else 0


def by_machine(runs: list[Run]) -> list[Comparison]:
    """Every run against the first of its machine."""
    first: dict[str, Run] = {}
    return [compare(first[run.machine], run) for run in runs if first.setdefault(run.machine, run) is not run]


if __name__ == "__main__":
    sys.exit(main())
