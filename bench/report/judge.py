"""What became slower or faster than the noise allows.

Timings of a shared machine differ from run to run for three reasons, and the rule knows each:

- **Within a run** rounds scatter. The median of n rounds is off by about 0.93 · IQR / √n (1.253 · σ / √n, the standard error of a
  median, with σ = IQR / 1.349; both hold for a normal distribution).
- **Between runs** the whole machine is faster or slower. The yardsticks (torch, sentence-transformers, ...) are timed in the same
  runs and no commit of sentcore changes them: the median of their changes is the machine's, and is taken off.
- **What remains** differs from benchmark to benchmark. The yardsticks show that too: 1.4826 · the median distance of their changes
  from their median. With fewer than 5 yardsticks in both runs it cannot be told, and UNKNOWN_SCATTER is taken.

Of the three (the last two as changes of log time) comes a standard deviation, and a change counts beyond `z` of them, with z so
high that a report on runs which do not differ has a chance of ALARM to show any regression at all, however many benchmarks it holds.
It must be at least SMALLEST too, and the fastest rounds must have moved the same way at least half as far: work of others makes
rounds slower but never faster than the machine can, so a real change moves the minimum with the median.

Where the noise would hide a factor of two (LARGEST), or there are too few rounds, nothing is said of a benchmark: measure it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist, median

from bench.report.read import Run, Timing

ALARM = 0.05  # chance that runs of equal speed show a regression
UNKNOWN_SCATTER = 0.10  # of log time, between runs of one benchmark
FEWEST_YARDSTICKS = 5
FEWEST_ROUNDS = 5  # below, an IQR says nothing
SMALLEST = 0.03  # of log time: nobody acts upon less
LARGEST = math.log(2)  # noise beyond which "same" would say nothing
UNJUDGED = ("too few rounds", "too noisy")


@dataclass(frozen=True)
class Change:
    """One of sentcore's benchmarks in two runs.

    Attributes:
        before, after: its timings.
        change: log of the medians' ratio less the machine's drift; 0.1 is about 10% slower.
        fastest: the same of the fastest rounds.
        noise: what `change` must exceed.
        verdict: "slower", "faster" or "same", or one of UNJUDGED.
    """

    before: Timing
    after: Timing
    change: float
    fastest: float
    noise: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two runs of one machine.

    Attributes:
        drift: the machine's own change, of log time; scatter: of the yardsticks around it; yardsticks: how many there were.
        changes: of every benchmark of sentcore's in both, the worst first.
        only_before, only_after: names that one run lacks.
    """

    before: Run
    after: Run
    drift: float
    scatter: float
    yardsticks: int
    changes: list[Change]
    only_before: list[str]
    only_after: list[str]

    @property
    def slower(self) -> list[Change]:
        return [change for change in self.changes if change.verdict == "slower"]


def compare(before: Run, after: Run) -> Comparison:
    """Two runs by the rule above."""
    both = [(timing, after.timings[name]) for name, timing in before.timings.items() if name in after.timings]
    fixed = [pair for pair in both if pair[0].yardstick]
    ours = [pair for pair in both if not pair[0].yardstick]
    moved = [_log_ratio(old.median, new.median) for old, new in fixed]
    drift = median(moved) if moved else 0.0
    drift_of_fastest = median([_log_ratio(old.fastest, new.fastest) for old, new in fixed]) if fixed else 0.0
    enough = len(moved) >= FEWEST_YARDSTICKS
    scatter = 1.4826 * median([abs(one - drift) for one in moved]) if enough else UNKNOWN_SCATTER
    z = NormalDist().inv_cdf(1 - ALARM / max(1, len(ours)))

    changes = []
    for old, new in ours:
        change = _log_ratio(old.median, new.median) - drift
        fastest = _log_ratio(old.fastest, new.fastest) - drift_of_fastest
        noise = max(SMALLEST, z * math.hypot(_error(old), _error(new), scatter))
        changes.append(Change(old, new, change, fastest, noise, _verdict(old, new, change, fastest, noise)))
    changes.sort(key=lambda change: -change.change / change.noise)
    return Comparison(
        before,
        after,
        drift,
        scatter,
        len(moved),
        changes,
        only_before=[name for name in before.timings if name not in after.timings],
        only_after=[name for name in after.timings if name not in before.timings],
    )


def _verdict(old: Timing, new: Timing, change: float, fastest: float, noise: float) -> str:
    if min(old.rounds, new.rounds) < FEWEST_ROUNDS:
        return "too few rounds"
    if change > noise and fastest > noise / 2:
        return "slower"
    if change < -noise and fastest < -noise / 2:
        return "faster"
    return "too noisy" if noise > LARGEST else "same"


def _error(timing: Timing) -> float:
    """Standard error of the median, of log time."""
    return 0.93 * timing.iqr / math.sqrt(timing.rounds) / timing.median


def _log_ratio(old: float, new: float) -> float:
    return math.log(new / old)
