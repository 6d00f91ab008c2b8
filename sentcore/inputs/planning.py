"""Which sentences share a batch: longest first, as many as a token budget holds.

Lengths [5, 1, 3, 2, 1] under a budget of 5 tokens become three batches::

    order         = [0, 2, 3, 1, 4]      # longest first; equal lengths keep their order
    batch_offsets = [0, 1, 3, 5]         # {5} | {3, 2} | {1, 1}
"""

from __future__ import annotations

import numbers

import numpy as np

from sentcore._extension import extension
from sentcore.errors import ArgumentTypeError, ArgumentValueError

MAX_LENGTH = 2**31 - 1  # a batch's cumulative lengths are int32


def plan_batches(lengths: np.ndarray, batch_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups B sentences into n batches by token budget.

    Args:
        lengths: [B] int64, tokens in each sentence; zero is allowed.
        batch_tokens: tokens in a batch. A batch takes sentences while the sum of their lengths stays within it; a
            sentence longer than that is a batch alone.

    Returns:
        order: [B] int64, the sentences longest first, equal lengths in the order given.
        batch_offsets: [n+1] int64, batch k holds ``order[batch_offsets[k]:batch_offsets[k + 1]]``.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found and what is accepted.
    """
    _check_arguments(lengths, batch_tokens)
    native = extension()
    if native is None:
        return plan_batches_numpy(lengths, batch_tokens)
    try:
        return native.plan_batches(np.ascontiguousarray(lengths), _capped(batch_tokens))
    except ValueError as error:
        raise ArgumentValueError(str(error)) from None


def plan_batches_numpy(lengths: np.ndarray, batch_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """`plan_batches` in NumPy: the definition, and what runs without a build."""
    _check_arguments(lengths, batch_tokens)
    bad = np.flatnonzero((lengths < 0) | (lengths > MAX_LENGTH))
    if bad.size:
        raise ArgumentValueError(
            f"lengths[{bad[0]}] is {lengths[bad[0]]}; accepted are token counts from 0 to {MAX_LENGTH}"
        )
    order = np.argsort(-lengths, kind="stable").astype(np.int64, copy=False)
    through = np.concatenate(([0], np.cumsum(lengths[order], dtype=np.int64)))  # [B+1], tokens before each
    starts = [0]
    while starts[-1] < len(order):
        first = starts[-1]
        end = int(np.searchsorted(through, through[first] + _capped(batch_tokens), side="right")) - 1
        starts.append(max(end, first + 1))
    return order, np.array(starts, dtype=np.int64)


def _capped(batch_tokens: int) -> int:
    """A budget past any possible sum is that sum: 2**62 keeps int64 arithmetic from overflowing."""
    return min(int(batch_tokens), 2**62)


def _check_arguments(lengths: np.ndarray, batch_tokens: int) -> None:
    if not isinstance(lengths, np.ndarray) or lengths.dtype != np.int64:
        found = f"a NumPy array of {lengths.dtype}" if isinstance(lengths, np.ndarray) else type(lengths).__name__
        raise ArgumentTypeError(
            f"lengths is {found}; accepted is a NumPy array of int64, for example np.asarray(lengths, dtype=np.int64)"
        )
    if lengths.ndim != 1:
        raise ArgumentValueError(f"lengths has shape {lengths.shape}; accepted is shape [B]")
    if isinstance(batch_tokens, bool) or not isinstance(batch_tokens, numbers.Integral):
        raise ArgumentTypeError(
            f"batch_tokens is {batch_tokens!r} of type {type(batch_tokens).__name__}; accepted is a whole number of at least 1"
        )
    if batch_tokens < 1:
        raise ArgumentValueError(f"batch_tokens is {batch_tokens}; accepted is a whole number of at least 1")
