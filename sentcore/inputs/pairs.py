"""What a user hands to a cross-encoder, checked pair by pair before any work is done."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.inputs.texts import check_text

_ROWS = (list, tuple, np.ndarray)


def check_pairs(sentences: Iterable) -> tuple[list[tuple[str, str]], bool]:
    """(the pairs, whether one pair was given instead of several).

    Args:
        sentences: a pair of texts as a list, tuple or array, or a list, tuple, array, column or generator of such pairs.

    Raises:
        ArgumentTypeError: it is no pair or collection of pairs, or a pair or text is something else; by position.
        ArgumentValueError: a pair does not have two texts, or a text holds half of a surrogate pair; by position.
    """
    refused = (str, bytes, bytearray, dict, set, frozenset)
    if isinstance(sentences, refused) or not isinstance(sentences, Iterable):
        raise ArgumentTypeError(
            f"sentences is of type {type(sentences).__name__}; accepted: a pair of texts such as (query, document), or a "
            "sequence of pairs"
        )
    if isinstance(sentences, _ROWS) and len(sentences) and isinstance(sentences[0], str):
        if len(sentences) != 2:
            raise ArgumentValueError(
                f"sentences holds {len(sentences)} texts; accepted: the two of one pair, or a sequence of pairs"
            )
        return [_pair(sentences, "sentences")], True
    return [_checked(pair, position) for position, pair in enumerate(sentences)], False


def check_documents(query: str, documents: Iterable[str]) -> list[tuple[str, str]]:
    """(query, document) of every document; a bad text is named by its position."""
    check_text(query, 0, "query")
    if isinstance(documents, (str, bytes, bytearray, dict, set, frozenset)) or not isinstance(documents, Iterable):
        raise ArgumentTypeError(
            f"documents is of type {type(documents).__name__}; accepted: a sequence of texts, such as a list"
        )
    pairs = []
    for position, document in enumerate(documents):
        check_text(document, position, "documents[{}]")
        pairs.append((str(query), str(document)))
    return pairs


def _checked(pair: object, position: int) -> tuple[str, str]:
    where = f"sentences[{position}]"
    if not isinstance(pair, _ROWS):
        shown = repr(pair)
        raise ArgumentTypeError(
            f"{where} is {shown[:60]}{'...' if len(shown) > 60 else ''} of type {type(pair).__name__}; accepted: a pair of "
            "texts, as a list or tuple of two"
        )
    if len(pair) != 2:
        raise ArgumentValueError(f"{where} has {len(pair)} entries; accepted: a pair of texts, exactly two")
    return _pair(pair, where)


def _pair(pair: list | tuple | np.ndarray, where: str) -> tuple[str, str]:
    for place, text in enumerate(pair):
        check_text(text, place, where + "[{}]")
    return str(pair[0]), str(pair[1])
