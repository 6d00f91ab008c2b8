"""Rows of txt, jsonl and csv files, in one pass and from any row on."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from sentcore.model_files import shown
from sentcore.pipeline.corpus.rows import InputError, Row, check_text

LONGEST_LINE = 2**28  # bytes; a few kilobytes of gzip can hold a line larger than any memory
_LONGEST_FIELD = 2**28  # of a csv file: what a quote that is never closed may swallow

_CONVERT = "convert the file, as with iconv -f ENCODING -t UTF-8"


class _NotUtf8(Exception):
    pass


class Lines:
    """The lines of a file, split at \\n alone; what is no UTF-8 raises, and the next line can still be had.

    Args:
        file: binary, its lines to iterate over.
        name: for messages.
        errors: what becomes of bytes that are not UTF-8, as in bytes.decode.

    Attributes:
        number: of the last line, from 1.
        offset: bytes (uncompressed) up to its end.
        header: of a csv file, once it was met.
    """

    def __init__(self, file: Any, name: str, errors: str = "strict") -> None:
        self.name = name
        self._errors = errors
        self.header: list[str] | None = None
        self.number = self.offset = 0
        # Of a line too long, one byte more than is accepted.
        self._file = iter(lambda: file.readline(LONGEST_LINE + 1), b"") if hasattr(file, "readline") else iter(file)

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        try:
            raw = next(self._file)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(
                f"{self.name}: the gzip data is damaged behind line {self.number} ({error}); make the file again"
            ) from None
        self.number += 1
        if len(raw) > LONGEST_LINE:
            raise InputError(
                f"{self.where}: more than {LONGEST_LINE} bytes; accepted: at most as many in a line. Divide the text"
            )
        self.offset += len(raw)
        try:
            # A byte-order mark belongs to no text.
            return raw.decode("utf-8-sig" if self.number == 1 else "utf-8", self._errors)
        except UnicodeDecodeError as error:
            raise _NotUtf8(f"byte {error.start} is not UTF-8; {_CONVERT}") from None

    @property
    def where(self) -> str:
        """Of the last line."""
        return f"{self.name}, line {self.number}"


def txt_rows(lines: Lines, column: str, keep: Sequence[str]) -> Iterator[Row]:
    """A text a line; the only column is the text."""
    while True:
        try:
            text = next(lines).removesuffix("\n").removesuffix("\r")
        except StopIteration:
            return
        except _NotUtf8 as error:
            yield Row(lines.where, None, (None,) * len(keep), str(error))
            continue
        problem = check_text(text)
        yield _row(lines.where, text, (text,) * len(keep), problem)


def jsonl_rows(lines: Lines, column: str, keep: Sequence[str]) -> Iterator[Row]:
    """An object a line; lines of white space are none."""
    while True:
        kept = (None,) * len(keep)
        try:
            line = next(lines)
        except StopIteration:
            return
        except _NotUtf8 as error:
            yield Row(lines.where, None, kept, str(error))
            continue
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = f"not JSON ({error}); accepted: one object a line, as {{{json.dumps(column)}: ...}}"
            yield Row(lines.where, None, kept, problem)
            continue
        if not isinstance(row, dict):
            problem = f"a JSON {json_type(row)}; accepted: an object with the field {column!r}"
            yield Row(lines.where, None, kept, problem)
            continue
        kept = tuple(row.get(name) for name in keep)
        missing = next((name for name in (column, *keep) if name not in row), None)
        if missing is not None:
            option = "--column" if missing == column else "--keep"
            problem = f"no field {missing!r} among {first_names(row)}; name the field with {option}"
            yield Row(lines.where, None, kept, problem)
            continue
        text = row[column]
        if not isinstance(text, str):
            problem = f"field {column!r} is a JSON {json_type(text)}; accepted: a string"
            yield Row(lines.where, None, kept, problem)
            continue
        problem = check_text(text)
        if problem is None and keep and "\\u" in line:
            problem = check_text(json.dumps(kept, ensure_ascii=False))
        yield _row(lines.where, text, kept, problem)


def csv_rows(lines: Lines, column: str, keep: Sequence[str], header: list[str] | None = None) -> Iterator[Row]:
    """A row a record under a header, which may go over several lines; empty ones are none.

    Bytes that are not UTF-8 come as surrogates (errors="surrogateescape"), so that they do not tear a record of several
    lines apart.

    Args:
        header: the header, where `lines` stands behind it.

    Raises:
        InputError: the header lacks a column, or names it twice.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(lines, strict=True)
    lines.header = header
    places: list[int] | None = None if header is None else csv_places(header, column, keep, lines.name)
    while True:
        first_line = lines.number + 1
        where = f"{lines.name}, line {first_line}"
        nothing = (None,) * len(keep)
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"not CSV ({error}); quote the fields and try again"
            # Nothing below a broken header can be read, nor behind a quote that was not closed.
            if header is None or "field limit" in str(error):
                raise InputError(f"{where}: {problem}") from None
            yield Row(where, None, nothing, problem)
            continue
        if not row:
            continue
        if header is None or places is None:
            header = lines.header = row
            places = csv_places(row, column, keep, where)
            continue
        if any(map(_not_utf8, row)):
            yield Row(where, None, nothing, f"the row is not UTF-8; {_CONVERT}")
            continue
        kept = tuple(row[place] if place < len(row) else None for place in places[1:])
        if len(row) > len(header):
            problem = f"{len(row)} fields under a header of {len(header)}; quote fields that hold commas"
            yield Row(where, None, kept, problem)
            continue
        short = next((name for name, place in zip((column, *keep), places, strict=True) if place >= len(row)), None)
        if short is not None:
            problem = f"{len(row)} fields under a header of {len(header)}, none for {short!r}; complete the row"
            yield Row(where, None, kept, problem)
            continue
        yield _row(where, row[places[0]], kept, check_text(row[places[0]]))


def _not_utf8(field: str) -> bool:
    return not field.isascii() and any("\udc80" <= character <= "\udcff" for character in field)


def csv_places(header: list[str], column: str, keep: Sequence[str], where: str) -> list[int]:
    """Where the columns stand."""
    return [_place(header, name, where, "--keep" if k else "--column") for k, name in enumerate((column, *keep))]


def _place(header: list[str], column: str, where: str, option: str) -> int:
    found = header.count(column)
    if found == 1:
        return header.index(column)
    if found:
        raise InputError(f"{where}: {found} columns are named {column!r}; rename all but one")
    raise InputError(
        f"{where}: no column {column!r} in the header {first_names(header)}; name the column with {option}"
    )


def _row(where: str, text: str, kept: tuple, problem: str | None) -> Row:
    return Row(where, text if problem is None else None, kept, problem if problem is None else f"the text {problem}")


def first_names(names: Any) -> str:
    """The first names, for a message."""
    every = list(names)
    return ", ".join(map(shown, every[:8])) + (", ..." if len(every) > 8 else "") or "none"


def json_type(value: Any) -> str:
    """JSON's name of a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "number", float: "number", list: "array", dict: "object"}
    return names[type(value)]


READERS: dict[str, Callable[..., Iterator[Row]]] = {"txt": txt_rows, "jsonl": jsonl_rows, "csv": csv_rows}


def read_standard_input(stream: IO[str]) -> Iterator[str]:
    """A text a line."""
    raw = getattr(stream, "buffer", None)
    if raw is None:  # a text stream put in its place
        raw = (line.encode("utf-8", "surrogatepass") for line in stream)
    for row in txt_rows(Lines(raw, "standard input"), "text", ()):
        if row.problem is not None:
            raise InputError(f"{row.where}: {row.problem}")
        yield row.text
