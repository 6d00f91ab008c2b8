"""Features of texts, as JSON lines or a NumPy file."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from sentcore.cli.choices import BACKENDS, CHUNK_MODES, DTYPES, PRECISIONS
from sentcore.cli.readers import check_input, check_text, read_file, read_standard_input
from sentcore.errors import ArgumentValueError, MissingFileError

if TYPE_CHECKING:
    import numpy as np

    from sentcore.cli.writers import Writer
    from sentcore.sentence_encoder import SentenceEncoder

OUTPUT_KINDS = (".npy", ".jsonl")


def count(value: str) -> int:
    """A whole number of at least 1."""
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value!r}; accepted: a whole number of at least 1")
    return number


def count_or_zero(value: str) -> int:
    """A whole number of at least 0."""
    if value.isascii() and value.isdigit():
        return int(value)
    raise argparse.ArgumentTypeError(f"{value!r}; accepted: a whole number of at least 0")


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
        help="txt (a text a line), jsonl or csv, also .gz; - for standard input, a text a line",
    )
    add("--column", help="field of a jsonl or csv file that holds the text (default: text)")
    add("-m", "--model", default="minilm", help='"minilm" (default), a local folder, or a hub id')
    add(
        "-o",
        "--output",
        metavar="OUT",
        help=".npy or .jsonl file; default: JSON lines on standard output",
    )
    add("--dtype", choices=DTYPES, default="auto", help="what weights and activations are held in")
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
    add("--device", help="cpu, cuda, cuda:1, ...; default: a GPU where there is one")
    add("--backend", choices=BACKENDS, default="auto", help="compiled kernels or plain PyTorch")
    add(
        "--max-length",
        type=count,
        metavar="N",
        help="tokens a text is cut at; default: the model's",
    )
    add("--chunk", choices=CHUNK_MODES, help="encode a longer text in windows of that length and pool their features")
    add("--chunk-overlap", type=count_or_zero, metavar="N", help="tokens that neighbouring windows share")
    add("--local-files-only", action="store_true", help="never ask the hub")
    add(
        "--quiet",
        action="store_true",
        help="no progress bar and no notes; warnings and errors stay",
    )


def run(args: argparse.Namespace) -> int:
    """Encodes what `args` names; 0, or an exception that says what went wrong."""
    output = _check_output(args)
    texts = _texts(args)
    # Only now what takes time to import and to load.
    from sentcore.cli.precision import in_precision
    from sentcore.cli.writers import JsonLinesWriter, NpyWriter, replacing
    from sentcore.sentence_encoder import SentenceEncoder

    encoder = SentenceEncoder(
        args.model,
        device=args.device,
        dtype=args.dtype,
        backend=args.backend,
        max_length=args.max_length,
        local_files_only=args.local_files_only,
    )
    with nullcontext(sys.stdout.buffer) if output is None else replacing(output) as file:
        writer: Writer
        if output is not None and output.suffix == ".npy":
            writer = NpyWriter(file, _dimension(encoder, args.truncate_dim), args.precision)
        else:
            writer = JsonLinesWriter(file)
        folder = None if output is None else output.parent
        rows = 0
        for block, features in in_precision(_blocks(encoder, texts, args), args.precision, folder):
            writer.write(block, features)
            rows += len(block)
        writer.finish()
    if not args.quiet:
        if rows == 0:
            print("sentcore: no texts were found, so there are no features", file=sys.stderr)
        if output is not None:
            print(f"sentcore: wrote {rows} features to {output}", file=sys.stderr)
    return 0


def _blocks(
    encoder: SentenceEncoder, texts: Iterable[str], args: argparse.Namespace
) -> Iterator[tuple[list[str], np.ndarray]]:
    """(texts, their features [b, E] float32), a block at a time; holds the texts of one block only."""
    held: deque[str] = deque()

    def remembered() -> Iterator[str]:
        for text in texts:
            held.append(text)
            yield text

    # A bar would be torn apart by results printed on the same terminal.
    printing = args.output is None and sys.stdout.isatty()
    bar = sys.stderr.isatty() and not (args.quiet or args.text or printing)
    for index, rows in encoder.encode_iter(
        remembered(),
        prompt_name=args.prompt_name,
        prompt=args.prompt,
        batch_tokens=args.batch_tokens,
        show_progress_bar=bar,
        normalize_embeddings=args.normalize,
        truncate_dim=args.truncate_dim,
        chunk=args.chunk,
        chunk_overlap=args.chunk_overlap,
    ):
        yield [held.popleft() for _ in range(len(index))], rows


def _dimension(encoder: SentenceEncoder, truncate_dim: int | None) -> int:
    dimension = encoder.get_sentence_embedding_dimension()
    return dimension if truncate_dim is None else min(dimension, truncate_dim)


def _texts(args: argparse.Namespace) -> Iterable[str]:
    """The texts asked for; what can be refused before a model is loaded is refused here."""
    if args.text and args.input is not None:
        raise ArgumentValueError(f"TEXT and --input {args.input} are both given; accepted: one of them")
    if args.prompt is not None and args.prompt_name is not None:
        raise ArgumentValueError("--prompt and --prompt-name are both given; accepted: one of them")
    from_file = args.input not in (None, "-")
    if args.column is not None and not from_file:
        raise ArgumentValueError(
            f"--column is {args.column!r} without a file; accepted: together with --input FILE.jsonl or FILE.csv"
        )
    if args.text:
        for position, text in enumerate(args.text, 1):
            problem = check_text(text)
            if problem:
                raise ArgumentValueError(f"TEXT {position} {problem}")
        return args.text
    if from_file:
        path = check_input(Path(args.input), args.column)
        if args.output is not None and path.resolve() == Path(args.output).resolve():
            raise ArgumentValueError(f"--output is the input file {path}; name another file")
        texts = read_file(path, args.column or "text")
        first = list(_first(texts))
        return chain(first, texts)
    if args.input is None and sys.stdin.isatty():
        raise ArgumentValueError(
            "there is nothing to encode; give TEXT, or --input FILE, or pipe texts into standard input, one a line"
        )
    return read_standard_input(sys.stdin)


def _first(texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        yield text
        return


def _check_output(args: argparse.Namespace) -> Path | None:
    if args.output is None:
        return None
    path = Path(args.output)
    if path.suffix == ".parquet":
        raise ArgumentValueError(
            f"--output is {path}; parquet is not supported yet, accepted: {', '.join(OUTPUT_KINDS)}"
        )
    if path.suffix not in OUTPUT_KINDS:
        raise ArgumentValueError(f"--output is {path}; accepted: a file name ending in {' or '.join(OUTPUT_KINDS)}")
    if not path.parent.is_dir():
        raise MissingFileError(f"--output is {path}, and there is no folder {path.parent}; make it first")
    if path.exists() and not path.is_file():
        raise ArgumentValueError(f"--output is {path}, which is no ordinary file; name another")
    return path
