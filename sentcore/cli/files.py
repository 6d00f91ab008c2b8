"""What the command line says of files, checked before anything is read."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sentcore.cli.arguments import output_file
from sentcore.cli.choices import INPUT_KINDS, OUTPUT_KINDS
from sentcore.errors import ArgumentValueError, MissingFileError


def check_input(path: Path, column: str | None, option: str = "--input") -> Path:
    """`path` itself when it is a file of a kind that can be read, with a column where it has columns; `option` named it."""
    compressed = path.suffix == ".gz"
    kind = (path.with_suffix("") if compressed else path).suffix
    if kind not in INPUT_KINDS or (compressed and kind == ".parquet"):
        raise ArgumentValueError(
            f"{option} is {path}; accepted: a file name ending in .txt, .jsonl or .csv, also with .gz, or in .parquet"
        )
    if kind == ".txt" and column is not None:
        raise ArgumentValueError(
            f"--column is {column!r} and {option} is {path}; a txt file has no columns, leave --column out"
        )
    if not path.exists():
        raise MissingFileError(f"{option} is {path}, and there is no such file; check the path")
    if path.is_dir():
        raise ArgumentValueError(f"{option} is {path}, which is a folder; name a file in it")
    return path


def check_output(args: argparse.Namespace) -> Path | None:
    """--output as a file that can be written, and with it what only makes sense there."""
    if args.output is None:
        for option, given in (("--resume", args.resume), (f"--on-error {args.on_error}", args.on_error != "fail")):
            if given:
                raise ArgumentValueError(f"{option} is given without --output; accepted: together with -o FILE")
        return None
    path = output_file(Path(args.output), OUTPUT_KINDS)
    if args.on_error == "null" and path.suffix == ".npy" and args.precision != "float32":
        raise ArgumentValueError(
            f"--on-error is 'null' and --output is {path} in {args.precision}, which has no value for that; accepted: skip or "
            "fail, or .jsonl or .parquet"
        )
    return path


def check_keep(args: argparse.Namespace, output: Path | None) -> None:
    """Makes args.keep the columns of --id and --keep, in order."""
    named = [] if args.keep is None else [name.strip() for name in args.keep.split(",")]
    columns = ([] if args.id is None else [args.id]) + [name for name in named if name != args.id]
    if "" in columns or len(set(columns)) < len(columns):
        raise ArgumentValueError(f"--keep is {args.keep!r}; accepted: names of columns, each once, with commas between")
    if columns:
        if output is None or output.suffix == ".npy":
            where = "standard output" if output is None else str(output)
            raise ArgumentValueError(
                f"--id or --keep is given and the output is {where}; accepted: together with -o FILE.jsonl or FILE.parquet"
            )
        kind = None if args.input in (None, "-") else Path(args.input.removesuffix(".gz")).suffix
        if kind not in (".jsonl", ".ndjson", ".csv", ".parquet"):
            raise ArgumentValueError(
                "--id or --keep is given without columns to read; accepted: a jsonl, csv or parquet file"
            )
    args.keep = tuple(columns)


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
