"""Residual and LayerNorm over 4,096 tokens: the op beside plain PyTorch, forward."""

from __future__ import annotations

import pytest
import torch

from sentcore import ops


@pytest.fixture(params=[384, 768, 1024], ids="H{}".format)
def tensors(request):
    generator = torch.Generator().manual_seed(0)
    hidden = request.param
    x, residual = torch.randn(2, 4096, hidden, generator=generator)
    weight, bias = torch.randn(2, hidden, generator=generator)
    return x, residual, weight, bias


@pytest.mark.benchmark(group="add_layer_norm, T4096, float32")
@pytest.mark.parametrize("name", ["op", "reference"])
def test_forward(benchmark, tensors, name):
    room = ops if name == "op" else ops.reference
    with torch.inference_mode():
        out = benchmark(room.add_layer_norm, *tensors, eps=1e-12)
        torch.testing.assert_close(out, ops.reference.add_layer_norm(*tensors, eps=1e-12), atol=1e-5, rtol=1e-5)
