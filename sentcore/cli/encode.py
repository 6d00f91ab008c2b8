"""Features of texts, as JSON lines, a NumPy file or a parquet file."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sentcore.cli.arguments import add_model_arguments, check_texts, count, count_or_zero, load_encoder
from sentcore.cli.choices import CHUNK_MODES, ON_ERROR, PRECISIONS
from sentcore.cli.files import check_input, check_keep, check_output
from sentcore.errors import ArgumentValueError

if TYPE_CHECKING:
    import numpy as np

    from sentcore.sentence_encoder import SentenceEncoder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `sentcore encode`."""
    add = parser.add_argument
    add(
        "text",
        metavar="TEXT",
        nargs="*",
        help="texts; without any, --input or standard input is read",
    )
    add(
        "--input",
        metavar="FILE",
        help="txt (a text a line), jsonl or csv, also .gz, or parquet; - for standard input, a text a line",
    )
    add("--column", help="field of a jsonl, csv or parquet file that holds the text (default: text)")
    add("--id", metavar="COLUMN", help="column of the input that is written beside each feature (jsonl, parquet)")
    add("--keep", metavar="A,B,...", help="more such columns; without any, the text is")
    add(
        "-o",
        "--output",
        metavar="OUT",
        help=".npy, .jsonl or .parquet file; default: JSON lines on standard output",
    )
    add("--resume", action="store_true", help="go on where the same command was cut off")
    add(
        "--on-error",
        choices=ON_ERROR,
        default="fail",
        help="a row that cannot be read: stop there (default), leave it out, or write null in its place",
    )
    add("--batch-tokens", type=count, metavar="N", help="tokens computed at once; bounds memory")
    add("--prompt-name", metavar="NAME", help="a prompt of the model, put before every text")
    add("--prompt", metavar="PROMPT", help="the prompt itself, instead of its name")
    add("--normalize", action="store_true", help="scale every feature to length 1")
    add("--truncate-dim", type=count, metavar="N", help="keep the first N columns")
    add(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="what the features are written in; int8 and uint8 scale each column over all texts",
    )
    add("--workers", type=count, metavar="N", default=1, help="processes that share the work, on CPU or over the GPUs")
    add("--chunk", choices=CHUNK_MODES, help="encode a longer text in windows of that length and pool their features")
    add("--chunk-overlap", type=count_or_zero, metavar="N", help="tokens that neighbouring windows share")
    add(
        "--quiet",
        action="store_true",
        help="no progress bar and no notes; warnings and errors stay",
    )
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Encodes what `args` names; 0, or an exception that says what went wrong."""
    output = check_output(args)
    check_keep(args, output)
    texts = _texts(args)
    if output is not None:
        from sentcore.cli.to_file import encode_to_file

        encode_to_file(args, output, texts)
        return 0
    from sentcore.pipeline.corpus import read_file

    if texts is None:
        texts = read_file(Path(args.input), args.column)
    # Only now what takes time to load.
    from sentcore.cli.precision import in_precision
    from sentcore.cli.writers import JsonLinesWriter

    encoder = load_encoder(args)
    writer = JsonLinesWriter(sys.stdout.buffer)
    rows = 0
    for block, features in in_precision(_blocks(encoder, texts, args), args.precision, None):
        writer.write(block, features)
        rows += len(block)
    if rows == 0 and not args.quiet:
        print("sentcore: no texts were found, so there are no features", file=sys.stderr)
    return 0


def encode_options(args: argparse.Namespace) -> dict:
    """The options of encode_iter and encode_windows."""
    return {
        "prompt_name": args.prompt_name,
        "prompt": args.prompt,
        "batch_tokens": args.batch_tokens,
        "normalize_embeddings": args.normalize,
        "truncate_dim": args.truncate_dim,
        "chunk": args.chunk,
        "chunk_overlap": args.chunk_overlap,
    }


def worker_devices(args: argparse.Namespace, encoder: SentenceEncoder) -> list[str] | None:
    """A device for each of --workers: the encoder's, or all GPUs in turn where none was named."""
    if args.workers == 1:
        return None
    import torch

    if encoder.device.type == "cuda" and args.device in (None, "cuda"):
        return [f"cuda:{k % torch.cuda.device_count()}" for k in range(args.workers)]
    return [str(encoder.device)] * args.workers


def _blocks(
    encoder: SentenceEncoder, texts: Iterable[str], args: argparse.Namespace
) -> Iterator[tuple[list[str], np.ndarray]]:
    """(texts, their features [b, E] float32), a block at a time; holds the texts of a few blocks only."""
    held: deque[str] = deque()

    def remembered() -> Iterator[str]:
        for text in texts:
            held.append(text)
            yield text

    # A bar would be torn apart by results printed on the same terminal.
    bar = sys.stderr.isatty() and not (args.quiet or args.text or sys.stdout.isatty())
    for index, rows in encoder.encode_iter(
        remembered(), show_progress_bar=bar, devices=worker_devices(args, encoder), **encode_options(args)
    ):
        yield [held.popleft() for _ in range(len(index))], rows


def _texts(args: argparse.Namespace) -> Iterable[str] | None:
    """The texts asked for, None for those of --input FILE; what can be refused before a model is loaded is refused here."""
    if args.text and args.input is not None:
        raise ArgumentValueError(f"TEXT and --input {args.input} are both given; accepted: one of them")
    if args.prompt is not None and args.prompt_name is not None:
        raise ArgumentValueError("--prompt and --prompt-name are both given; accepted: one of them")
    from_file = args.input not in (None, "-")
    if args.column is not None and not from_file:
        raise ArgumentValueError(
            f"--column is {args.column!r} without a file; accepted: together with --input FILE.jsonl, .csv or .parquet"
        )
    if args.resume and not from_file:
        raise ArgumentValueError(
            "--resume is given without --input FILE; accepted: with a file, which can be read again"
        )
    if from_file:
        path = check_input(Path(args.input), args.column)
        if args.output is not None and path.resolve() == Path(args.output).resolve():
            raise ArgumentValueError(f"--output is the input file {path}; name another file")
        args.column = args.column or "text"
        return None
    args.column = "text"
    if args.text:
        check_texts("TEXT", args.text)
        return args.text
    if args.input is None and sys.stdin.isatty():
        raise ArgumentValueError(
            "there is nothing to encode; give TEXT, or --input FILE, or pipe texts into standard input, one a line"
        )
    from sentcore.pipeline.corpus import read_standard_input

    return read_standard_input(sys.stdin)
