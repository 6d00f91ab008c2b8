"""A corpus cut into shards: a txt, jsonl or csv file (also .gz), a parquet file, or texts in memory."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sentcore.pipeline.corpus.kept_types import KeptTypes
from sentcore.pipeline.corpus.lines import READERS, Lines
from sentcore.pipeline.corpus.parquet import ParquetSource
from sentcore.pipeline.corpus.rows import SHARD_ROWS, BadRows, Row, Shard

KINDS = {".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


class Source(Protocol):
    """A corpus.

    Attributes:
        keep: names of the columns that are carried.
        path: the file; None for texts in memory.
    """

    keep: tuple[str, ...]
    path: Path | None

    def shards(self, bad: BadRows, number: int = 0, start: dict | None = None) -> Iterator[Shard]:
        """The shards from `number` on, whose place is the `end` of the one before it."""

    def total(self) -> int | None:
        """Rows in all, as far as can be told by now."""


def kind_of(path: Path) -> str | None:
    """ "txt", "jsonl", "csv" or "parquet" by a file's name, .gz or not; None for any other."""
    name = path.with_suffix("") if path.suffix == ".gz" else path
    kind = KINDS.get(name.suffix)
    return None if kind == "parquet" and path.suffix == ".gz" else kind


def open_source(path: Path, column: str, keep: Sequence[str] = (), typed: bool = False) -> Source:
    """The source of a file.

    Args:
        path: a file of a kind that can be read.
        column: of the text.
        keep: columns that are carried.
        typed: whether the carried values go into columns of one type each (parquet).

    Raises:
        InputError: a parquet file lacks a column, or its text column holds no texts.
        MissingPackageError: parquet, without pyarrow.
    """
    if kind_of(path) == "parquet":
        return ParquetSource(path, column, keep)
    return LineSource(path, column, keep, typed)


def read_file(path: Path, column: str) -> Iterator[str]:
    """The texts of a file, one by one; an InputError at the first bad row."""
    for shard in open_source(path, column).shards(BadRows("fail")):
        yield from shard.texts


class LineSource:
    """A file of lines."""

    def __init__(self, path: Path, column: str, keep: Sequence[str] = (), typed: bool = False) -> None:
        self.path = path
        self.keep = tuple(keep)
        self._kind, self._column = kind_of(path), column
        self._typed = typed
        self._size = os.stat(path).st_size
        self._read = self._bytes = 0

    def total(self) -> int | None:
        """An estimate from the bytes read so far."""
        return round(self._read * self._size / self._bytes) if self._bytes else None

    def shards(self, bad: BadRows, number: int = 0, start: dict | None = None) -> Iterator[Shard]:
        """See Source."""
        with open(self.path, "rb") as raw:
            file = gzip.GzipFile(fileobj=raw) if self.path.suffix == ".gz" else raw
            # An undecodable byte inside a quoted csv field must not end its record.
            lines = Lines(file, str(self.path), "surrogateescape" if self._kind == "csv" else "strict")
            options = {}
            types = KeptTypes(self.keep, (start or {}).get("types")) if self._typed else None
            if start is not None:
                if self._kind == "csv":
                    options["header"] = start["header"]
                file.seek(start["offset"])
                lines.offset, lines.number = start["offset"], start["line"]
            rows = READERS[self._kind](lines, self._column, self.keep, **options)
            self._read = number * SHARD_ROWS
            for k in count(number):
                taken = list(islice(rows, SHARD_ROWS))
                self._read += len(taken)
                self._bytes = raw.tell()
                if not taken:
                    return
                if types is not None:
                    taken = types.checked(taken)
                end: dict[str, Any] = {"offset": lines.offset, "line": lines.number}
                if self._kind == "csv":
                    end["header"] = lines.header
                if types is not None:
                    end["types"] = types.names
                yield make_shard(k, taken, bad, end)


class ListSource:
    """Texts in memory, or as they come: nothing to go on with later."""

    path = None
    keep: tuple[str, ...]

    def __init__(self, texts: Iterable[str], keep: Sequence[str] = ()) -> None:
        self.keep = tuple(keep)
        self._texts = texts

    def total(self) -> int | None:
        """See Source."""
        return len(self._texts) if isinstance(self._texts, Sequence) else None

    def shards(self, bad: BadRows, number: int = 0, start: dict | None = None) -> Iterator[Shard]:
        """See Source; from the beginning alone."""
        texts = iter(self._texts)
        for k in count():
            taken = [
                Row(f"text {k * SHARD_ROWS + i}", t, (t,) * len(self.keep))
                for i, t in enumerate(islice(texts, SHARD_ROWS))
            ]
            if not taken:
                return
            yield make_shard(k, taken, bad, {})


def make_shard(number: int, rows: list[Row], bad: BadRows, end: dict) -> Shard:
    """The shard of some rows, the bad ones reported, and left out or null as `bad` says."""
    wrong = 0
    for row in rows:
        if row.problem is not None:
            bad.met(row)
            wrong += 1
    written = [row for row in rows if row.problem is None] if wrong and bad.on_error == "skip" else rows
    return Shard(
        number=number,
        texts=[row.text for row in written if row.text is not None],
        kept=[row.kept for row in written],
        good=np.array([row.text is not None for row in written], dtype=np.bool_),
        read=len(rows),
        bad=wrong,
        where=rows[0].where,
        end=end,
    )
