"""pytest-benchmark's JSON as runs of timings, and which timings are not sentcore's own."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

# Names in a benchmark's brackets of what stands beside sentcore in its group: their speed is the machine's, not the commit's.
YARDSTICKS = ("sentence-transformers", "reference", "torch", "SDPA, padded", "numpy")


class ReportError(Exception):
    """A file that no report can be made of; the message names it, and what is accepted."""


@dataclass(frozen=True)
class Timing:
    """One benchmark in one run: seconds of a round.

    Attributes:
        name: file, test and parameters, the same in every run.
        group: what it is compared within.
        yardstick: which of YARDSTICKS it times, None for sentcore.
        case: its parameters less that name: the yardstick of the same group and case does the same work.
        median, iqr, fastest: of `rounds` rounds, seconds.
    """

    name: str
    group: str
    yardstick: str | None
    case: str
    median: float
    iqr: float
    fastest: float
    rounds: int


@dataclass(frozen=True)
class Run:
    """One file.

    Attributes:
        label: the file's name without .json, how the page calls the run.
        machine: CPU and threads; only runs of one machine are compared by time.
        commit, date: as pytest-benchmark noted them; commit "" outside git, with "+" where files had been changed.
        versions: package -> version.
        timings: by name.
    """

    label: str
    machine: str
    commit: str
    date: str
    versions: dict[str, str]
    timings: dict[str, Timing]


def read_run(path: Path) -> Run:
    """The run in a file of `pytest bench --benchmark-json=FILE` or `--benchmark-save`.

    Raises:
        ReportError: there is no such file, or it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path} cannot be read ({error.strerror}); accepted: a file of --benchmark-json") from None
    except ValueError as error:
        raise ReportError(
            f"{path} is no JSON ({error}); accepted: a file of pytest bench --benchmark-json=FILE"
        ) from None
    try:
        timings = [_timing(entry) for entry in found["benchmarks"]]
        machine, commit = found["machine_info"], found["commit_info"]
        run = Run(
            label=path.stem,
            machine=f"{machine['cpu']['brand_raw']}, {machine.get('threads', '?')} threads",
            commit=(commit.get("id") or "")[:10] + ("+" if commit.get("dirty") else ""),
            date=found["datetime"][:19],
            versions=machine.get("versions", {}),
            timings={timing.name: timing for timing in timings},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportError(
            f"{path} lacks {error}; accepted: a file of pytest bench --benchmark-json=FILE, as pytest-benchmark 4 or later writes it"
        ) from None
    if not timings:
        raise ReportError(f"{path} holds no benchmark; accepted: a run of at least one")
    return run


def _timing(entry: dict) -> Timing:
    stats = entry["stats"]
    bracket = re.search(r"\[(.*)\]$", entry["fullname"])
    parameters = bracket[1] if bracket else ""
    yardstick = next((name for name in YARDSTICKS if _names(parameters, name)), None)
    case = _without(parameters, yardstick) if yardstick else parameters
    return Timing(
        name=entry["fullname"],
        group=entry["group"] or entry["fullname"].partition("[")[0],
        yardstick=yardstick,
        case=case,
        median=stats["median"],
        iqr=stats["iqr"],
        fastest=stats["min"],
        rounds=stats["rounds"],
    )


def _names(parameters: str, name: str) -> bool:
    return re.search(rf"(^|-){re.escape(name)}(-|$)", parameters) is not None


def _without(parameters: str, name: str) -> str:
    return re.sub(rf"(^|-){re.escape(name)}(?=-|$)", "", parameters).strip("-")


def yardsticks_of(timing: Timing, run: Run) -> list[Timing]:
    """The yardsticks in `run` that do the work of one of sentcore's timings: those of its group whose case is in its own."""
    parts = set(timing.case.split("-"))
    return [
        other
        for other in run.timings.values()
        if other.yardstick and other.group == timing.group and (not other.case or set(other.case.split("-")) <= parts)
    ]
