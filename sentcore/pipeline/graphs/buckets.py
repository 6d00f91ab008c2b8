"""The few sizes that batches are rounded up to, so that a graph captured of one serves many.

Two sentences of 5 and 3 tokens, T = 8, become T = 16 under max_seqlen 16::

    sentences  = 2, fillers = 1
    cu_seqlens = [0, 5, 8, 16]        # the last one holds the 8 tokens that fill up

and a third place for a sentence would be an empty one before it.
"""

from __future__ import annotations

from typing import NamedTuple

MOST_SENTENCES = 32
MOST_TOKENS = 2048  # of a bucket; beyond, computing takes longer than launching
LEAST_SEQLEN = 16
_LEAST_STEP = 16  # tokens


class Bucket(NamedTuple):
    """What a batch is rounded up to.

    Attributes:
        tokens: T of the graph, at least one more than the batch's, so that an empty sentence always begins at a token.
        sentences: places for the batch's own sentences; those that are left over stand empty.
        fillers: places behind these for sentences that hold the tokens that fill up, as many as can ever be needed.
        max_seqlen: S of the graph.
    """

    tokens: int
    sentences: int
    fillers: int
    max_seqlen: int


def bucket_of(tokens: int, sentences: int, max_seqlen: int, longest: int) -> Bucket | None:
    """The bucket of a batch, or None where it has none: nothing in it, or too much.

    Args:
        tokens, sentences, max_seqlen: T, B and S of the batch.
        longest: tokens of the longest sentence that the model takes.
    """
    if not 0 < sentences <= MOST_SENTENCES or not tokens or not 0 < max_seqlen <= longest:
        return None
    step = _step(tokens + 1)
    rounded = -(-(tokens + 1) // step) * step
    if rounded > MOST_TOKENS:
        return None
    length = min(longest, max(LEAST_SEQLEN, _power_of_2(max_seqlen)))
    return Bucket(rounded, _power_of_2(sentences), -(-step // length), length)


def _step(tokens: int) -> int:
    """Between a sixteenth and an eighth of `tokens` where there are many."""
    return max(_LEAST_STEP, _power_of_2(tokens) // 16)


def _power_of_2(value: int) -> int:
    """The least one that is not smaller."""
    return 1 << (value - 1).bit_length()
