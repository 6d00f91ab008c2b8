"""Bias and GELU over 4,096 tokens: the op beside plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from sentcore import ops

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(params=DTYPES, ids="{0}".format)
def tensors(request):
    torch.manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=request.param)

    return draw(4096, 1536), draw(1536)


def run(room, tensors, approximate):
    return room.bias_gelu(*tensors, approximate=approximate)


@pytest.mark.benchmark(group="bias_gelu")
@pytest.mark.parametrize("name", ["op", "reference"])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_forward(benchmark, tensors, name, approximate):
    with torch.inference_mode():
        out = benchmark(run, ops if name == "op" else ops.reference, tensors, approximate)
        same = run(ops.reference, tensors, approximate)
    tolerance = 1e-5 if tensors[0].dtype == torch.float32 else 2**-4  # plain PyTorch rounds in between
    torch.testing.assert_close(out, same, atol=tolerance, rtol=tolerance, check_dtype=False)


@pytest.mark.benchmark(group="bias_gelu, backward")
@pytest.mark.parametrize("name", ["op", "reference"])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_backward(benchmark, tensors, name, approximate):
    leaves = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    out = run(ops if name == "op" else ops.reference, tensors, approximate)
    grad_out = torch.randn_like(out)
    benchmark(torch.autograd.grad, out, leaves, grad_out, retain_graph=True)
