"""What several commands ask of their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sentcore.cli.choices import BACKENDS, DTYPES
from sentcore.errors import ArgumentValueError, MissingFileError

if TYPE_CHECKING:
    from sentcore.sentence_encoder import SentenceEncoder


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


def output_file(path: Path, kinds: tuple[str, ...], option: str = "--output") -> Path:
    """`path`, once it is known that a file of one of these kinds can be written there; `option` named it."""
    if path.suffix not in kinds:
        accepted = " or ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))
        raise ArgumentValueError(f"{option} is {path}; accepted: a file name ending in {accepted}")
    if not path.parent.is_dir():
        raise MissingFileError(f"{option} is {path}, and there is no folder {path.parent}; make it first")
    if path.exists() and not path.is_file():
        raise ArgumentValueError(f"{option} is {path}, which is no ordinary file; name another")
    return path


def check_texts(name: str, texts: Sequence[str]) -> None:
    """Raises where one of the texts of argument `name` is none that can be encoded."""
    from sentcore.pipeline.corpus.rows import check_text  # brings torch with it

    for position, text in enumerate(texts, 1):
        problem = check_text(text)
        if problem:
            raise ArgumentValueError(f"{name} {position} {problem}")


def add_model_arguments(parser: argparse.ArgumentParser, one_way: bool = True) -> None:
    """Which model, and how it is loaded: what `load_encoder` reads; without --dtype and --backend where it is not one way alone."""
    add = parser.add_argument_group("the model").add_argument
    add("-m", "--model", default="minilm", help='"minilm" (default), a local folder, or a hub id')
    if one_way:
        add("--dtype", choices=DTYPES, default="auto", help="what weights and activations are held in")
        add("--backend", choices=BACKENDS, default="auto", help="compiled kernels or plain PyTorch")
    add("--device", help="cpu, cuda, cuda:1, ...; default: a GPU where there is one")
    add("--max-length", type=count, metavar="N", help="tokens a text is cut at; default: the model's")
    add("--local-files-only", action="store_true", help="never ask the hub")


def load_encoder(args: argparse.Namespace) -> SentenceEncoder:
    """The encoder that `add_model_arguments` asked for."""
    from sentcore.sentence_encoder import SentenceEncoder  # brings torch with it

    return SentenceEncoder(
        args.model,
        device=args.device,
        dtype=args.dtype,
        backend=args.backend,
        max_length=args.max_length,
        local_files_only=args.local_files_only,
    )
