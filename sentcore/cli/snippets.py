"""A few lines of a text, around what a query asks for."""

from __future__ import annotations

import re

LENGTH = 240  # characters shown
LEAD = 60  # of them, before the first word of the query


def snippet(text: str, query: str) -> str:
    """The text on one line, whole where it is short; else the part around the first word of the query that it holds."""
    # Control characters could move a terminal's cursor.
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    if len(text) <= LENGTH:
        return text
    # Words of four letters and more; Chinese in pairs of characters.
    words = [word for word in re.findall(r"[^\W_]{4,}", query) if word.isascii()]
    runs = re.findall(r"[\u3400-\u9fff]{2,}", query)
    words += [run[place : place + 2] for run in runs for place in range(len(run) - 1)]
    found = re.search("|".join(map(re.escape, words)), text, re.IGNORECASE) if words else None
    first = 0 if found is None else min(max(0, found.start() - LEAD), len(text) - LENGTH)
    shown = text[first : first + LENGTH].strip()
    return f"{'… ' if first else ''}{shown}{' …' if first + LENGTH < len(text) else ''}"
