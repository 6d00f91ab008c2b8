"""What was measured, as lines for a terminal and as a dict for JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sentcore.measure.methods import BASE, PEER, PLAIN, LeftOut
from sentcore.measure.timing import Timed

_HEADS = (
    ("", "method"),
    ("sentences", "/ second"),
    ("", "min-max"),
    ("tokens", "/ second"),
    ("times", "as fast"),
    ("min", "cosine"),
    ("max", "diff."),
)


@dataclass(frozen=True)
class Report:
    """One run of `Measurement`.

    Attributes:
        timed: every method, as far as it was measured.
        left_out: methods that cannot be had here.
        about: what was known before: command, model, device, source, texts, tokens, texts_cut at max_length, rounds,
            sentence and sentence_tokens of the latency, machine (`machine()`).
        complete: whether the run came to its end.
    """

    timed: Sequence[Timed]
    left_out: Sequence[LeftOut]
    about: dict[str, Any]
    complete: bool

    @property
    def yardstick(self) -> str | None:
        """What speeds are told against: sentence-transformers, or plain PyTorch without it; None before either was timed."""
        timed = {timed.method.name for timed in self.timed if timed.seconds}
        return next((name for name in (PEER, PLAIN) if name in timed), None)

    @property
    def differing(self) -> list[Timed]:
        """Methods whose features are not those of float32."""
        return [timed for timed in self.timed if timed.min_cosine is not None and not timed.agrees]

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON: a number that is not finite becomes None."""
        return {
            **self.about,
            "complete": self.complete,
            "times_as_fast_as": self.yardstick,
            "methods": {timed.method.name: self._method(timed) for timed in self.timed},
            "left_out": {left.name: left.reason for left in self.left_out},
        }

    def _method(self, timed: Timed) -> dict[str, Any]:
        middle = median(timed.seconds) if timed.seconds else None
        base = next((other for other in self.timed if other.method.name == self.yardstick), None)
        return {
            "dtype": timed.method.dtype,
            "min_cosine": _finite(timed.min_cosine),
            "least_cosine": timed.least_cosine,
            "max_abs_difference": _finite(timed.max_abs_difference),
            "agrees": None if timed.min_cosine is None else timed.agrees,
            "seconds": timed.seconds,
            "sentences_per_second": None if middle is None else self.about["texts"] / middle,
            "tokens_per_second": None if middle is None else self.about["tokens"] / middle,
            "times_as_fast": None if middle is None or base is None else median(base.seconds) / middle,
            "sentence_seconds": timed.sentence_seconds,
            "sentence_milliseconds": median(timed.sentence_seconds) * 1e3 if timed.sentence_seconds else None,
        }

    def lines(self) -> Iterator[str]:
        """For people, at most 80 columns where names are no longer and speeds below ten thousand."""
        about, machine = self.about, self.about["machine"]
        cut = f"; cut at {about['max_length']} tokens: {about['texts_cut']}" if about["texts_cut"] else ""
        yield f"{about['model']} on {about['device']}: {about['texts']} texts, {about['tokens']:,} tokens{cut}"
        yield f"texts: {about['source']}"
        yield ""
        yield from _table(_HEADS, [self._row(timed) for timed in self.timed if timed.min_cosine is not None])
        yield ""
        if self.yardstick is not None:
            yield f"medians of {self._rounds()}, the methods in turn; times as fast as {self.yardstick}"
        yield f"cosine and difference: of the features to those of {BASE}"
        latencies = [timed for timed in self.timed if timed.sentence_seconds]
        if latencies:
            yield ""
            yield f"one sentence of {about['sentence_tokens']} tokens, median of {len(latencies[0].sentence_seconds)} calls"
            yield from _table((("", "method"), ("", "ms"), ("", "min-max")), [_latency(timed) for timed in latencies])
        yield ""
        if not self.complete:
            yield "cut off: this is what was measured until then"
        for left in self.left_out:
            yield from _wrapped(f"left out: {left.name}: {left.reason}")
        instructions = f" ({', '.join(machine['instructions'])})" if machine["instructions"] else ""
        gpu = "" if machine["gpu"] is None else f"; {machine['gpu']}"
        yield from _wrapped(f"machine: {machine['cpu']}{instructions}, torch threads: {machine['threads']}{gpu}")
        versions = (f"{name} {version or 'absent'}" for name, version in machine["versions"].items())
        yield from _wrapped(f"versions: {', '.join(versions)}, Python {machine['python']}")
        yield f"command: {about['command']}"

    def complaints(self) -> Iterator[str]:
        """A line for each method whose features are not those of float32."""
        for timed in self.differing:
            if timed.method.name == BASE:
                yield f"{BASE} gives features that are NaN or infinite, so nothing can be compared with them"
                continue
            yield (
                f"{timed.method.name} and {BASE} differ: min cosine {timed.min_cosine:.7f}, accepted: at least "
                f"{timed.least_cosine}; it was not timed"
            )

    def _rounds(self) -> str:
        done = max(len(timed.seconds) for timed in self.timed)
        return f"{'' if self.complete else 'at most '}{done} round{'' if done == 1 else 's'}"

    def _row(self, timed: Timed) -> list[str]:
        found = self._method(timed)
        speeds = ["-"] * 4
        if timed.seconds:
            slowest, fastest = (self.about["texts"] / pick(timed.seconds) for pick in (max, min))
            speeds = [
                _number(found["sentences_per_second"]),
                f"{_number(slowest)}-{_number(fastest)}",
                f"{found['tokens_per_second']:.0f}",
                "-" if found["times_as_fast"] is None else f"{found['times_as_fast']:.2f}",
            ]
        return [timed.method.name, *speeds, f"{timed.min_cosine:.5f}", f"{timed.max_abs_difference:.1e}"]


def _latency(timed: Timed) -> list[str]:
    middle, least, most = (pick(timed.sentence_seconds) * 1e3 for pick in (median, min, max))
    return [timed.method.name, f"{middle:.2f}", f"{least:.2f}-{most:.2f}"]


def _number(value: float) -> str:
    """Of sentences a second: three digits at least."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(heads: Sequence[tuple[str, str]], rows: list[list[str]]) -> Iterator[str]:
    """The first column to the left, the others to the right."""
    lines = [list(line) for line in zip(*heads, strict=True) if any(line)] + rows
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for first, *others in lines:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _finite(value: float | None) -> float | None:
    return None if value is None or value - value != 0 else value
