"""Sizes that batches are rounded up to, and what fills them up."""

from __future__ import annotations

import pytest
import torch

from sentcore import PackedBatch
from sentcore.pipeline.graphs.buckets import MOST_SENTENCES, MOST_TOKENS, bucket_of
from sentcore.pipeline.graphs.buffers import StaticBatch


def test_a_bucket_holds_its_batches_and_wastes_little():
    buckets = set()
    for tokens in range(1, MOST_TOKENS):
        for sentences in (1, 2, 3, 16, 17, 32):
            longest = -(-tokens // sentences)
            if sentences > tokens or longest > 512:
                continue
            bucket = bucket_of(tokens, sentences, longest, 512)
            buckets.add(bucket)
            padding = bucket.tokens - tokens
            assert 1 <= padding <= max(16, (tokens + 1) / 8)
            assert padding <= bucket.fillers * bucket.max_seqlen
            assert sentences <= bucket.sentences < 2 * sentences
            assert longest <= bucket.max_seqlen < max(17, 2 * longest)
    assert len(buckets) < 250


@pytest.mark.parametrize(
    "size", [(0, 1, 0), (5, 0, 5), (MOST_TOKENS, 8, 300), (64, MOST_SENTENCES + 1, 9), (50, 1, 50), (0, 0, 0)]
)
def test_what_has_no_bucket(size):
    assert bucket_of(*size, longest=40) is None


def test_a_bucket_is_no_longer_than_the_model_takes():
    assert bucket_of(30, 1, 30, longest=40).max_seqlen == 32
    assert bucket_of(35, 1, 35, longest=40).max_seqlen == 40


@pytest.mark.parametrize("lengths", [(5, 3), (16,), (0, 2, 0), (15, 1), (100, 90, 80), (30,) * 30])
def test_what_fills_a_bucket_up(lengths):
    generator = torch.Generator().manual_seed(0)
    batch = PackedBatch.from_sequences([torch.randint(1, 9, (n,), generator=generator) for n in lengths])
    bucket = bucket_of(batch.num_tokens, batch.num_sentences, batch.max_seqlen, 128)
    static = StaticBatch(bucket, torch.device("cpu"))
    longer = PackedBatch.from_sequences([torch.full((bucket.tokens - 1,), 7)])
    static.fill(longer)  # of which nothing may be left
    static.fill(batch)
    found = static.batch
    tokens, sentences = batch.num_tokens, batch.num_sentences
    for name in ("token_ids", "position_ids", "token_type_ids"):
        assert torch.equal(getattr(found, name)[:tokens], getattr(batch, name))
        assert not getattr(found, name)[tokens:].any()
    assert found.cu_seqlens.dtype == torch.int32
    assert torch.equal(found.cu_seqlens[: sentences + 1], batch.cu_seqlens)
    others = found.cu_seqlens.diff()[sentences:]
    assert others.min() >= 0 and others.max() <= bucket.max_seqlen and others.sum() == bucket.tokens - tokens
    assert found.cu_seqlens[-1] == bucket.tokens == found.num_tokens
    assert (found.cu_seqlens[:-1] < bucket.tokens).all()  # every sentence begins at a token, an empty one too
