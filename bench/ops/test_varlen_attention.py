"""Attention over a ragged batch: the op beside plain PyTorch (SDPA by groups of equal length) and padded SDPA, forward."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
import torch
import torch.nn.functional as F

from sentcore import ops

HEADS, SIZE = 12, 32


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def batch(request):
    """64 sentences of 8 to 256 tokens, longest first, as the planner puts them."""
    generator = torch.Generator().manual_seed(0)
    lengths = sorted(torch.randint(8, 257, (64,), generator=generator).tolist(), reverse=True)
    starts = [0, *accumulate(lengths)]
    qkv = torch.randn(starts[-1], 3, HEADS, SIZE, generator=generator).to(request.param)
    padded = torch.zeros(64, max(lengths), 3, HEADS, SIZE, dtype=request.param)
    mask = torch.zeros(64, max(lengths), dtype=torch.bool)
    for row, (first, last) in enumerate(pairwise(starts)):
        padded[row, : last - first], mask[row, : last - first] = qkv[first:last], True
    return qkv, torch.tensor(starts, dtype=torch.int32), max(lengths), padded, mask


def padded_sdpa(qkv, cu_seqlens, longest, padded, mask):
    q, k, v = (padded[:, :, i].transpose(1, 2) for i in range(3))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
    return out.transpose(1, 2)[mask]


RUNS = {
    "op": lambda qkv, cu, longest, *_: ops.varlen_attention(qkv, cu, longest),
    "reference": lambda qkv, cu, longest, *_: ops.reference.varlen_attention(qkv, cu, longest),
    "SDPA, padded": padded_sdpa,
}


@pytest.mark.benchmark(group="varlen_attention, lengths 8-256, N12 D32")
@pytest.mark.parametrize("name", RUNS)
def test_forward(benchmark, batch, name):
    with torch.inference_mode():
        out = benchmark(RUNS[name], *batch)
        exact = ops.reference.varlen_attention(batch[0].double(), *batch[1:3])
        assert (out.double() - exact).abs().max() <= (1e-5 if out.dtype == torch.float32 else 3e-2)
