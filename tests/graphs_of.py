"""Calls of an encoder with graphs that look at their result."""

from __future__ import annotations

import torch

from compare import SAME_FEATURES_FLOAT32
from sentcore import PackedBatch

BATCH = PackedBatch.from_sequences([[2, 5, 6, 3], [2, 7, 3]])
LARGER = PackedBatch.from_sequences([[2, *range(5, 35), 3], [2, 7, 3], [2, 3]])


def run(encoder, batch=BATCH, times=1):
    """Always right, whatever way it took."""
    with torch.inference_mode():
        for _ in range(times):
            found = encoder(batch)
            torch.testing.assert_close(
                found, encoder.model(batch).sentence_embedding, rtol=0, atol=SAME_FEATURES_FLOAT32
            )
    return encoder.graphs.counts


def warmed_up(encoder):
    counts = run(encoder, times=3)
    assert (counts["eager"], counts["captured"], counts["replayed"], len(encoder.graphs)) == (1, 1, 1, 1)
    return counts
