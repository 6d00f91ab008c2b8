"""Features to standard output, a block at a time."""

from __future__ import annotations

import json
from typing import IO

import numpy as np

from sentcore.pipeline.corpus.sinks import numbers


class JsonLinesWriter:
    """One object a line: {"text": ..., "embedding": [...]}."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, texts: list[str], rows: np.ndarray) -> None:
        """Appends one line a text, and hands them on at once."""
        for text, row in zip(texts, rows, strict=True):
            said = json.dumps(text, ensure_ascii=False)
            self._file.write(f'{{"text": {said}, "embedding": [{numbers(row)}]}}\n'.encode())
        self._file.flush()
