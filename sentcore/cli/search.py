"""Texts of a file that are nearest in meaning to a query."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sentcore.cli.arguments import add_model_arguments, check_texts, count, count_or_zero, load_encoder
from sentcore.cli.choices import CHUNK_MODES, INDEX_TYPES
from sentcore.cli.files import check_input
from sentcore.cli.snippets import snippet
from sentcore.errors import ArgumentValueError

if TYPE_CHECKING:
    from sentcore.search import SearchIndex

QUERIES = 64  # from standard input, answered in one pass over the corpus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `sentcore search`."""
    add = parser.add_argument
    add(
        "query",
        metavar="QUERY",
        nargs="*",
        help="queries; without any, a line is one: typed at a prompt on a terminal, else all of standard input",
    )
    add("--corpus", metavar="FILE", help="what to search: txt (a text a line), jsonl or csv, also .gz, or parquet")
    add("--column", help="field of a jsonl, csv or parquet corpus that holds the text (default: text)")
    add("-k", type=count, default=5, metavar="N", help="texts found for each query (default: 5)")
    add("--json", action="store_true", help="one JSON object a line: query, rank, corpus_id, score, text")
    keep = parser.add_argument_group("keeping the index")
    add = keep.add_argument
    add("--index", metavar="FOLDER", help="keep the features there, and use them when the corpus is the same")
    add("--rebuild", action="store_true", help="encode the corpus again, whatever --index holds")
    add("--index-type", choices=INDEX_TYPES, help='"exact" (default), or "faiss": approximate, extra [faiss]')
    add("--faiss-factory", metavar="STRING", help='for faiss\'s index_factory (default: "HNSW32")')
    how = parser.add_argument_group("how texts are encoded")
    add = how.add_argument
    for side in ("query", "document"):
        add(f"--{side}-prompt-name", metavar="NAME", help=f"a prompt of the model, put before every {side}")
        add(f"--{side}-prompt", metavar="PROMPT", help="the prompt itself, instead of its name")
    add("--truncate-dim", type=count, metavar="N", help="keep the first N columns")
    add("--chunk", choices=CHUNK_MODES, help="encode a longer text in windows of that length and pool their features")
    add("--chunk-overlap", type=count_or_zero, metavar="N", help="tokens that neighbouring windows share")
    add("--batch-tokens", type=count, metavar="N", help="tokens computed at once; bounds memory")
    add("--quiet", action="store_true", help="no progress bar and no notes; warnings and errors stay")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Answers the queries that `args` names; 0, or an exception that says what went wrong."""
    corpus, folder = _check(args)
    check_texts("QUERY", args.query)

    model = load_encoder(args)
    index = _index(args, model, corpus, folder)
    for queries in _queries(args):
        found = index.search(queries, args.k, args.query_prompt_name, args.query_prompt, batch_tokens=args.batch_tokens)
        for query, hits in zip(queries, found, strict=True):
            for line in _json(query, hits) if args.json else _block(query, hits):
                print(line)
        sys.stdout.flush()
    return 0


def _check(args: argparse.Namespace) -> tuple[Path | None, Path | None]:
    """(the corpus, the index's folder); what can be refused before a model is loaded is refused here."""
    from sentcore.search import is_index

    for side in ("query", "document"):
        if getattr(args, f"{side}_prompt") is not None and getattr(args, f"{side}_prompt_name") is not None:
            raise ArgumentValueError(f"--{side}-prompt and --{side}-prompt-name are both given; accepted: one of them")
    folder = None if args.index is None else Path(args.index)
    if args.rebuild and (folder is None or args.corpus is None):
        raise ArgumentValueError("--rebuild is given; accepted: together with --corpus FILE and --index FOLDER")
    if args.faiss_factory is not None and args.index_type != "faiss":
        raise ArgumentValueError(
            f"--faiss-factory is {args.faiss_factory!r}; accepted: together with --index-type faiss"
        )
    if args.corpus is not None:
        return check_input(Path(args.corpus), args.column, "--corpus"), folder
    if args.column is not None:
        raise ArgumentValueError(f"--column is {args.column!r} without --corpus; accepted: together with it")
    if folder is None:
        raise ArgumentValueError("there is nothing to search in; give --corpus FILE, or --index FOLDER of an index")
    if not is_index(folder):
        raise ArgumentValueError(f"--index is {folder}, which holds no index; give --corpus FILE to build it from")
    return None, folder


def _index(args: argparse.Namespace, model, corpus: Path | None, folder: Path | None) -> SearchIndex:
    """The one in the folder where it agrees with all that is asked for, else a new one."""
    from sentcore.pipeline.corpus import read_file
    from sentcore.search import SearchIndex, is_index

    identity = None if corpus is None else _identity(corpus, args.column)
    asked = {"index_type": args.index_type, "faiss_factory": args.faiss_factory, "truncate_dim": args.truncate_dim}
    asked |= {"chunk": args.chunk, "chunk_overlap": args.chunk_overlap}
    if folder is not None and is_index(folder) and not args.rebuild:
        asked |= {"prompt": _document_prompt(args, model)}
        options = {name: value for name, value in asked.items() if value is not None}
        index = SearchIndex.load(folder, model, corpus=identity, options=options)
        _say(args, f"{len(index)} texts from the index {folder}")
        return index
    index = SearchIndex.build(
        model,
        read_file(corpus, args.column or "text"),
        folder,
        corpus=identity,
        **{**asked, "index_type": args.index_type or "exact"},
        prompt_name=args.document_prompt_name,
        prompt=args.document_prompt,
        batch_tokens=args.batch_tokens,
        show_progress_bar=sys.stderr.isatty() and not args.quiet,
    )
    if folder is not None:
        _say(args, f"wrote an index of {len(index)} texts to {folder}")
    return index


def _document_prompt(args: argparse.Namespace, model) -> str | None:
    name = args.document_prompt_name
    return args.document_prompt if name is None else model.prompts.get(name, name)


def _identity(corpus: Path, column: str | None) -> dict:
    """What a corpus file is known by: its bytes, and the column that is read."""
    with open(corpus, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return {"sha256": digest.hexdigest(), "column": column or "text"}


def _queries(args: argparse.Namespace) -> Iterator[list[str]]:
    """Those of the command line at once, or one at a time from a prompt, or some at a time from standard input."""
    if args.query:
        yield args.query
    elif sys.stdin.isatty():
        yield from ([query] for query in _typed())
    else:
        from sentcore.pipeline.corpus import read_standard_input

        lines = (line for line in read_standard_input(sys.stdin) if line.strip())
        while some := list(islice(lines, QUERIES)):
            yield some


def _typed() -> Iterator[str]:
    """Lines typed at a prompt, until end of file."""
    from sentcore.pipeline.corpus.rows import check_text

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  arrow keys and history in input()

    while True:
        try:
            if sys.stdout.isatty():
                line = input("query> ")
            else:  # results go elsewhere; the prompt must not
                print("query> ", end="", file=sys.stderr, flush=True)
                line = input()
        except EOFError:
            print(file=sys.stderr)
            return
        problem = check_text(line)
        if problem:
            print(f"sentcore: the query {problem}", file=sys.stderr)
        elif line.strip():
            yield line.strip()


def _json(query: str, hits: list[dict]) -> Iterator[str]:
    for rank, hit in enumerate(hits, 1):
        yield json.dumps({"query": query, "rank": rank, **hit}, ensure_ascii=False)


def _block(query: str, hits: list[dict]) -> Iterator[str]:
    yield snippet(query, "")
    for rank, hit in enumerate(hits, 1):
        yield f"{rank:>4}  {hit['score']:.3f}  {snippet(hit['text'], query)}"


def _say(args: argparse.Namespace, note: str) -> None:
    if not args.quiet:
        print(f"sentcore: {note}", file=sys.stderr)
