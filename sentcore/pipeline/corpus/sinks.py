"""Features and carried columns to bytes of a shard, and shards to a file: npy, jsonl or parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import IO, Any, Protocol

import numpy as np

from sentcore.errors import ArgumentValueError
from sentcore.outputs import quantize
from sentcore.pipeline.corpus import parquet
from sentcore.pipeline.corpus.rows import Shard

_STORED = {"float32": "<f4", "int8": "|i1", "uint8": "|u1", "binary": "|i1", "ubinary": "|u1"}
_SCALED = ("int8", "uint8")  # by the range of each column over all rows, so not before the last is known

Shards = Callable[[], Iterator[bytes]]


class Sink(Protocol):
    """A kind of output file."""

    def shard(self, shard: Shard, rows: np.ndarray) -> bytes:
        """What is kept of a shard: rows [good ones, E] float32, and what is carried beside them."""

    def assemble(self, file: IO[bytes], shards: Shards) -> None:
        """Writes the finished file; `shards()` gives the bytes of all shards in order, as often as it is called."""


def make_sink(kind: str, keep: Sequence[str], precision: str, width: int, schema: Any = None) -> Sink:
    """The sink of a file ending in `kind`.

    Args:
        kind: ".npy", ".jsonl" or ".parquet".
        keep: names of the carried columns.
        precision: of the features.
        width: E of the float32 features.
        schema: the pyarrow.Schema of a parquet input, whose types the carried columns keep.

    Raises:
        ArgumentValueError: a carried column is named as the features are, or holds what JSON has no form for.
        MissingPackageError: parquet without pyarrow.
    """
    if kind != ".npy" and parquet.EMBEDDING in keep:
        raise ArgumentValueError(
            f"--keep names {parquet.EMBEDDING!r}, which the features are called; rename that column"
        )
    if kind == ".npy":
        return NpySink(precision, width)
    if kind == ".jsonl":
        return JsonLinesSink(keep, precision, width)
    parquet.require_pyarrow()
    return ParquetSink(keep, precision, width, schema)


class _Precision:
    """Rows in the precision asked for: at once where each stands for itself, at the end where all are needed."""

    def __init__(self, precision: str, width: int) -> None:
        self.name = precision
        self.dtype = np.dtype(_STORED[precision])
        self.columns = -(-width // 8) if precision in ("binary", "ubinary") else width
        self.scaled = precision in _SCALED

    def stored(self, rows: np.ndarray) -> np.ndarray:
        """What a shard holds of rows [b, E] float32."""
        return rows.astype("<f4", copy=False) if self.scaled else self._quantized(rows, None)

    def ranges(self, parts: Iterator[np.ndarray]) -> np.ndarray | None:
        """[2, E]: the smallest and the largest of every column over all parts; None where it is not needed."""
        if not self.scaled:
            return None
        found = None
        for rows in parts:
            if len(rows):
                low, high = rows.min(axis=0), rows.max(axis=0)
                found = (low, high) if found is None else (np.minimum(found[0], low), np.maximum(found[1], high))
        return None if found is None else np.stack(found)

    def final(self, rows: np.ndarray, ranges: np.ndarray | None) -> np.ndarray:
        """[b, columns] of what a shard holds."""
        return self._quantized(rows, ranges) if self.scaled else rows

    def _quantized(self, rows: np.ndarray, ranges: np.ndarray | None) -> np.ndarray:
        if not len(rows):
            return np.zeros((0, self.columns), dtype=self.dtype)
        return np.ascontiguousarray(quantize(rows, self.name, ranges), dtype=self.dtype)


class NpySink:
    """An npy file [rows, E]; a row without a text is NaN."""

    def __init__(self, precision: str, width: int) -> None:
        self._precision = _Precision(precision, width)
        self._width = width

    def shard(self, shard: Shard, rows: np.ndarray) -> bytes:
        """See Sink."""
        if len(rows) < len(shard.good):
            every = np.full((len(shard.good), self._width), np.nan, dtype=np.float32)
            every[shard.good] = rows
            rows = every
        return self._precision.stored(rows).tobytes()

    def assemble(self, file: IO[bytes], shards: Shards) -> None:
        """See Sink."""
        precision = self._precision
        ranges = precision.ranges(map(self._rows, shards()))
        header = {"descr": precision.dtype.str, "fortran_order": False}
        start = file.tell()
        count = 0

        def write_header() -> None:
            # Of one size whatever the count, as numpy leaves room for it to grow.
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, precision.columns)})

        write_header()
        for data in shards():
            if precision.scaled:
                data = precision.final(self._rows(data), ranges).tobytes()
            count += len(data) // (precision.columns * precision.dtype.itemsize)
            file.write(data)
        file.seek(start)
        write_header()

    def _rows(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, dtype="<f4").reshape(-1, self._width)


class JsonLinesSink:
    """One object a line: the carried columns, and "embedding": a list, null for a row without a text."""

    def __init__(self, keep: Sequence[str], precision: str, width: int) -> None:
        self._keep = keep
        self._precision = _Precision(precision, width)
        self._width = width

    def shard(self, shard: Shard, rows: np.ndarray) -> bytes:
        """See Sink."""
        kept = shard.kept if isinstance(shard.kept, list) else list(zip(*shard.kept.to_pydict().values(), strict=True))
        if not self._keep:
            kept = [()] * len(shard.good)
        heads = [self._head(values) for values in kept]
        if not self._precision.scaled:
            return _lines(heads, self._precision.stored(rows), shard.good)
        # Wants the ranges of all rows first: the lines are made from this in the end.
        said = json.dumps([heads, shard.good.tolist()]).encode()
        return said + b"\n" + self._precision.stored(rows).tobytes()

    def assemble(self, file: IO[bytes], shards: Shards) -> None:
        """See Sink."""
        ranges = self._precision.ranges(self._parts(data)[2] for data in shards()) if self._precision.scaled else None
        for data in shards():
            if self._precision.scaled:
                heads, good, rows = self._parts(data)
                data = _lines(heads, self._precision.final(rows, ranges), np.array(good, dtype=np.bool_))
            file.write(data)

    def _parts(self, data: bytes) -> tuple[list[str], list[bool], np.ndarray]:
        end = data.index(b"\n")
        heads, good = json.loads(data[:end])
        return heads, good, np.frombuffer(data, dtype="<f4", offset=end + 1).reshape(-1, self._width)

    def _head(self, values: Sequence[Any]) -> str:
        fields = zip(self._keep, values, strict=True)
        said = (f"{json.dumps(name, ensure_ascii=False)}: {_json(name, value)}, " for name, value in fields)
        return "{" + "".join(said) + f'"{parquet.EMBEDDING}": '


class ParquetSink:
    """A parquet file: the carried columns, and a fixed_size_list of features; a row group a shard."""

    def __init__(self, keep: Sequence[str], precision: str, width: int, schema: Any) -> None:
        self._keep = keep
        self._precision = _Precision(precision, width)
        self._schema = schema

    def shard(self, shard: Shard, rows: np.ndarray) -> bytes:
        """See Sink."""
        kept = shard.kept
        if isinstance(kept, list):
            types = shard.end.get("types") or dict.fromkeys(self._keep, "string")
            kept = parquet.typed_table(self._keep, kept, types)
        return parquet.shard_bytes(parquet.with_embeddings(kept, self._precision.stored(rows), shard.good))

    def assemble(self, file: IO[bytes], shards: Shards) -> None:
        """See Sink."""
        precision = self._precision
        tables = (parquet.embeddings(parquet.shard_table(data))[0] for data in shards())
        ranges = precision.ranges(tables) if precision.scaled else None
        writer = None
        try:
            for data in shards():
                table = parquet.shard_table(data)
                if precision.scaled:
                    rows, good = parquet.embeddings(table)
                    kept = table.drop_columns([parquet.EMBEDDING])
                    table = parquet.with_embeddings(kept, precision.final(rows, ranges), good)
                if writer is None:
                    writer = parquet.writer(file, table.schema)
                if len(table):
                    writer.write_table(table, row_group_size=len(table))
            if writer is None:
                writer = parquet.writer(file, self._empty().schema)
        finally:
            if writer is not None:
                writer.close()

    def _empty(self) -> Any:
        if self._schema is None:
            kept = parquet.typed_table(self._keep, [], dict.fromkeys(self._keep, "string"))
        else:
            kept = self._schema.empty_table().select(list(self._keep))
        rows = np.zeros((0, self._precision.columns), dtype=self._precision.dtype)
        return parquet.with_embeddings(kept, rows, np.zeros(0, dtype=np.bool_))


def _lines(heads: list[str], rows: np.ndarray, good: np.ndarray) -> bytes:
    given = iter(rows)
    lines = [
        f"{head}{f'[{numbers(next(given))}]' if there else 'null'}}}\n" for head, there in zip(heads, good, strict=True)
    ]
    return "".join(lines).encode()


def numbers(row: np.ndarray) -> str:
    """The shortest decimals that read back as the same values; JSON has no NaN, so null stands for it."""
    if row.dtype.kind == "f" and not np.isfinite(row).all():
        return ", ".join(str(value) if np.isfinite(value) else "null" for value in row)
    return ", ".join(map(str, row))


def _json(name: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=_plain)
    except TypeError as error:
        raise ArgumentValueError(
            f"--keep names {name!r}, which holds a {error}, and JSON has no form for that; write .parquet, or leave it out"
        ) from None


def _plain(value: Any) -> str:
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value).__name__)
