"""Everything between a text and its feature as one page or picture; of two texts, which tokens carry their similarity."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from sentcore.cli.arguments import add_model_arguments, check_texts, count_or_zero, load_encoder, output_file
from sentcore.cli.choices import ATTRIBUTION_METHODS
from sentcore.cli.files import replacing
from sentcore.errors import ArgumentValueError, TruncationWarning

OUTPUT_KINDS = (".html", ".png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `sentcore explain`."""
    add = parser.add_argument
    add("text", metavar="TEXT", help="a text")
    add("second", metavar="TEXT2", nargs="?", help="another one, to be compared with it")
    add(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help=".html, one page that loads nothing, or .png (extra [viz])",
    )
    add(
        "--method",
        choices=ATTRIBUTION_METHODS,
        default="auto",
        help="how the similarity is split over token pairs; auto: exact where pooling is a mean",
    )
    add("--layer", type=count_or_zero, metavar="N", help="the layer whose head is drawn large; default: the last")
    add("--head", type=count_or_zero, metavar="N", help="that head, from 0; default: the first")
    add("--prompt-name", metavar="NAME", help="a prompt of the model, put before every text")
    add("--prompt", metavar="PROMPT", help="the prompt itself, instead of its name")
    add("--quiet", action="store_true", help="no progress bar and no notes; warnings and errors stay")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the report; 0, or an exception that says what went wrong."""
    output = output_file(Path(args.output), OUTPUT_KINDS)
    texts = [args.text] if args.second is None else [args.text, args.second]
    check_texts("TEXT", texts)
    if args.prompt is not None and args.prompt_name is not None:
        raise ArgumentValueError("--prompt and --prompt-name are both given; accepted: one of them")
    # Only now what takes time to import and to load.
    from sentcore.explain import SHOWN, attribution, html_report, trace
    from sentcore.integrations.report_png import check_matplotlib, png_report

    if output.suffix == ".png":
        check_matplotlib()
    model = load_encoder(args)
    prompts = {"prompt_name": args.prompt_name, "prompt": args.prompt}
    traces = [trace(model, text, max_tokens=SHOWN, **prompts) for text in texts]
    found = None
    if len(texts) == 2:
        bar = sys.stderr.isatty() and not args.quiet
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # the traces have said it
            found = attribution(model, *texts, method=args.method, show_progress_bar=bar, **prompts)
    make = png_report if output.suffix == ".png" else html_report
    report = make(traces, found, model_name=args.model, layer=args.layer, head=args.head)
    with replacing(output) as file:
        file.write(report if isinstance(report, bytes) else report.encode("utf-8"))
    if not args.quiet:
        if found is not None:
            print(f"sentcore: cosine {found.score:.4f}, split by the method {found.method!r}", file=sys.stderr)
        print(f"sentcore: wrote {output}", file=sys.stderr)
    return 0
