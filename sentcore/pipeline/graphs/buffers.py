"""What a graph reads: one batch at fixed addresses, filled from any that rounds up to its size."""

from __future__ import annotations

import torch

from sentcore.packed import PackedBatch, flat_parts, flat_words
from sentcore.pipeline.graphs.buckets import Bucket


class StaticBatch:
    """A batch of a bucket's size on a device.

    Attributes:
        batch: T, B + fillers and S of the bucket. Token ids, positions and types of what fills up are 0, which every table has.
    """

    def __init__(self, bucket: Bucket, device: torch.device) -> None:
        self.bucket = bucket
        places = bucket.sentences + bucket.fillers
        flat = torch.zeros(flat_words(bucket.tokens, places), dtype=torch.int64, device=device)
        # The bounds that may follow those of a batch: steps of whole filling sentences.
        self._steps = bucket.max_seqlen * torch.arange(1, places + 1, dtype=torch.int32, device=device)
        self._rows, self._bounds = flat_parts(flat, bucket.tokens, places)
        self.batch = PackedBatch.from_flat(flat, bucket.tokens, places, bucket.max_seqlen)
        self.bytes = 8 * flat.numel() + 4 * places

    def fill(self, batch: PackedBatch) -> None:
        """Takes a batch in, on the same device, with nothing of it read on the host.

        Empty sentences come behind its own; behind these the tokens that fill up, in sentences of at most max_seqlen.
        """
        tokens, sentences = batch.num_tokens, batch.num_sentences
        ids = [batch.token_ids, batch.position_ids, batch.token_type_ids]
        torch._foreach_copy_([row[:tokens] for row in self._rows], ids)  # one launch
        self._bounds[: sentences + 1].copy_(batch.cu_seqlens)
        self._rows[:, tokens:].zero_()
        total, length = self.bucket.tokens, self.bucket.max_seqlen
        left = self._bounds[sentences + 1 :]
        empty = len(left) + (tokens - total) // length  # all that is left, less what the fillers take, rounded up
        torch.add(self._steps[: len(left)], tokens - length * empty, out=left).clamp_(tokens, total)
