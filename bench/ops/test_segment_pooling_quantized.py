"""Pooling, scaling and quantizing of 128 sentences of 32 tokens: the op beside the same stage by stage."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sentcore import ops
from sentcore.outputs import quantize

PRECISIONS = ["int8", "ubinary"]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids="{0}".format)
def tensors(request):
    torch.manual_seed(0)
    return torch.randn(4096, 384, dtype=request.param), torch.arange(0, 4097, 32, dtype=torch.int32)


def ranges_for(precision):
    return torch.tensor([[-0.1], [0.1]]).expand(2, 256).contiguous() if precision == "int8" else None


def op(tensors, precision):
    given = {"normalize_before": True, "width": 256, "normalize": True, "ranges": ranges_for(precision)}
    return ops.segment_pooling_quantized(*tensors, precision=precision, **given)[0]


def stages(tensors, precision):
    rows = F.normalize(F.normalize(ops.segment_pooling(*tensors), dim=1)[:, :256], dim=1).numpy()
    ranges = ranges_for(precision)
    return torch.from_numpy(quantize(rows, precision, None if ranges is None else ranges.numpy()))


@pytest.mark.benchmark(group="segment_pooling_quantized")
@pytest.mark.parametrize("name", ["op", "stages"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_forward(benchmark, tensors, name, precision):
    with torch.inference_mode():
        out = benchmark(op if name == "op" else stages, tensors, precision)
        assert torch.equal(out, stages(tensors, precision))
