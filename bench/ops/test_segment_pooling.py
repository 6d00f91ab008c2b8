"""Pooling of 128 sentences of 32 tokens: the op beside plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from sentcore import ops

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(params=DTYPES, ids="{0}".format)
def tensors(request):
    torch.manual_seed(0)
    return torch.randn(4096, 384, dtype=request.param), torch.arange(0, 4097, 32, dtype=torch.int32)


def run(room, tensors, mode):
    return room.segment_pooling(*tensors, mode=mode, normalize=True)


@pytest.mark.benchmark(group="segment_pooling")
@pytest.mark.parametrize("name", ["op", "reference"])
@pytest.mark.parametrize("mode", ["mean", "cls", "max", "weightedmean"])
def test_forward(benchmark, tensors, name, mode):
    with torch.inference_mode():
        out = benchmark(run, ops if name == "op" else ops.reference, tensors, mode)
        same = run(ops.reference, tensors, mode)
    tolerance = 1e-5 if tensors[0].dtype == torch.float32 else 2**-4  # plain PyTorch rounds in between
    torch.testing.assert_close(out, same, atol=tolerance, rtol=tolerance, check_dtype=False)


@pytest.mark.benchmark(group="segment_pooling, backward")
@pytest.mark.parametrize("name", ["op", "reference"])
@pytest.mark.parametrize("mode", ["mean", "cls", "max", "weightedmean"])
def test_backward(benchmark, tensors, name, mode):
    leaves = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    out = run(ops if name == "op" else ops.reference, tensors, mode)
    grad_out = torch.randn_like(out)
    benchmark(torch.autograd.grad, out, leaves, grad_out, retain_graph=True)
