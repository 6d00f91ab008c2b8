"""One run from a source to an output file: what is there already, what is left, and the finished file."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sentcore.errors import ArgumentValueError
from sentcore.pipeline.corpus.identity import differences
from sentcore.pipeline.corpus.parts import Parts
from sentcore.pipeline.corpus.rows import BadRows, Row, Shard
from sentcore.pipeline.corpus.sinks import Sink
from sentcore.pipeline.corpus.sources import Source

Encode = Callable[[Iterator[list[str]]], Iterator[np.ndarray]]


@dataclass
class Summary:
    """What a run and those it went on with have done: rows written, of these NaN or infinite, and bad rows of the input."""

    rows: int
    non_finite: int
    bad: int


class Job:
    """Features of a source into a file, shard by shard.

    Args:
        source, sink, parts: what is read, what is written, and where it is kept until it is whole.
        bad: what is done with bad rows.
        finite: whether a feature that is NaN or infinite makes a row a bad one, as where it cannot be stored.
    """

    def __init__(self, source: Source, sink: Sink, parts: Parts, bad: BadRows, finite: bool = False) -> None:
        self._source, self._sink, self._parts, self._bad = source, sink, parts, bad
        self._finite = finite

    def prepare(self, before: dict | None, identity: dict, say: Callable[[str], None]) -> None:
        """Sees what of an earlier run can stay.

        Args:
            before: the identity of the run that is to be gone on with; None to begin anew.
            identity: of this run: "input", "model", "options", "versions".
            say: told in a line what is done again.

        Raises:
            ArgumentValueError: the model, an option or the input is another one, with all that differs.
        """
        if before is not None:
            self._compare(before, identity)
        lost = self._parts.start(identity, keep=before is not None)
        if lost:
            say(f"{lost} shards of {self._parts.folder} are not there whole, and are made again")

    def run(self, encode: Encode) -> Summary:
        """Encodes what is left and writes the file; `encode` gives [b, E] float32 for every list of texts, in order."""
        held: deque[Shard] = deque()

        def lists() -> Iterator[list[str]]:
            done = self._parts.shards
            start = done[-1]["end"] if done else None
            for shard in self._source.shards(self._bad, len(done), start):
                held.append(shard)
                yield shard.texts

        for rows in encode(lists()):
            self._add(held.popleft(), rows)
        with self._parts.finished() as file:
            self._sink.assemble(file, self._parts.read)
        return self.summary()

    def summary(self) -> Summary:
        """Of what is done so far."""
        shards = self._parts.shards
        return Summary(*(sum(shard[key] for shard in shards) for key in ("rows", "non_finite", "bad")))

    @property
    def rows_read(self) -> int:
        """Rows of the input that are done."""
        return sum(shard["read"] for shard in self._parts.shards)

    def _add(self, shard: Shard, rows: np.ndarray) -> None:
        checksum = shard.checksum()
        finite = np.isfinite(rows).all(axis=1)
        if self._finite and not finite.all():
            shard, rows, finite = self._without(shard, rows, finite)
        record = {
            "rows": len(shard.good),
            "read": shard.read,
            "bad": shard.bad,
            "non_finite": int((~finite).sum()),
            "checksum": checksum,
            "end": shard.end,
        }
        self._parts.add(self._sink.shard(shard, rows), record)

    def _without(self, shard: Shard, rows: np.ndarray, finite: np.ndarray) -> tuple[Shard, np.ndarray, np.ndarray]:
        """The shard without features that are NaN or infinite: these are bad rows."""
        shard = copy.copy(shard)
        places = np.flatnonzero(shard.good)
        for place in places[~finite]:
            problem = "the feature is NaN or infinite, which this precision has no value for; use --precision float32"
            self._bad.met(Row(f"row {place} from {shard.where} on", None, (), problem))
        shard.bad += int((~finite).sum())
        shard.good = shard.good.copy()
        shard.good[places[~finite]] = False
        if self._bad.on_error == "skip":
            left = np.ones(len(shard.good), dtype=np.bool_)
            left[places[~finite]] = False
            kept = shard.kept
            shard.kept = (
                [k for k, stays in zip(kept, left, strict=True) if stays]
                if isinstance(kept, list)
                else kept.filter(left)
            )
            shard.good = shard.good[left]
        return shard, rows[finite], finite[finite]

    def _compare(self, before: dict, now: dict) -> None:
        before, now = copy.deepcopy(before), copy.deepcopy(now)
        if not any(shard["bad"] for shard in self._parts.shards):  # under any of them the same has come out
            for identity in (before, now):
                identity["options"].pop("on_error", None)
        times = [identity["input"].pop("mtime_ns", None) for identity in (before, now)]
        different = differences(before, now)
        if different:
            raise ArgumentValueError(
                f"--resume: {self._parts.folder} is of another run: {'; '.join(different)}. Accepted: the same model, options and "
                "input; or delete that folder to begin anew"
            )
        if times[0] != times[1]:
            self._read_again()

    def _read_again(self) -> None:
        """Compares the rows that are done with those of a file that was touched since."""
        quiet = BadRows(self._bad.on_error, lambda line: None)
        shards = self._source.shards(quiet)
        for number, record in enumerate(self._parts.shards):
            shard = next(shards, None)
            if shard is None or shard.checksum() != record["checksum"] or shard.read != record["read"]:
                where = f"from {shard.where} on" if shard is not None else "near its end"
                raise ArgumentValueError(
                    f"--resume: {self._source.path} has changed since, in the {record['read']} rows {where} (shard {number}); "
                    f"accepted: the same input. Restore it, or delete {self._parts.folder} to begin anew"
                )
