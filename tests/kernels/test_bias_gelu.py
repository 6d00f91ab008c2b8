"""bias_gelu's and bias_gelu_layer_norm's CUDA kernels, forward and backward."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from kernels.emulated import SEED_VARIABLE
from sentcore.ops.bias_gelu import reference as gelu
from sentcore.ops.bias_gelu_layer_norm import reference as norm

FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
DTYPES = [FLOAT32, BFLOAT16, FLOAT16]
SIZES = [(0, 8), (1, 1), (2, 3), (17, 33), (9, 384), (150, 24), (3, 1032)]
EPS = 1e-5


def draw(tokens, width, dtype, parameter_dtype=None):
    generator = torch.Generator().manual_seed(tokens * 10007 + width)

    def normal(*shape, dtype=dtype):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    p = parameter_dtype or dtype
    return {
        "grad": normal(tokens, width), "x": normal(tokens, width) * 2, "bias": normal(width, dtype=p),
        "weight": normal(width, dtype=p) + 1, "norm_bias": normal(width, dtype=p),
    }  # fmt: skip


def run_gelu(ops, t, approximate="none"):
    out = ops.bias_gelu(t["x"], t["bias"], approximate)
    return out, *ops.bias_gelu_backward(t["grad"], t["x"], t["bias"], approximate)


def define_gelu(t, approximate="none"):
    grad_x, grad_bias = gelu.bias_gelu_backward(t["grad"], t["x"], t["bias"], approximate)
    out = gelu.bias_gelu(t["x"], t["bias"], approximate=approximate)
    return out, grad_x, grad_bias if t["bias"] is not None else grad_bias[:0]


def run_norm(ops, t):
    out = ops.bias_gelu_layer_norm(t["x"], t["bias"], t["weight"], t["norm_bias"], EPS)
    has_norm_bias = t["norm_bias"] is not None
    return out, *ops.bias_gelu_layer_norm_backward(t["grad"], t["x"], t["bias"], t["weight"], has_norm_bias, EPS)


def define_norm(t):
    out = norm.bias_gelu_layer_norm(t["x"], t["bias"], t["weight"], t["norm_bias"], EPS)
    grads = list(norm.bias_gelu_layer_norm_backward(t["grad"], t["x"], t["bias"], t["weight"], EPS))
    if t["bias"] is None:
        grads[1] = grads[1][:0]
    if t["norm_bias"] is None:
        grads[3] = grads[3][:0]
    return out, *grads


def check(ours, define, t):
    plain = define(t)
    exact = define({k: v if v is None else v.double() for k, v in t.items()})
    for index, (a, b, c) in enumerate(zip(ours, plain, exact, strict=True)):
        assert a.dtype == b.dtype
        assert_as_accurate(a, b, c, f"result {index}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_of_every_size(ops, dtype, sizes, approximate):
    t = draw(*sizes, dtype)
    check(run_gelu(ops, t, approximate), lambda t: define_gelu(t, approximate), t)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_norm_of_every_size(ops, dtype, sizes):
    t = draw(*sizes, dtype)
    check(run_norm(ops, t), define_norm, t)


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
@pytest.mark.parametrize("width", [40, 33])
def test_float32_parameters(ops, dtype, width):
    t = draw(5, width, dtype, FLOAT32)
    check(run_gelu(ops, t), define_gelu, t)
    check(run_norm(ops, t), define_norm, t)


@pytest.mark.parametrize("absent", [("bias",), ("norm_bias",), ("bias", "norm_bias")])
def test_optional_tensors(ops, absent):
    t = draw(5, 24, FLOAT32) | dict.fromkeys(absent)
    check(run_gelu(ops, t), define_gelu, t)
    check(run_norm(ops, t), define_norm, t)


@pytest.mark.parametrize(("width", "dtype"), [(12000, FLOAT32), (20000, FLOAT32), (24581, BFLOAT16), (24832, BFLOAT16)])
def test_rows_that_fill_shared_memory_or_outgrow_it(ops, width, dtype):
    t = draw(3, width, dtype)
    check(run_norm(ops, t), define_norm, t)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_inputs_that_are_not_contiguous_or_not_aligned(ops, dtype):
    t = draw(6, 40, dtype)
    turned = {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in t.items()}
    for run in (run_gelu, run_norm):
        for a, b in zip(run(ops, turned), run(ops, t), strict=True):
            assert torch.equal(a, b)
    for name in t:
        buffer = torch.full((t[name].numel() + 1,), torch.nan, dtype=dtype)
        buffer[1:] = t[name].flatten()
        shifted = t | {name: buffer[1:].view(t[name].shape)}
        check(run_gelu(ops, shifted), define_gelu, t)
        check(run_norm(ops, shifted), define_norm, t)


def test_the_order_of_threads_changes_no_bit(ops, monkeypatch):
    t = draw(70, 40, BFLOAT16)
    first = [*run_gelu(ops, t), *run_norm(ops, t)]
    for seed in range(1, 5):
        monkeypatch.setenv(SEED_VARIABLE, str(seed))
        for a, b in zip([*run_gelu(ops, t), *run_norm(ops, t)], first, strict=True):
            assert torch.equal(a, b)


def test_refusals_name_argument_value_and_remedy(ops):
    x, vector = torch.ones(4, 8), torch.ones(8)
    with pytest.raises(RuntimeError, match=r"^bias_gelu: approximate is 'fast'; accepted: none"):
        ops.bias_gelu(x, None, "fast")
    with pytest.raises(RuntimeError, match=r"^bias_gelu: bias has shape \[7\]; accepted: \[8\]"):
        ops.bias_gelu(x, torch.ones(7), "none")
    with pytest.raises(RuntimeError, match=r"^bias_gelu: x is of dtype float64; accepted: float32"):
        ops.bias_gelu(x.double(), None, "none")
    with pytest.raises(RuntimeError, match=r"^bias_gelu_layer_norm: bias is of dtype float16; accepted: float32"):
        ops.bias_gelu_layer_norm(x, vector.half(), vector, None, EPS)
    with pytest.raises(
        RuntimeError, match=r"^bias_gelu_layer_norm: x has shape \[2, 0\]; accepted: \[T, H\] with H of"
    ):
        ops.bias_gelu_layer_norm(torch.ones(2, 0), None, torch.ones(0), None, EPS)
