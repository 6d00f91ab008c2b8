"""Parquet files, read and written by pyarrow."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np

from sentcore.errors import MissingPackageError
from sentcore.pipeline.corpus.lines import first_names
from sentcore.pipeline.corpus.rows import SHARD_ROWS, BadRows, InputError, Row, Shard

EMBEDDING = "embedding"


def require_pyarrow() -> None:
    """An error that names the extra, where pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("parquet needs pyarrow; pip install 'sentcore[parquet]'") from error


class ParquetSource:
    """A parquet file; columns that are not needed are not read, and of the rest a batch at a time."""

    def __init__(self, path: Path, column: str, keep: Sequence[str] = ()) -> None:
        require_pyarrow()
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        self.keep = tuple(keep)
        self._column = column
        try:
            with pq.ParquetFile(path) as file:
                self.schema, self._rows = file.schema_arrow, file.metadata.num_rows
        except pa.ArrowException as error:
            raise InputError(f"{path}: no parquet file ({error}); make it again") from error
        for k, name in enumerate((column, *keep)):
            option = "--keep" if k else "--column"
            found = self.schema.names.count(name)
            if found != 1:
                raise InputError(
                    f"{path}: {found or 'no'} column{'s'[: found > 1]} {name!r} among {first_names(self.schema.names)}; name one "
                    f"with {option}"
                )
        kind = self.schema.field(column).type
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner)):
            raise InputError(
                f"{path}: column {column!r} is of type {kind}; accepted: string. Name another with --column"
            )

    def total(self) -> int | None:
        """See Source."""
        return self._rows

    def shards(self, bad: BadRows, number: int = 0, start: dict | None = None) -> Iterator[Shard]:
        """See Source."""
        import pyarrow as pa

        for k in count(number):
            first = k * SHARD_ROWS
            if first >= self._rows:
                return
            if k == number:
                batches = self._batches(first)
                held: list[pa.RecordBatch] = []
            while sum(map(len, held)) < min(SHARD_ROWS, self._rows - first):
                held.append(next(batches))
            table = pa.Table.from_batches(held)
            yield self._shard(k, table.slice(0, SHARD_ROWS), bad)
            held = table.slice(SHARD_ROWS).to_batches()

    def _batches(self, first: int) -> Iterator[Any]:
        """Record batches from row `first` on; row groups before it are not read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            groups = list(range(file.num_row_groups))
            while groups and first >= (rows := file.metadata.row_group(groups[0]).num_rows):
                first -= rows
                groups.pop(0)
            columns = list(dict.fromkeys((self._column, *self.keep)))
            try:
                for batch in file.iter_batches(SHARD_ROWS, row_groups=groups, columns=columns):
                    if first < len(batch):
                        yield batch.slice(first)
                    first = max(0, first - len(batch))
            except pa.ArrowException as error:
                raise InputError(f"{self.path}: damaged ({error}); make the file again") from error

    def _shard(self, number: int, table: Any, bad: BadRows) -> Shard:
        first = number * SHARD_ROWS
        texts = []
        good = np.ones(len(table), dtype=np.bool_)
        for i, text in enumerate(self._texts(table)):
            if isinstance(text, str):
                texts.append(text)
                continue
            good[i] = False
            said = "null; accepted: a text" if text is None else "not UTF-8; write the file again"
            bad.met(Row(f"{self.path}, row {first + i}", None, (), f"column {self._column!r} is {said}"))
        wrong = int((~good).sum())
        kept = table.select(list(self.keep))
        if wrong and bad.on_error == "skip":
            kept, good = kept.filter(good), good[good]
        read = len(table)
        return Shard(number, texts, kept, good, read, wrong, f"{self.path}, row {first}", {"row": first + read})

    def _texts(self, table: Any) -> list:
        column = table.column(self._column)
        try:
            return column.to_pylist()
        except UnicodeDecodeError:
            return [_decoded(value) for value in column]


def _decoded(value: Any) -> str | bytes | None:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return b""


def shard_bytes(table: Any) -> bytes:
    """A table as an Arrow IPC file."""
    import pyarrow as pa

    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def shard_table(data: bytes) -> Any:
    """What `shard_bytes` made."""
    import pyarrow as pa

    return pa.ipc.open_file(pa.BufferReader(data)).read_all()


def with_embeddings(kept: Any, rows: np.ndarray, good: np.ndarray) -> Any:
    """`kept` and a column of fixed_size_list<dtype of rows, E>; rows [good ones, E], null where `good` is False."""
    import pyarrow as pa

    if len(rows) < len(good):
        every = np.zeros((len(good), rows.shape[1]), dtype=rows.dtype)
        every[good] = rows
        rows = every
    values = pa.array(np.ascontiguousarray(rows).reshape(-1))
    mask = None if good.all() else pa.array(~good)
    column = pa.FixedSizeListArray.from_arrays(values, rows.shape[1], mask=mask)
    return kept.append_column(EMBEDDING, column)


def embeddings(table: Any) -> tuple[np.ndarray, np.ndarray]:
    """(rows [good ones, E], good [rows] bool) of `with_embeddings`."""
    column = table.column(EMBEDDING).combine_chunks()
    good = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.flatten().to_numpy()  # of the valid ones alone
    return values.reshape(-1, column.type.list_size), good


def writer(file: IO[bytes], schema: Any) -> Any:
    """A ParquetWriter; embeddings do not compress, and neither do dictionaries help them."""
    import pyarrow.parquet as pq

    others = [name for name in schema.names if name != EMBEDDING]
    leaf = f"{EMBEDDING}.list.element"
    return pq.ParquetWriter(
        file,
        schema,
        compression={**dict.fromkeys(others, "zstd"), leaf: "none"} if others else "none",
        use_dictionary=others or False,
        write_statistics=others or False,
    )


def typed_table(keep: Sequence[str], rows: list[tuple], types: dict[str, str]) -> Any:
    """A table of carried values under the names of KeptTypes."""
    import pyarrow as pa

    kinds = {
        "boolean": pa.bool_(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "string": pa.string(),
        "json": pa.string(),
    }
    columns = [pa.array([row[k] for row in rows], kinds[types[name]]) for k, name in enumerate(keep)]
    return pa.table(columns, names=list(keep))
