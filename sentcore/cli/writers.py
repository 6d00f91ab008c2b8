"""Features into files, a block at a time; a failure leaves no half-written file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

import numpy as np

_HEADER_BYTES = 128  # of an npy file, padded so that the final shape fits in its place
_STORED = {
    "float32": "<f4",
    "int8": "|i1",
    "uint8": "|u1",
    "binary": "|i1",
    "ubinary": "|u1",
}


class Writer(Protocol):
    """Takes blocks of texts and their features."""

    def write(self, texts: list[str], rows: np.ndarray) -> None:
        """One more block: rows [b, E]."""

    def finish(self) -> None:
        """What is due after the last block."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes `path`'s place when the block ends well, and vanishes when it does not."""
    target = Path(os.path.realpath(path))  # a link goes on pointing where it did
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(unfinished, "w+b") as file:
            yield file
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


class NpyWriter:
    """An npy file [rows, E], appended to; the number of rows is written last.

    Args:
        file: seekable, empty.
        dimension: E of the float32 features, for a file without rows.
        precision: what the rows are in.
    """

    def __init__(self, file: IO[bytes], dimension: int, precision: str) -> None:
        self._file = file
        self._dtype = np.dtype(_STORED[precision])
        self._columns = -(-dimension // 8) if precision in ("binary", "ubinary") else dimension
        self._rows = 0
        file.write(self._header())

    def write(self, texts: list[str], rows: np.ndarray) -> None:
        """Appends rows [b, E]; the texts are not stored."""
        if self._rows == 0:
            self._columns = rows.shape[1]
        elif rows.shape[1] != self._columns:
            raise AssertionError(f"{rows.shape[1]} columns after {self._columns}")
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self._rows += len(rows)

    def finish(self) -> None:
        """Puts the number of rows into the header."""
        self._file.seek(0)
        self._file.write(self._header())

    def _header(self) -> bytes:
        shape = (self._rows, self._columns)
        text = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
        room = _HEADER_BYTES - 10
        padded = text.encode("latin-1").ljust(room - 1) + b"\n"
        return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + padded


class JsonLinesWriter:
    """One object a line: {"text": ..., "embedding": [...]}."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, texts: list[str], rows: np.ndarray) -> None:
        """Appends one line a text, and hands them on at once."""
        for text, row in zip(texts, rows, strict=True):
            said = json.dumps(text, ensure_ascii=False)
            self._file.write(f'{{"text": {said}, "embedding": [{_numbers(row)}]}}\n'.encode())
        self._file.flush()

    def finish(self) -> None:
        """Nothing is left to do."""


def _numbers(row: np.ndarray) -> str:
    """The shortest decimals that read back as the same values; JSON has no NaN, so null stands for it."""
    if row.dtype.kind == "f" and not np.isfinite(row).all():
        return ", ".join(str(value) if np.isfinite(value) else "null" for value in row)
    return ", ".join(map(str, row))
