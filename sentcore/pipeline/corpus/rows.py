"""What is read of a corpus: rows, the bad ones among them, and shards of a fixed number of rows."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sentcore.errors import SentcoreError

SHARD_ROWS = 16_384  # rows of the input in a shard, always: what a shard holds may not depend on where a run was cut
ON_ERROR = ("fail", "skip", "null")
_NAMED = 20  # bad rows named one by one


class InputError(SentcoreError, ValueError):
    """A row of an input file cannot be read as a text."""


class Row(NamedTuple):
    """One row.

    Attributes:
        where: file and line or row, for messages.
        text: what is encoded; None for a bad row.
        kept: values of the columns that are carried, in their order; of a bad row what could be read.
        problem: why it is bad, with the remedy; None for a good one.
    """

    where: str
    text: str | None
    kept: tuple
    problem: str | None = None


class BadRows:
    """What is done with bad rows: an InputError under "fail", else a line on standard error and a count."""

    def __init__(self, on_error: str, say: Callable[[str], None] | None = None) -> None:
        self.on_error = on_error
        self.count = 0
        self._say = say or (lambda line: print(f"sentcore: {line}", file=sys.stderr))

    def met(self, row: Row) -> None:
        """Reports one."""
        said = f"{row.where}: {row.problem}"
        if self.on_error == "fail":
            raise InputError(f"{said} (sentcore encode -o FILE --on-error skip or null goes on past such rows)")
        self.count += 1
        if self.count <= _NAMED:
            self._say(f"bad row, {'left out' if self.on_error == 'skip' else 'null'}: {said}")
        elif self.count == _NAMED + 1:
            self._say("more bad rows; they are only counted from here on")


@dataclass
class Shard:
    """Consecutive rows of the input.

    Attributes:
        number: 0, 1, ...; all but the last have SHARD_ROWS rows of the input.
        texts: of the rows that are good, in order.
        kept: a tuple a row that is written, or a pyarrow.Table of them.
        good: [rows written] bool: which of these have a text.
        read: rows of the input; bad: of these.
        where: of the first row, for messages.
        end: where the source goes on behind it.
    """

    number: int
    texts: list[str]
    kept: Any
    good: np.ndarray
    read: int
    bad: int
    where: str
    end: dict = field(default_factory=dict)

    def checksum(self) -> int:
        """CRC-32 of what was read, to see whether it is still the same."""
        kept = self.kept if isinstance(self.kept, list) else self.kept.to_pylist()
        return zlib.crc32(repr(kept).encode("utf-8", "replace"), zlib.crc32("\0".join(self.texts).encode()))


def check_text(text: str) -> str | None:
    """What is wrong with a text that no tokenizer can take, or None."""
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return (
            f"holds a lone surrogate (U+{ord(text[error.start]):04X} at character {error.start}), which is no character; "
            "write the text as UTF-8"
        )
    return None
