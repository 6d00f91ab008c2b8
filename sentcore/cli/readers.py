"""Texts out of files, one at a time, each error with its file and line."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sentcore.errors import ArgumentValueError, MissingFileError, SentcoreError

KINDS = {".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_LONGEST_FIELD = 2**31 - 1  # of a csv file; the module's own limit is 128 KiB


class InputError(SentcoreError, ValueError):
    """A row of an input file cannot be read as a text."""


def check_input(path: Path, column: str | None, option: str = "--input") -> Path:
    """`path` itself when it is a file of a kind that can be read, with a column where it has columns; `option` named it."""
    kind = _kind(path)
    if path.suffix == ".parquet":
        raise ArgumentValueError(
            f"{option} is {path}; parquet is not supported yet, accepted: .txt, .jsonl or .csv, also with .gz"
        )
    if kind is None:
        raise ArgumentValueError(
            f"{option} is {path}; accepted: a file name ending in .txt, .jsonl or .csv, also with .gz"
        )
    if kind == "txt" and column is not None:
        raise ArgumentValueError(
            f"--column is {column!r} and {option} is {path}; a txt file has no columns, leave --column out"
        )
    if not path.exists():
        raise MissingFileError(f"{option} is {path}, and there is no such file; check the path")
    if path.is_dir():
        raise ArgumentValueError(f"{option} is {path}, which is a folder; name a file in it")
    return path


def _kind(path: Path) -> str | None:
    name = path.with_suffix("") if path.suffix == ".gz" else path
    return KINDS.get(name.suffix)


def read_file(path: Path, column: str) -> Iterator[str]:
    """The texts of a file that `check_input` has let through."""
    compressed = path.suffix == ".gz"
    with gzip.open(path, "rb") if compressed else open(path, "rb") as file:
        lines = _decoded(file, str(path))
        kind = _kind(path)
        if kind == "txt":
            yield from _txt(lines, str(path))
        elif kind == "jsonl":
            yield from _jsonl(lines, str(path), column)
        else:
            yield from _csv(lines, str(path), column)


def read_standard_input(stream: IO[str]) -> Iterator[str]:
    """A text a line."""
    raw = getattr(stream, "buffer", None)
    if raw is None:  # a text stream put in its place
        raw = (line.encode("utf-8", "surrogatepass") for line in stream)
    return _txt(_decoded(raw, "standard input"), "standard input")


def check_text(text: str) -> str | None:
    """What is wrong with a text that no tokenizer can take, or None."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return (
            f"holds a lone surrogate (U+{ord(text[error.start]):04X} at character {error.start}), which is no character; "
            "write the text as UTF-8"
        )
    return None


def _decoded(file: Any, name: str) -> Iterator[tuple[int, str]]:
    """(line number from 1, the line with its end), split at \\n alone."""
    number = 0
    try:
        for number, raw in enumerate(file, 1):
            try:
                # A byte-order mark belongs to no text.
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{name}, line {number}: byte {error.start} is not UTF-8; convert the file, as with "
                    "iconv -f ENCODING -t UTF-8"
                ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{name}: the gzip data is damaged behind line {number} ({error}); make the file again"
        ) from None


def _checked(text: str, where: str) -> str:
    problem = check_text(text)
    if problem:
        raise InputError(f"{where}: the text {problem}")
    return text


def _txt(lines: Iterator[tuple[int, str]], name: str) -> Iterator[str]:
    for number, line in lines:
        yield _checked(line.removesuffix("\n").removesuffix("\r"), f"{name}, line {number}")


def _jsonl(lines: Iterator[tuple[int, str]], name: str, column: str) -> Iterator[str]:
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{where}: not JSON ({error}); accepted: one object a line, as {{{json.dumps(column)}: ...}}"
            ) from None
        if not isinstance(row, dict):
            raise InputError(f"{where}: a JSON {_json_type(row)}; accepted: an object with the field {column!r}")
        if column not in row:
            raise InputError(f"{where}: no field {column!r} among {_shown(row)}; name the field with --column")
        text = row[column]
        if not isinstance(text, str):
            raise InputError(f"{where}: field {column!r} is a JSON {_json_type(text)}; accepted: a string")
        yield _checked(text, where)


def _csv(lines: Iterator[tuple[int, str]], name: str, column: str) -> Iterator[str]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader((line for _, line in lines), strict=True)
    header: list[str] | None = None
    place = 0
    while True:
        first_line = reader.line_num + 1  # a quoted field may go over several lines
        where = f"{name}, line {first_line}"
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise InputError(f"{where}: not CSV ({error}); quote the fields and try again") from None
        if not row:
            continue
        if header is None:
            header, place = row, _place(row, column, where)
            continue
        if len(row) > len(header):
            raise InputError(
                f"{where}: {len(row)} fields under a header of {len(header)}; quote fields that hold commas"
            )
        if place >= len(row):
            raise InputError(
                f"{where}: {len(row)} fields under a header of {len(header)}, none for {column!r}; complete the row"
            )
        yield _checked(row[place], where)


def _place(header: list[str], column: str, where: str) -> int:
    found = header.count(column)
    if found == 1:
        return header.index(column)
    if found:
        raise InputError(f"{where}: {found} columns are named {column!r}; rename all but one")
    raise InputError(f"{where}: no column {column!r} in the header {_shown(header)}; name the column with --column")


def _shown(names: Any) -> str:
    """The first names, for a message."""
    every = [repr(name) for name in names]
    return ", ".join(every[:8]) + (", ..." if len(every) > 8 else "") or "none"


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "number", float: "number", list: "array", dict: "object"}
    return names[type(value)]
