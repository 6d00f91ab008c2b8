"""A feed-forward layer's first product with GELU on a CPU: packed weights beside F.gelu(F.linear), from one token to 4,096."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sentcore.ops.inference_linear import InferenceLinear

WIDTH, INNER = 384, 1536


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def linear(request):
    torch.manual_seed(0)
    return nn.Linear(WIDTH, INNER).to(request.param)


@pytest.mark.benchmark(group="linear with GELU, 384 -> 1536")
@pytest.mark.parametrize("tokens", [1, 10, 100, 4096])
@pytest.mark.parametrize("name", ["packed", "torch"])
def test_forward(benchmark, linear, tokens, name):
    packed, x = InferenceLinear(), torch.randn(tokens, WIDTH).to(linear.weight.dtype)
    runs = {
        "packed": lambda: packed(x, (linear,), "gelu"),
        "torch": lambda: F.gelu(F.linear(x, linear.weight, linear.bias)),
    }
    with torch.inference_mode():
        out = benchmark(runs[name])
        exact = F.gelu(F.linear(x.double(), linear.weight.double(), linear.bias.double()))
        assert (out.double() - exact).abs().max() <= (1e-4 if out.dtype == torch.float32 else 5e-2)
