"""int8_linear: the integers are exact, the rest as accurate as plain PyTorch, and what is refused."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from sentcore import ops
from sentcore._extension import extension
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.int8_linear import ACTIVATIONS
from sentcore.ops.int8_linear.reference import activate, quantize_rows, rounded_weight

COARSE_GELU = 1.7e-4  # what the kernels' GELU may add before a result is rounded to bfloat16


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def exact(x, weight, bias, activation):
    """The definition with everything behind the integers in float64."""
    rows, integers = quantize_rows(x.float()), rounded_weight(weight, x.shape[1]).double()
    values = rows.rounded.double() * rows.scale.double()[:, None]
    values.scatter_add_(1, rows.place[:, None], rows.apart.double()[:, None])
    return activate(values @ integers.t() * weight.scale.double() + bias.double(), activation)


@pytest.mark.parametrize("shape", [(70, 33), (384, 96), (5, 32), (4, 1), (1, 40), (130, 200)], ids=str)
def test_weight_survives_packing(shape):
    weight = draw(*shape)
    packed = ops.quantize_weight(weight)
    rounded = rounded_weight(packed, shape[1])
    assert rounded.shape == shape and int(rounded.abs().max()) == 127
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((rounded * step - weight).abs() <= 0.5001 * step).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [0, 1, 3, 12, 13, 50, 401])
@pytest.mark.parametrize("depth, columns", [(384, 96), (33, 70), (3, 5), (1, 1)])
def test_as_accurate_as_plain_pytorch(dtype, activation, rows, depth, columns):
    x, bias = draw(rows, depth, dtype=dtype), draw(columns, seed=2)
    x[::3, depth // 2] *= 20  # kept apart in these rows
    weight = ops.quantize_weight(draw(columns, depth, seed=1) / depth**0.5)
    ours = ops.int8_linear(x, weight, bias, activation=activation)
    plain = ops.reference.int8_linear(x, weight, bias, activation=activation)
    expected = exact(x, weight, bias, activation)
    assert ours.dtype == dtype
    assert_as_accurate(ours, plain, expected)
    if dtype == torch.bfloat16 and rows:
        # Rounded once: half a unit in the last place of each value, beside what GELU adds.
        ulp = torch.finfo(dtype).eps * expected.abs()
        assert ((ours.double() - expected).abs() <= 0.51 * ulp + COARSE_GELU).all()


def test_rows_are_rounded_as_the_definition_says():
    x = draw(2000, 384, dtype=torch.bfloat16).float()
    x[5::7, 11] = 40.0
    rows = quantize_rows(x)
    assert (rows.apart[5::7] == 40.0).all() and (rows.place[5::7] == 11).all()
    assert int((rows.apart != 0).sum()) == len(x[5::7])
    out = ops.int8_linear(x, ops.quantize_weight(torch.eye(384)))
    torch.testing.assert_close(out[5::7, 11], torch.full_like(out[5::7, 11], 40.0))
    assert torch.equal((out / rows.scale[:, None]).round().to(torch.int8)[6::7], rows.rounded[6::7])
    out[:, 11] = 0
    rows.rounded[:, 11] = 0
    assert torch.equal((out / rows.scale[:, None]).round().to(torch.int8), rows.rounded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("depth", [64, 100, 384])
def test_what_is_kept_apart_wherever_the_two_largest_stand(dtype, depth):
    # One row for each distance of the second largest element: it may share a lane of any vector with the largest.
    rows = torch.full((depth - 1, depth), 0.25, dtype=dtype)
    rows[:, 3] = 8.0
    places = torch.tensor([place for place in range(depth) if place != 3])
    for second, apart in ((8.0, False), (-8.0, False), (3.0, False), (2.5, True), (0.25, True)):
        x = rows.scatter(1, places[:, None], second)
        assert bool((quantize_rows(x.float()).apart != 0).all()) == apart
        weight = ops.quantize_weight(torch.eye(depth))
        torch.testing.assert_close(ops.int8_linear(x, weight), ops.reference.int8_linear(x, weight), rtol=0, atol=0)


@pytest.mark.parametrize("room", [ops, ops.reference], ids=["op", "reference"])
def test_one_huge_element_does_not_drown_the_others(room):
    x, weight = draw(50, 384), draw(64, 384, seed=1)
    x[:, 100] = 60.0
    full = x @ weight.t() - 60.0 * weight[:, 100]
    ours = room.int8_linear(x, ops.quantize_weight(weight)) - 60.0 * weight[:, 100]
    assert torch.nn.functional.cosine_similarity(ours, full).min() > 0.995


def test_close_to_the_layer_it_stands_for():
    x, weight = draw(300, 384), draw(128, 384, seed=1) / 384**0.5
    full = x @ weight.t()
    ours = ops.int8_linear(x, ops.quantize_weight(weight))
    assert torch.nn.functional.cosine_similarity(ours, full).min() > 0.999


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_has_the_same_bits_in_any_batch(dtype):
    if extension() is None:
        pytest.skip("plain PyTorch promises less")
    x, weight = draw(500, 100, dtype=dtype), ops.quantize_weight(draw(77, 100, seed=1))
    whole = ops.int8_linear(x, weight, activation="gelu")
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for begin, end in ((0, 1), (3, 10), (100, 260), (499, 500), (0, 500)):
                assert torch.equal(ops.int8_linear(x[begin:end], weight, activation="gelu"), whole[begin:end])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 15, 16, 36])
def test_what_is_no_number_comes_out_as_nan(dtype, activation, value, place):
    x, weight = draw(20, 37, dtype=dtype), ops.quantize_weight(draw(40, 37, seed=1))
    x[7, place] = value
    x[9] = 0
    out = ops.int8_linear(x, weight, activation=activation)
    assert out[7].isnan().all()
    assert out[:7].isfinite().all() and out[8:].isfinite().all()
    assert (out[9] == 0).all()


def test_strided_x_and_opcheck():
    x, weight = draw(40, 48)[::2, ::2], ops.quantize_weight(draw(40, 24, seed=1))
    assert torch.equal(ops.int8_linear(x, weight), ops.int8_linear(x.contiguous(), weight))
    torch.library.opcheck(torch.ops.sentcore.int8_linear.default, (x, *weight, draw(40, seed=3), "gelu"))


def test_wrong_arguments_are_named():
    x, weight = draw(4, 24), ops.quantize_weight(draw(40, 24))
    with pytest.raises(ArgumentTypeError, match=r"x has dtype torch\.float16; accepted: float32, bfloat16"):
        ops.int8_linear(x.half(), weight)
    with pytest.raises(ArgumentTypeError, match=r"weight is of type Tensor; accepted: what quantize_weight gives"):
        ops.int8_linear(x, draw(40, 24))
    with pytest.raises(
        ArgumentValueError, match=r"weight.values has shape \[2, 6, 32, 4\]; accepted: \[R/32, 7, 32, 4\]"
    ):
        ops.int8_linear(draw(4, 25), weight)
    with pytest.raises(ArgumentTypeError, match=r"bias has dtype torch\.bfloat16; accepted: float32"):
        ops.int8_linear(x, weight, draw(40, dtype=torch.bfloat16))
    with pytest.raises(ArgumentValueError, match="activation is 'silu'; accepted: None, 'relu'"):
        ops.int8_linear(x, weight, activation="silu")
    with pytest.raises(ArgumentValueError, match="x requires a gradient"):
        ops.int8_linear(x.requires_grad_(), weight)
    if extension() is not None:
        with pytest.raises(RuntimeError, match=r"int8_linear: weight has shape .*; accepted: \[2, 6, 32, 4\]"):
            torch.ops.sentcore.int8_linear(x.detach(), weight.values[:1], weight.scale, None, "none")
