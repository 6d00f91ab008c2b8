"""packed_linear: as accurate as plain PyTorch, the same bits in any batch, and what is refused."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from sentcore import ops
from sentcore._extension import extension
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.packed_linear import ACTIVATIONS
from sentcore.ops.packed_linear.reference import unpack_weight


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(70, 33), (384, 96), (5, 32), (4, 1), (1, 40)], ids=str)
def test_weight_survives_packing(dtype, shape):
    weight = draw(*shape, dtype=dtype)
    assert torch.equal(unpack_weight(ops.pack_weight(weight), shape[1]), weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [0, *range(1, 14), 50, 401])
@pytest.mark.parametrize("depth, columns", [(384, 96), (256, 40), (33, 70), (3, 5), (1, 1)])
def test_as_accurate_as_plain_pytorch(dtype, activation, rows, depth, columns):
    x, bias = draw(rows, depth, dtype=dtype), draw(columns, seed=2, dtype=dtype)
    weight = (draw(columns, depth, seed=1) / depth**0.5).to(dtype)
    ours = ops.packed_linear(x, ops.pack_weight(weight), bias, activation=activation)
    # Plain PyTorch multiplies a few rows in another order than many, on some CPUs in a much more exact one.
    many = torch.cat((x, draw(64, depth, seed=3, dtype=dtype)))
    plain, exact = (
        ops.reference.packed_linear(
            many.to(kind), ops.pack_weight(weight.to(kind)), bias.to(kind), activation=activation
        )
        for kind in (dtype, torch.float64)
    )
    assert ours.dtype == dtype
    assert_as_accurate(torch.cat((ours, plain[rows:])), plain, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 5, 13, 24, 25, 193, 400])
@pytest.mark.parametrize("depth, columns", [(1538, 40), (3202, 70)])
def test_a_deep_weight_is_as_accurate_and_gives_a_row_the_same_bits(dtype, rows, depth, columns):
    """Its depth is multiplied block by block, with sums kept between: of all rows, or of a panel where there are few."""
    x, bias = draw(rows, depth, dtype=dtype), draw(columns, seed=2, dtype=dtype)
    weight = (draw(columns, depth, seed=1) / depth**0.5).to(dtype)
    packed = ops.pack_weight(weight)
    ours = ops.packed_linear(x, packed, bias, activation="gelu")
    plain, exact = (
        ops.reference.packed_linear(x.to(kind), ops.pack_weight(weight.to(kind)), bias.to(kind), activation="gelu")
        for kind in (dtype, torch.float64)
    )
    assert_as_accurate(ours, plain, exact)
    assert torch.equal(ops.packed_linear(x[-1:], packed, bias, activation="gelu"), ours[-1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_bias_and_strided_x(dtype):
    x, weight = draw(40, 48, dtype=dtype)[::2, ::2], ops.pack_weight(draw(40, 24, seed=1, dtype=dtype))
    ours = ops.packed_linear(x, weight)
    torch.testing.assert_close(ours, ops.reference.packed_linear(x, weight), atol=1e-2, rtol=1e-2)
    assert torch.equal(ops.packed_linear(x.contiguous(), weight, torch.zeros(40, dtype=dtype)), ours)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_comes_out_where_it_came_in(dtype):
    x, weight = draw(20, 32, dtype=dtype), ops.pack_weight(draw(40, 32, seed=1, dtype=dtype))
    x[7, 3] = torch.nan
    for activation in ACTIVATIONS:
        out = ops.packed_linear(x, weight, activation=activation)
        assert out[7].isnan().all() and out[:7].isfinite().all() and out[8:].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype):
    x, weight = draw(4, 24, dtype=dtype), ops.pack_weight(draw(40, 24, dtype=dtype))
    torch.library.opcheck(torch.ops.sentcore.packed_linear.default, (x, *weight, draw(40, dtype=dtype), "gelu"))


def test_wrong_arguments_are_named():
    x, weight = draw(4, 24), ops.pack_weight(draw(40, 24))
    with pytest.raises(ArgumentTypeError, match=r"x has dtype torch\.float16; accepted: float32, bfloat16"):
        ops.packed_linear(x.half(), weight)
    with pytest.raises(ArgumentTypeError, match=r"weight has dtype torch\.float32; accepted: torch\.bfloat16, x's"):
        ops.packed_linear(x.bfloat16(), weight)
    with pytest.raises(ArgumentTypeError, match="weight is of type Tensor; accepted: what pack_weight gives"):
        ops.packed_linear(x, draw(40, 24))
    with pytest.raises(ArgumentValueError, match=r"weight.values has shape \[2, 24, 32\]; accepted: \[R/32, 25, 32\]"):
        ops.packed_linear(draw(4, 25), weight)
    with pytest.raises(ArgumentValueError, match=r"bias has shape \[39\]; accepted: \[40\]"):
        ops.packed_linear(x, weight, draw(39))
    with pytest.raises(ArgumentValueError, match="activation is 'silu'; accepted: None, 'relu'"):
        ops.packed_linear(x, weight, activation="silu")
    with pytest.raises(ArgumentValueError, match="x requires a gradient"):
        ops.packed_linear(x.requires_grad_(), weight)
    if extension() is not None:
        with pytest.raises(RuntimeError, match=r"packed_linear: weight has shape .*; accepted: \[2, 24, 32\]"):
            torch.ops.sentcore.packed_linear(x.detach(), weight.values[:1], 40, None, "none")
