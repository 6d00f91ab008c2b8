"""What a tokenizer.json of anybody's can make the Rust library do, as errors with a name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as RustTokenizer

from sentcore.errors import CheckpointError, SentcoreError
from sentcore.model_files import brief, shown


@contextmanager
def named_errors(source: Path | str, doing: str) -> Iterator[None]:
    """Turns what the Rust library raises within into a CheckpointError that names `source`, the tokenizer's file."""
    try:
        yield
    except (SentcoreError, MemoryError):
        raise
    except BaseException as error:
        # A panic of Rust's is no Exception; what else is none is a wish to stop.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(
            f"{source}: {doing} failed ({brief(error)}); the file is damaged or made for another version of the tokenizers library. "
            "Download it again"
        ) from error


MOST_IDS = 2**24  # the largest vocabularies have a sixteenth of it


def check_vocabulary(rust: RustTokenizer, source: Path | str) -> None:
    """Refuses an id so large that the library, which writes a vocabulary by counting up to it, would count for minutes."""
    vocabulary = rust.get_vocab()
    token = max(vocabulary, key=vocabulary.__getitem__, default=None)
    if token is not None and vocabulary[token] >= MOST_IDS:
        raise CheckpointError(
            f"{source}: the token {shown(token)} has the id {vocabulary[token]}; accepted: below {MOST_IDS}. The file is damaged: "
            "download it again"
        )


def check_template(rust: RustTokenizer, source: Path | str) -> None:
    """Refuses a tokenizer that puts a text in several places: of a long text the library then makes every combination of parts."""
    processors = [{} if rust.post_processor is None else json.loads(rust.post_processor.__getstate__())]
    while processors:
        processor = processors.pop()
        processors.extend(processor.get("processors") or ())
        for template in ("single", "pair"):
            pieces = processor.get(template)
            if not isinstance(pieces, list):
                continue
            texts = [piece["Sequence"]["id"] for piece in pieces if "Sequence" in piece]
            if len(texts) > len(set(texts)):
                raise CheckpointError(
                    f"{source}: the post_processor's template {template!r} holds text {max(texts, key=texts.count)} "
                    f"{len(texts)} times; accepted: once. Download the folder again"
                )


def check_ids(ids: np.ndarray, limit: int | None, source: Path | str) -> np.ndarray:
    """`ids` themselves, any shape; CheckpointError for one outside the `limit` rows of the model's table."""
    if limit is not None and ids.size and (largest := int(ids.max())) >= limit:
        raise CheckpointError(
            f"{source} gives the token id {largest}; accepted: 0 to {limit - 1}, the rows of the model's word embeddings "
            "(vocab_size). Tokenizer and weights are of different models: download the folder again"
        )
    return ids
