"""Lanes on streams that threads stand in for, and batches whose rows show where they come from."""

from __future__ import annotations

import random
import time

import numpy as np
import torch

from sentcore.packed import TokenizedTexts
from sentcore.pipeline import TokenBudget, run_batches
from sentcore.pipeline.in_flight import run_in_flight

CPU = torch.device("cpu")


def tokens_of(lengths):
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    ids = np.random.default_rng(0).integers(1, 1000, offsets[-1]).astype(np.int32)
    return TokenizedTexts(ids, offsets, None, np.zeros(len(lengths), bool))


LENGTHS = np.random.default_rng(1).integers(0, 40, 500)
TOKENS = tokens_of(LENGTHS)


def features(batch):
    """[b, 3]: what shows every id, bound and position of a batch."""
    bounds = batch.cu_seqlens.long()
    sums = torch.cat((torch.zeros(1), (batch.token_ids * (1 + batch.position_ids)).cumsum(0).float()))
    lengths = bounds.diff().float()
    return torch.stack((sums[bounds[1:]] - sums[bounds[:-1]], lengths, batch.position_ids.sum() + 0 * lengths), dim=1)


def slow(seed=0, longest=0.004):
    """A pause before every copy, so that the host runs ahead of it."""
    chosen = random.Random(seed)
    return lambda name: time.sleep(chosen.random() * longest)


def collected(lane, compute=features, tokens=TOKENS, budget=None):
    budget = TokenBudget(300) if budget is None else budget
    return [(i.tolist(), n, rows.clone()) for i, n, rows in run_in_flight(tokens, budget, lane, compute)]


def expected(compute=features, tokens=TOKENS, budget=None):
    budget = TokenBudget(300) if budget is None else budget
    return [(i.tolist(), b.num_tokens, rows) for i, b, rows in run_batches(tokens, budget, CPU, compute)]


def assert_same(found, wanted):
    assert [each[:2] for each in found] == [each[:2] for each in wanted]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(found, wanted, strict=True))


def failing(compute, tokens, times):
    """Runs out of memory in the first `times` batches of more than so many tokens."""
    left = [times]

    def run(batch, *rest):
        if batch.num_tokens > tokens and left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(batch, *rest)

    return run
