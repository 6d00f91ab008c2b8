"""fp8_linear: values as the e4m3 format has them, the rest as accurate as plain PyTorch, and what is refused."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from sentcore import _extension, ops
from sentcore.errors import ArgumentTypeError, ArgumentValueError, BackendError
from sentcore.ops import Fp8Weight
from sentcore.ops.fp8_linear import ACTIVATIONS, GATED, fp8_rows
from sentcore.ops.fp8_linear.reference import activate

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
E4M3 = torch.float8_e4m3fn


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def weight_of(rows, depth, seed=1):
    return ops.quantize_weight_fp8(draw(rows, depth, seed=seed) / depth**0.5)


def every_value():
    """[127] float64: 0 and all positive e4m3 numbers in order, written out from the format."""
    small = [fraction * 2.0**-9 for fraction in range(8)]
    return torch.tensor(
        small + [(1 + f / 8) * 2.0 ** (e - 7) for e in range(1, 16) for f in range(8)][:-1], dtype=torch.float64
    )


def nearest(scaled):
    """float64 in [-448, 448] to e4m3 by looking at all numbers: the nearest, of two equally near the even one."""
    numbers = every_value()
    assert numbers[-1] == 448 and len(numbers) == 127
    above = torch.searchsorted(numbers, scaled.abs()).clamp(max=126)
    below = (above - 1).clamp(min=0)
    low, high = scaled.abs() - numbers[below], numbers[above] - scaled.abs()
    upper = (high < low) | ((high == low) & (above % 2 == 0))
    return numbers[torch.where(upper, above, below)].copysign(scaled)


def exact(x, weight, bias, activation):
    """The definition with everything behind the rounding in float64."""
    values, scale = fp8_rows(x)
    out = values.double() @ weight.values.double().t() * scale.double()[:, None] * weight.scale.double()
    return activate(out if bias is None else out + bias.double(), activation)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [1, 15, 16, 33, 384])
def test_rows_are_rounded_to_the_nearest_even(dtype, depth):
    x = draw(300, depth, dtype=dtype)
    x[::7] *= 1e-3
    values, scale = fp8_rows(x)
    padded = -(-depth // 16) * 16
    assert values.shape == (300, padded) and values.dtype == E4M3 and scale.dtype == torch.float32
    largest = x.float().abs().amax(dim=1)
    assert torch.equal(scale, largest / torch.tensor(448.0))
    scaled = x.float() * (torch.tensor(448.0) / largest)[:, None]
    assert torch.equal(values.double()[:, :depth], nearest(scaled.double().clamp(-448, 448)))
    assert not values[:, depth:].float().any()
    assert (values.float().abs().amax(dim=1) == 448).all()


def test_ties_and_the_smallest_numbers():
    numbers = every_value()
    middles = (numbers[:-1] + numbers[1:]) / 2
    row = torch.cat((numbers, middles, -middles)).float()  # its largest is 448, so its scale is 1
    values, scale = fp8_rows(row[None])
    assert scale.item() == 1.0
    assert torch.equal(values.double()[0, : len(row)], nearest(row.double()))


def test_weights_are_rounded_per_output():
    weight = draw(70, 33)
    rounded = ops.quantize_weight_fp8(weight)
    assert rounded.values.shape == (70, 48) and rounded.scale.shape == (70,)
    restored = rounded.values.float()[:, :33] * rounded.scale[:, None]
    # Half a step: 2^-4 of a number, or of 2^-6 times the scale below it.
    step = torch.maximum(weight.abs(), rounded.scale[:, None] * 2.0**-6) * 2.0**-4
    assert ((restored - weight).abs() <= 1.001 * step).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [0, 1, 13, 65])
@pytest.mark.parametrize("depth, columns", [(384, 96), (33, 70), (1, 2)])
def test_as_accurate_as_plain_pytorch(dtype, activation, rows, depth, columns):
    x, bias, weight = draw(rows, depth, dtype=dtype), draw(columns, seed=2), weight_of(columns, depth)
    ours = ops.fp8_linear(x, weight, bias, activation=activation)
    assert ours.dtype == dtype and ours.shape == (rows, columns // 2 if activation in GATED else columns)
    plain = ops.reference.fp8_linear(x, weight, bias, activation=activation)
    assert_as_accurate(ours, plain, exact(x, weight, bias, activation))
    assert_as_accurate(ops.fp8_linear(x, weight), ops.reference.fp8_linear(x, weight), exact(x, weight, None, None))


def test_close_to_the_layer_it_stands_for():
    x, weight = draw(300, 384), draw(128, 384, seed=1) / 384**0.5
    ours = ops.fp8_linear(x, ops.quantize_weight_fp8(weight))
    assert torch.nn.functional.cosine_similarity(ours, x @ weight.t()).min() > 0.998


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-20, 1e30, 1e34])
def test_rows_of_any_size(size):
    x = torch.full((3, 20), size)
    x[1] *= -1
    x[2, 1:] = 0
    values, scale = fp8_rows(x)
    assert scale.isfinite().all() and (scale > 0).all() and values.float().isfinite().all()
    if size >= 1e-17:
        torch.testing.assert_close(values.float()[:, :20] * scale[:, None], x)
    assert ops.fp8_linear(x, Fp8Weight(torch.ones(4, 32).to(E4M3), torch.full((4,), 1e-3))).isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_comes_out_as_nan(dtype, activation, value):
    x, weight = draw(20, 37, dtype=dtype), weight_of(40, 37)
    x[7, 36] = value
    x[9] = 0
    out = ops.fp8_linear(x, weight, activation=activation)
    assert out[7].isnan().all()
    assert out[:7].isfinite().all() and out[8:].isfinite().all()
    assert (out[9] == 0).all()


def test_strided_x_and_opcheck():
    x, weight = draw(40, 48)[::2, ::2], weight_of(40, 24)
    assert torch.equal(ops.fp8_linear(x, weight), ops.fp8_linear(x.contiguous(), weight))
    # "test_schema", that no input is written to, compares by a function that torch has not for e4m3: so below.
    others = ("test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    before = x.clone(), weight.values.view(torch.uint8).clone(), weight.scale.clone()
    for op, given in (("fp8_linear", (x, *weight, draw(40, seed=3), "geglu")), ("fp8_rows", (x,))):
        torch.library.opcheck(getattr(torch.ops.sentcore, op).default, given, test_utils=others)
    after = x, weight.values.view(torch.uint8), weight.scale
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_compiled_as_one_graph():
    x, weight, bias = draw(20, 24), weight_of(40, 24), draw(40, seed=3)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def layer(x):
        return ops.fp8_linear(x, weight, bias, activation="gelu")

    assert torch.equal(layer(x), ops.fp8_linear(x, weight, bias, activation="gelu"))


def test_wrong_arguments_are_named():
    x, weight = draw(4, 24), weight_of(40, 24)
    with pytest.raises(ArgumentTypeError, match=r"x has dtype torch\.float64; accepted: float32, bfloat16, float16"):
        ops.fp8_linear(x.double(), weight)
    with pytest.raises(ArgumentValueError, match=r"x has shape \[4, 0\]; accepted: \[T, K\] with K of at least 1"):
        ops.fp8_linear(x[:, :0], weight)
    with pytest.raises(ArgumentTypeError, match=r"weight is of type Tensor; accepted: what quantize_weight_fp8 gives"):
        ops.fp8_linear(x, draw(40, 24))
    with pytest.raises(ArgumentValueError, match=r"weight.values has shape \[40, 32\]; accepted: \[40, 48\]"):
        ops.fp8_linear(draw(4, 33), weight)
    with pytest.raises(
        ArgumentTypeError, match=r"weight.values has dtype torch\.float32; accepted: torch\.float8_e4m3fn"
    ):
        ops.fp8_linear(x, Fp8Weight(weight.values.float(), weight.scale))
    with pytest.raises(ArgumentTypeError, match=r"weight.scale has dtype torch\.bfloat16; accepted: torch\.float32"):
        ops.fp8_linear(x, Fp8Weight(weight.values, weight.scale.bfloat16()))
    with pytest.raises(ArgumentValueError, match=r"bias has shape \[39\]; accepted: \[40\]"):
        ops.fp8_linear(x, weight, draw(39))
    with pytest.raises(ArgumentTypeError, match=r"bias has dtype torch\.bfloat16; accepted: float32"):
        ops.fp8_linear(x, weight, draw(40, dtype=torch.bfloat16))
    with pytest.raises(ArgumentValueError, match="activation is 'silu'; accepted: None, 'relu'"):
        ops.fp8_linear(x, weight, activation="silu")
    with pytest.raises(
        ArgumentValueError, match="weight has 39 rows; accepted with activation='geglu': an even number"
    ):
        ops.fp8_linear(x, weight_of(39, 24), activation="geglu")
    with pytest.raises(ArgumentValueError, match="x requires a gradient"):
        ops.fp8_linear(x.requires_grad_(), weight)


class OnGpu(torch.Tensor):
    """A CPU tensor that says it is on a GPU, as far as checks before a launch ask."""

    @property
    def device(self):
        return torch.device("cuda:0")


def test_a_gpu_without_such_products_is_refused_before_a_launch(monkeypatch):
    why = "An Old Card has compute capability 8.6, and 8-bit floating-point products need 8.9 or later"
    monkeypatch.setattr(_extension, "_seen", {0: True})
    monkeypatch.setattr(_extension, "_fp8_reasons", {0: why})
    x = draw(4, 24).as_subclass(OnGpu)
    with pytest.raises(BackendError, match=f"x is on cuda:0, but {why}; use linear with bfloat16 weights"):
        ops.fp8_linear(x, weight_of(40, 24))
    with pytest.raises(BackendError, match="dtype='bfloat16'"):
        fp8_rows(x)
