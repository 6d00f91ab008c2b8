"""Compare a model's features with Hugging Face transformers in float32."""

from __future__ import annotations

import argparse
import json

from sentcore.cli.choices import BACKENDS, DTYPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `sentcore parity`."""
    parser.add_argument("model", metavar="MODEL", help='"minilm", a local folder, or a Hugging Face hub id')
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="what ours computes in; float32 by default")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="reference: plain PyTorch, as for fp8 on a CPU"
    )
    parser.add_argument("--layers", action="store_true", help="compare every layer, and name the first that differs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints the report; 0 when they agree, 1 when they do not."""
    from sentcore import SentenceEncoder
    from sentcore.integrations.parity import parity

    report = parity(SentenceEncoder(args.model, dtype=args.dtype, backend=args.backend), layers=args.layers)
    print(json.dumps(report.as_dict(), ensure_ascii=False) if args.json else str(report))
    return 0 if report.passed else 1
