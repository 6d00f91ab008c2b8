"""How fast a model is on this machine, by dtype, and beside sentence-transformers."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentcore.cli.arguments import add_model_arguments, count, output_file
from sentcore.cli.choices import DTYPES
from sentcore.cli.files import check_input, replacing
from sentcore.errors import ArgumentValueError

if TYPE_CHECKING:
    from sentcore.measure import Report
    from sentcore.sentence_encoder import SentenceEncoder

_DTYPES = tuple(dtype for dtype in DTYPES if dtype != "auto")
SENTENCE = "How do I return an item that I bought last week?"  # what the latency is of


def _dtypes(value: str) -> tuple[str, ...]:
    names = tuple(value.split(","))
    if len(set(names)) < len(names) or not set(names) <= set(_DTYPES):
        raise argparse.ArgumentTypeError(f"{value!r}; accepted: some of {','.join(_DTYPES)}, each once")
    return names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `sentcore bench`."""
    add = parser.add_argument
    add(
        "--input",
        metavar="FILE",
        help="texts like yours: txt, jsonl, csv, also .gz, or parquet; default: a built-in sample",
    )
    add("--column", help="field of a jsonl, csv or parquet file that holds the text (default: text)")
    add("--num-texts", type=count, metavar="N", default=256, help="texts that are encoded (default: 256)")
    add(
        "--rounds", type=count, metavar="N", default=3, help="in each, every method encodes all texts once (default: 3)"
    )
    add(
        "--dtype",
        type=_dtypes,
        metavar="A,B,...",
        help=f"some of {', '.join(_DTYPES)}; default: all that run here. float32 is always measured, the others are compared with it",
    )
    add("--batch-tokens", type=count, metavar="N", help="tokens that sentcore computes at once")
    add("--threads", type=count, metavar="N", help="threads of torch; default: torch's own")
    add("--json", metavar="OUT", help="write everything that was measured, every round, to a .json file")
    add("--no-peer", action="store_true", help="leave sentence-transformers out")
    add("--quiet", action="store_true", help="no progress bar; warnings and errors stay")
    add_model_arguments(parser, one_way=False)


def run(args: argparse.Namespace) -> int:
    """Prints the report; 0, 1 where a method gives other features than float32, or an exception that says what went wrong."""
    output = None if args.json is None else output_file(Path(args.json), (".json",), "--json")
    if args.input is not None:
        check_input(Path(args.input), args.column)
    elif args.column is not None:
        raise ArgumentValueError(f"--column is {args.column!r} without a file; accepted: together with --input FILE")
    texts, source = _texts(args)
    # Only now what takes time to load.
    with _threads(args.threads):
        return _measure(args, texts, source, output)


def _measure(args: argparse.Namespace, texts: list[str], source: str, output: Path | None) -> int:
    from tqdm import tqdm

    from sentcore.measure import Measurement, Report, load_methods

    hidden = args.quiet or not sys.stderr.isatty()
    with tqdm(desc="loading the model", unit=" runs", file=sys.stderr, disable=hidden, leave=False) as bar:
        encoder, methods, left_out = load_methods(
            args.model,
            args.dtype,
            device=args.device,
            max_length=args.max_length,
            batch_tokens=args.batch_tokens,
            local_files_only=args.local_files_only,
            peer=not args.no_peer,
        )
        about = _about(args, encoder, texts, source)
        measurement = Measurement(methods, encoder.device, texts, SENTENCE)
        bar.reset(measurement.steps(args.rounds))
        done = itertools.count()

        def step(what: str) -> None:
            bar.n = next(done)
            bar.set_description_str(what)

        try:
            measurement.run(args.rounds, step)
        except BaseException:
            bar.close()
            if measurement.timed[0].min_cosine is not None:
                _write(Report(measurement.timed, left_out, about, complete=False), output)
            raise
    report = Report(measurement.timed, left_out, about, complete=True)
    _write(report, output)
    return 1 if report.differing else 0


def _about(args: argparse.Namespace, encoder: SentenceEncoder, texts: list[str], source: str) -> dict[str, Any]:
    """What is known before anything is measured: Report's `about`."""
    from sentcore.measure import machine, tokens_of

    tokens, cut = tokens_of(encoder, texts)
    return {
        "command": _command(args),
        "model": args.model,
        "device": str(encoder.device),
        "source": source,
        "texts": len(texts),
        "tokens": tokens,
        "texts_cut": cut,
        "max_length": encoder.max_seq_length,
        "rounds": args.rounds,
        "sentence": SENTENCE,
        "sentence_tokens": tokens_of(encoder, [SENTENCE])[0],
        "machine": machine(encoder.device),
    }


def _write(report: Report, output: Path | None) -> None:
    """To the file where one was asked for, and whatever becomes of that to standard output."""
    try:
        if output is not None:
            with replacing(output) as file:
                file.write(json.dumps(report.as_dict(), ensure_ascii=False, indent=1).encode("utf-8") + b"\n")
    finally:
        print("\n".join(report.lines()), flush=True)
        for line in report.complaints():
            print(f"sentcore: {line}", file=sys.stderr)


def _texts(args: argparse.Namespace) -> tuple[list[str], str]:
    """(the texts, where they are from in words)."""
    from sentcore.measure import LOOKED_AT, chosen_texts, sample_texts

    if args.input is None:
        return sample_texts(args.num_texts), "built-in sample, English and Chinese (--input FILE: yours)"
    from sentcore.pipeline.corpus import read_file

    texts, seen = chosen_texts(read_file(Path(args.input), args.column or "text"), args.num_texts)
    if not texts:
        raise ArgumentValueError(f"--input is {args.input}, which holds no texts; accepted: a file with one at least")
    if seen <= args.num_texts:
        return texts, f"{args.input}, all {seen}"
    return texts, f"{args.input}, {len(texts)} of the {'first ' if seen == LOOKED_AT else ''}{seen:,}"


def _command(args: argparse.Namespace) -> str:
    """What gives this run again, defaults included."""
    named = {"model": args.model, "input": args.input, "column": args.column, "num_texts": args.num_texts}
    named |= {"rounds": args.rounds, "dtype": args.dtype and ",".join(args.dtype), "device": args.device}
    named |= {"max_length": args.max_length, "batch_tokens": args.batch_tokens, "threads": args.threads}
    words = ["sentcore", "bench"]
    for name, value in named.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words + ["--no-peer"] * args.no_peer)


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """torch's threads, as they were before when it is over."""
    import torch

    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
