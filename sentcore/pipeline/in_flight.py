"""`run_batches` for a device that computes beside the host: packed ahead, copied both ways while it computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from sentcore.inputs.planning import plan_batches
from sentcore.packed import PackedBatch, TokenizedTexts
from sentcore.pipeline.ahead import one_ahead
from sentcore.pipeline.ending import at_work, pause
from sentcore.pipeline.lane import IN_FLIGHT, Lane, Packed, Rows
from sentcore.pipeline.memory import TokenBudget, free_cached, is_out_of_memory


@dataclass(frozen=True)
class _Batch:
    """One that was computed, its rows on their way back."""

    indices: np.ndarray
    tokens: int
    rows: Rows


def run_in_flight(
    tokens: TokenizedTexts,
    budget: TokenBudget,
    lane: Lane,
    compute: Callable[[PackedBatch], torch.Tensor],
    uncounted_id: int | None = None,
) -> Iterator[tuple[np.ndarray, int, torch.Tensor]]:
    """(indices [b] int64 into `tokens`, their tokens, rows [b, E] on the host) for every planned batch, in order.

    Rows are good until the next ones are asked for. Batches are planned, halved where memory runs out and given in the order
    of `run_batches`; at most IN_FLIGHT wait on the device behind the one that is given.

    Args:
        compute: a batch on the device -> [b, E] there, without waiting for it.
    """
    lengths = tokens.lengths
    left = np.arange(len(tokens))
    waiting: deque[_Batch] = deque()
    while len(left):
        order, starts = plan_batches(lengths[left], budget.now)
        order = left[order]
        left = order[:0]

        def pack(bounds: tuple[int, int], order: np.ndarray = order) -> Packed | Exception:
            try:
                with at_work():
                    return lane.pack(tokens, order[slice(*bounds)], uncounted_id)
            except Exception as error:  # dealt with where the batch's turn is
                return error

        bounds = list(pairwise(starts.tolist()))
        with closing(one_ahead(bounds, pack)) as ahead:
            for (first, last), packed in zip(bounds, ahead, strict=True):
                pause()
                indices, failure = order[first:last], None
                try:
                    with at_work():
                        waiting.append(_sent(lane, packed, indices, compute))
                    fits = True
                except Exception as error:
                    fits = False
                    if len(indices) == 1 or not is_out_of_memory(error):
                        failure = error
                # Outside the handler: what failed is let go with its frames. All before it is given first.
                while len(waiting) > (IN_FLIGHT if fits else 0):
                    yield from _given(lane, waiting.popleft())
                if failure is not None:
                    raise failure
                if not fits:
                    budget.failed(int(lengths[indices].sum()))
                    free_cached(lane.streams.device)
                    left = order[first:]
                    break
                if budget.fitted():
                    left = order[last:]
                    break
    while waiting:
        yield from _given(lane, waiting.popleft())


def _sent(
    lane: Lane, packed: Packed | Exception, indices: np.ndarray, compute: Callable[[PackedBatch], torch.Tensor]
) -> _Batch:
    if isinstance(packed, Exception):
        raise packed
    batch = lane.send(packed)
    try:
        rows = compute(batch)
    finally:
        lane.used(packed)
    return _Batch(indices, batch.num_tokens, lane.fetch(rows))


def _given(lane: Lane, batch: _Batch) -> Iterator[tuple[np.ndarray, int, torch.Tensor]]:
    with at_work():
        rows = batch.rows.wait()
    yield batch.indices, batch.tokens, rows
    batch.rows.release()
