"""What cuts Chinese text into words, for vocabularies that hold words."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sentcore.errors import ArgumentTypeError, MissingPackageError

WordCutter = Callable[[str], Iterable[str]]


def word_cutter(words: str | WordCutter | None) -> WordCutter | None:
    """The callable that is asked for: "jieba" (extra `[chinese]`), a callable itself, None for none.

    Raises:
        MissingPackageError: "jieba" is not installed.
        ArgumentTypeError: it is something else.
    """
    if words is None or callable(words):
        return words
    if words != "jieba":
        raise ArgumentTypeError(
            f"words is {words!r}; accepted: 'jieba', a callable that cuts a text into its words, or None for the model's own "
            "tokenization"
        )
    try:
        import jieba  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"words is 'jieba', a package which cannot be imported ({error}); pip install 'sentcore[chinese]', or give a "
            "callable of your own"
        ) from error
    return cut_with_jieba


def cut_with_jieba(text: str) -> list[str]:
    """Words of jieba's dictionary alone: those it guesses beside it are in no vocabulary."""
    import jieba

    return jieba.lcut(text, HMM=False)
