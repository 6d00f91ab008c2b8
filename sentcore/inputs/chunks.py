"""A text longer than max_length as several windows of it, so that all of its tokens are encoded.

Ten tokens of text under max_length 7, with two special tokens and an overlap of 2, become three windows, which add 5, 3
and 2 tokens to what the ones before them hold::

    [CLS] 0 1 2 3 4 [SEP]    [CLS] 3 4 5 6 7 [SEP]    [CLS] 6 7 8 9 [SEP]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.inputs.tokenizer import Tokenizer
from sentcore.packed import TokenizedTexts

CHUNK_MODES = ("mean", "max")


@dataclass(frozen=True)
class Chunking:
    """How long texts are divided.

    Attributes:
        mode: "mean" or "max", how the windows' features become the text's.
        max_length: tokens of a window.
        head, tail: of these, the ones that every window starts and ends with: special tokens and the prompt.
        overlap: tokens of text that a window shares with the one before it.
    """

    mode: str
    max_length: int
    head: int
    tail: int
    overlap: int

    @classmethod
    def check(
        cls, tokenizer: Tokenizer, prompt: str | None, max_length: int, chunk: str | None, chunk_overlap: int | None
    ) -> Chunking | None:
        """The division that is asked for, None for none.

        Args:
            chunk: "mean", "max" or None.
            chunk_overlap: tokens; None for an eighth of the tokens of text in a window, at least 1 where there is room.

        Raises:
            ArgumentTypeError, ArgumentValueError: by argument, value found and what is accepted.
        """
        if chunk is None:
            if chunk_overlap is not None:
                raise ArgumentValueError(
                    f"chunk_overlap is {chunk_overlap!r} and chunk is None; accepted: together with chunk='mean' or 'max'"
                )
            return None
        if chunk not in CHUNK_MODES:
            raise ArgumentValueError(f"chunk is {chunk!r}; accepted: 'mean', 'max', or None to cut long texts")
        leading, tail = tokenizer.special_tokens()
        head = tokenizer.prompt_length(prompt) if prompt else leading
        room = max_length - head - tail
        if room < 1:
            raise ArgumentValueError(
                f"the prompt and the special tokens are {head + tail} tokens and max_length is {max_length}; accepted: "
                "fewer than max_length, so that a window has room for text. Shorten the prompt, or leave out chunk"
            )
        if chunk_overlap is None:
            chunk_overlap = min(max(1, room // 8), room - 1)
        elif isinstance(chunk_overlap, bool) or not isinstance(chunk_overlap, int):
            raise ArgumentTypeError(
                f"chunk_overlap is {chunk_overlap!r} of type {type(chunk_overlap).__name__}; accepted: an integer or None"
            )
        if not 0 <= chunk_overlap < room:
            raise ArgumentValueError(
                f"chunk_overlap is {chunk_overlap}; accepted: 0 to {room - 1}, fewer than the {room} tokens of text in a "
                f"window of {max_length}"
            )
        return cls(chunk, max_length, head, tail, chunk_overlap)

    def windows(self, row: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
        """A text's ids [n], special tokens and prompt included -> its windows' ids, and the tokens that each adds."""
        head, body, tail = np.split(row, (self.head, len(row) - self.tail))
        room = self.max_length - self.head - self.tail
        windows, added, end = [], [], 0
        while end < len(body):
            begin = max(end - self.overlap, 0)
            windows.append(np.concatenate((head, body[begin : begin + room], tail)))
            added.append(min(begin + room, len(body)) - end)
            end = begin + room
        return windows, added


@dataclass(frozen=True)
class ChunkedTexts:
    """B texts, of which some are divided.

    Attributes:
        whole: all B texts, the long ones cut.
        long: [L] int64, which are divided, ascending.
        windows: the W windows of these, text by text, in order.
        offsets: [L+1] int64, long text l has the windows ``offsets[l]`` to ``offsets[l + 1]``.
        added: [W] int64, tokens that a window adds to those before it, at least 1.
    """

    whole: TokenizedTexts
    long: np.ndarray
    windows: TokenizedTexts
    offsets: np.ndarray
    added: np.ndarray

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def truncated(self) -> np.ndarray:
        """[B] bool, all False: no token is left out."""
        return np.zeros(len(self), np.bool_)


def tokenize_chunked(tokenizer: Tokenizer, texts: list[str], chunking: Chunking) -> TokenizedTexts | ChunkedTexts:
    """Texts that fit exactly as without chunking; the others divided. TokenizedTexts where all fit."""
    whole = tokenizer.encode(texts, max_length=chunking.max_length)
    long = np.flatnonzero(whole.truncated)
    if not len(long):
        return whole
    windows: list[np.ndarray] = []
    counts, added = [], []
    for row in tokenizer.encode_whole([texts[index] for index in long]):
        parts, new = chunking.windows(row)
        windows.extend(parts)
        added.extend(new)
        counts.append(len(parts))
    return ChunkedTexts(
        whole=whole,
        long=long,
        windows=TokenizedTexts(
            token_ids=np.concatenate(windows),
            offsets=_offsets([len(window) for window in windows]),
            token_type_ids=None,
            truncated=np.zeros(len(windows), np.bool_),
        ),
        offsets=_offsets(counts),
        added=np.array(added, dtype=np.int64),
    )


def _offsets(lengths: list[int]) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
