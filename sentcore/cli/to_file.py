"""`sentcore encode -o FILE`: the run's parts put together from the command line's arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sentcore.errors import ArgumentValueError

if TYPE_CHECKING:
    from sentcore.pipeline.corpus import Job, Parts, Summary
    from sentcore.sentence_encoder import SentenceEncoder

# Options that the features and the file depend on; others may change when a run is gone on with.
_NOTED = (
    *("column", "keep", "prompt_name", "prompt", "normalize", "truncate_dim", "precision", "backend", "max_length"),
    *("chunk", "chunk_overlap", "on_error"),
)


def encode_to_file(args: argparse.Namespace, output: Path, texts: Iterable[str] | None) -> None:
    """Encodes args.input, or `texts` where it is None, into `output`."""
    from sentcore.cli.arguments import load_encoder
    from sentcore.pipeline.corpus import BadRows, Job, ListSource, Parts, make_sink, open_source

    kept = args.keep or (() if output.suffix == ".npy" else (args.column,))
    if texts is None:
        source = open_source(Path(args.input), args.column, kept, typed=output.suffix == ".parquet")
    else:
        source = ListSource(texts, kept)
    bad = BadRows(args.on_error)
    parts = Parts(output)
    finished = parts.finished_identity() if args.resume else None
    before = parts.begin() if finished is None else None
    begun = False
    try:
        if before is not None and not args.resume:
            raise ArgumentValueError(
                f"{parts.folder} holds {len(parts.shards)} shards of an earlier run; accepted: --resume to go on with them, or "
                "delete that folder to begin anew"
            )
        if before is None and finished is None and texts is None:
            next(
                iter(source.shards(BadRows(args.on_error, lambda line: None))), None
            )  # wrong at once: no model is loaded
        encoder = load_encoder(args)
        identity = _identity(args, encoder, texts is None)
        if finished == identity:
            parts.remove_finished()
            _say(args, f"{output} was finished already")
            return
        if finished is not None:
            before = parts.begin()
        sink = make_sink(output.suffix, kept, args.precision, width(encoder, args), getattr(source, "schema", None))
        job = Job(source, sink, parts, bad, finite=args.precision != "float32")
        job.prepare(before, identity, lambda line: print(f"sentcore: {line}", file=sys.stderr))
        begun = True
        if before is not None:
            _say(args, f"{job.rows_read} rows are done already")
        summary = _run(args, encoder, job, source, parts)
    except BaseException:
        _leave(parts, before is not None, begun, texts is None)
        raise
    _tell(args, output, summary)


def _run(args: argparse.Namespace, encoder: SentenceEncoder, job: Job, source, parts: Parts) -> Summary:
    from sentcore.cli.encode import encode_options, worker_devices
    from sentcore.pipeline import progress_bar

    show = sys.stderr.isatty() and not (args.quiet or args.text)
    devices = worker_devices(args, encoder)
    with progress_bar(source.total, show, job.rows_read) as bar:
        return job.run(
            lambda lists: encoder.encode_windows(lists, show_progress_bar=bar, devices=devices, **encode_options(args))
        )


def _identity(args: argparse.Namespace, encoder: SentenceEncoder, from_file: bool) -> dict:
    import torch

    from sentcore._version import __version__
    from sentcore.pipeline.corpus import file_identity, folder_identity
    from sentcore.placement import check_batch_invariant

    options = {name: getattr(args, name) for name in _NOTED}
    options.update(keep=list(args.keep), dtype=str(encoder.dtype), device=encoder.device.type)
    try:
        check_batch_invariant(encoder.device, encoder.dtype, args.backend)
    except ArgumentValueError:  # a row's last bits may depend on the batch it is in
        options["batch_tokens"] = args.batch_tokens
    return {
        "input": file_identity(Path(args.input)) if from_file else {},
        "model": folder_identity(encoder.checkpoint.folder),
        "options": options,
        "versions": {"sentcore": __version__, "torch": torch.__version__},
    }


def _leave(parts: Parts, earlier: bool, begun: bool, resumable: bool) -> None:
    """Says what an unfinished run has kept; nothing is left of one that has done nothing, or cannot be gone on with."""
    if not parts.locked:
        return
    if not begun and earlier:
        parts.release()
    elif not begun or not parts.shards or not resumable:
        parts.discard()
    else:
        rows = sum(shard["read"] for shard in parts.shards)
        print(
            f"sentcore: {rows} rows are done and kept in {parts.folder}; the same command with --resume goes on from there",
            file=sys.stderr,
        )
        parts.release()


def _tell(args: argparse.Namespace, output: Path, summary: Summary) -> None:
    if summary.bad:
        done = "left out" if args.on_error == "skip" else "null"
        print(f"sentcore: warning: {summary.bad} bad rows, {done}", file=sys.stderr)
    if summary.non_finite:
        print(f"sentcore: warning: {summary.non_finite} features are NaN or infinite", file=sys.stderr)
    if summary.rows == 0:
        _say(args, "no texts were found, so there are no features")
    _say(args, f"wrote {summary.rows} features to {output}")


def _say(args: argparse.Namespace, line: str) -> None:
    if not args.quiet:
        print(f"sentcore: {line}", file=sys.stderr)


def width(encoder: SentenceEncoder, args: argparse.Namespace) -> int:
    """Columns of the float32 features."""
    dimension = encoder.get_sentence_embedding_dimension()
    return dimension if args.truncate_dim is None else min(dimension, args.truncate_dim)
