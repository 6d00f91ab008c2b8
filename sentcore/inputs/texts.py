"""What a user hands to encode, checked text by text before any work is done."""

from __future__ import annotations

from collections.abc import Iterable

from sentcore.errors import ArgumentTypeError, ArgumentValueError


def check_texts(sentences: str | Iterable[str], first: int = 0) -> tuple[list[str], bool]:
    """(the texts, whether one text was given instead of several).

    Args:
        sentences: a text, or a list, tuple, array, column or generator of texts. "" and white space are texts.
        first: position of the first text in the caller's whole input, for messages.

    Raises:
        ArgumentTypeError: it is no text or collection of texts, or a text is something else; by position.
        ArgumentValueError: a text holds half of a surrogate pair, which no encoding can carry; by position.
    """
    if isinstance(sentences, str):
        check_text(sentences, first)
        return [str(sentences)], True
    if isinstance(sentences, (bytes, bytearray, dict, set, frozenset)) or not isinstance(sentences, Iterable):
        hint = (
            "decode it, e.g. sentences.decode('utf-8')" if isinstance(sentences, (bytes, bytearray)) else "pass a list"
        )
        raise ArgumentTypeError(
            f"sentences is of type {type(sentences).__name__}; accepted: a text, or a sequence of texts; {hint}"
        )
    texts = []
    for position, text in enumerate(sentences, start=first):
        check_text(text, position)
        texts.append(str(text))  # a subclass such as numpy.str_ becomes a plain str
    return texts, False


def check_text(text: object, position: int, name: str = "sentences[{}]") -> None:
    """Refuses what is no text, or no valid one; `name` takes the position."""
    if not isinstance(text, str):
        shown = repr(text)
        raise ArgumentTypeError(
            f"{name.format(position)} is {shown[:60]}{'...' if len(shown) > 60 else ''} of type {type(text).__name__}; "
            f"accepted: a text. {_REMEDY.get(type(text), 'Convert it with str() or leave it out')}"
        )
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ArgumentValueError(
            f"{name.format(position)} holds the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, "
            "half of a character that cannot be encoded; accepted: valid Unicode. Repair it with "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from None


_REMEDY = {
    type(None): "Replace missing texts with '' or leave them out",
    bytes: "Decode it, e.g. text.decode('utf-8')",
}
