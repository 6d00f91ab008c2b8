"""fp8_linear's CUDA kernels: the rounding of rows to the bit, the product as accurate as plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from kernels.emulated import SEED_VARIABLE
from sentcore.ops.fp8_linear.reference import Fp8Weight, activate, fp8_linear, fp8_rows, quantize_weight_fp8

FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
DTYPES = [FLOAT32, BFLOAT16, FLOAT16]
ACTIVATIONS = ["none", "relu", "gelu", "gelu_tanh", "geglu", "swiglu"]
# T, K, R: nothing, one, tiles and their tails, depths that are no multiple of 8, 16, 64, columns that are no packs.
SIZES = [(0, 8, 16), (1, 8, 8), (17, 64, 40), (130, 136, 264), (5, 384, 136), (3, 31, 10), (66, 9, 66), (1, 1, 1)]
# K of rows that take 2, 4, 8 and 16 packs of a lane, that are read twice, that are no packs.
DEPTHS = [8, 512, 520, 1000, 1032, 2048, 2056, 4096, 4104, 4101, 13]


def draw(tokens, depth, rows, dtype):
    generator = torch.Generator().manual_seed(tokens + depth + rows)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight = quantize_weight_fp8(normal(rows, depth).float() * depth**-0.5)
    return {"x": normal(tokens, depth).to(dtype), "weight": weight, "bias": normal(rows).float()}


def forward(ops, t, activation="none"):
    return ops.fp8_linear(t["x"], *t["weight"], t["bias"], activation)


def bits(values):
    return values.view(torch.uint8)


def check(ops, t, activation="none"):
    x, weight, bias = t["x"], t["weight"], t["bias"]
    out = forward(ops, t, activation)
    plain = fp8_linear(x, weight, bias, activation=activation)
    values, scale = fp8_rows(x)
    exact = values.double() @ weight.values.double().t() * scale.double()[:, None] * weight.scale.double()
    exact = activate(exact if bias is None else exact + bias.double(), activation)
    assert out.dtype == x.dtype
    if ops.device != "cpu" and x.dtype == FLOAT32:
        plain = plain.half().float()  # a GPU's tensor cores are not promised to keep all of float32's bits in a sum
    assert_as_accurate(out, plain, exact, "out")


def check_rows(ops, x):
    values, scale = ops.fp8_rows(x)
    expected, expected_scale = fp8_rows(x)
    assert values.dtype == torch.float8_e4m3fn and torch.equal(bits(values), bits(expected))
    torch.testing.assert_close(scale, expected_scale, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_rows_are_rounded_to_the_bits_of_the_definition(ops, dtype, depth):
    x = draw(9, depth, 1, dtype)["x"]
    x[3] = 0
    x[4] *= 1e-4
    x[5, depth // 2] = 300
    check_rows(ops, x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pattern_of_16_bits_is_rounded(ops, dtype):
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    x = patterns.view(FLOAT16 if dtype == FLOAT16 else BFLOAT16).view(-1, 64).to(dtype)
    check_rows(ops, x)  # rows of NaN and of the largest and smallest numbers are among them
    scaled = torch.cat((x[x.float().abs() <= 448].sort().values, x.new_tensor([448.0])))
    check_rows(ops, scaled[None])  # of one scale, 1: numbers below the smallest step, ties, both zeros


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("depth", [40, 37])
def test_what_is_no_number_comes_out_as_nan(ops, dtype, value, depth):
    t = draw(9, depth, 24, dtype)
    t["x"][7, 33] = value
    check_rows(ops, t["x"])
    for activation in ACTIVATIONS:
        out = forward(ops, t, activation)
        assert out[7].isnan().all() and out[:7].isfinite().all() and out[8:].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_size(ops, dtype, sizes):
    check(ops, draw(*sizes, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
@pytest.mark.parametrize("sizes", [(17, 16, 32), (6, 40, 208), (3, 7, 6), (2, 100, 300)], ids=str)
def test_activations(ops, dtype, activation, sizes):
    check(ops, draw(*sizes, dtype), activation)


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_a_bias(ops, dtype):
    check(ops, draw(9, 24, 16, dtype) | {"bias": None})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_a_row_has_the_same_bits_in_any_batch(ops, dtype, activation):
    t = draw(150, 40, 48, dtype)
    out = forward(ops, t, activation)
    for first, last in ((0, 1), (3, 20), (20, 150), (127, 129)):
        assert torch.equal(forward(ops, t | {"x": t["x"][first:last]}, activation), out[first:last])


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_that_are_not_contiguous_or_not_aligned(ops, dtype):
    t = draw(11, 24, 16, dtype)
    expected, weight = forward(ops, t, "gelu"), t["weight"]

    def shifted(tensor):
        buffer = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)
        buffer[1:] = tensor.flatten()
        return buffer[1:].view(tensor.shape)

    def turned(tensor):
        return tensor.t().contiguous().t()

    for change in (
        {"x": turned(t["x"])},
        {"x": shifted(t["x"])},
        {"weight": Fp8Weight(turned(weight.values), weight.scale)},
        {"weight": Fp8Weight(shifted(weight.values), shifted(weight.scale))},
        {"bias": shifted(t["bias"])},
    ):
        assert torch.equal(forward(ops, t | change, "gelu"), expected)


def test_the_order_of_threads_changes_no_bit(ops, monkeypatch):
    for dtype in (BFLOAT16, FLOAT32):
        t = draw(70, 200, 40, dtype)
        first = forward(ops, t, "geglu"), *ops.fp8_rows(t["x"])
        for seed in range(1, 4):
            monkeypatch.setenv(SEED_VARIABLE, str(seed))
            again = forward(ops, t, "geglu"), *ops.fp8_rows(t["x"])
            assert torch.equal(again[0], first[0]) and torch.equal(again[2], first[2])
            assert torch.equal(bits(again[1]), bits(first[1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(4, 8).double()}, "x is of dtype float64; accepted: float32, bfloat16, float16"),
        ({"x": torch.ones(4, 0)}, r"x has shape \[4, 0\]; accepted: \[T, K\] with K of at least 1"),
        ({"weight": torch.ones(6, 16)}, "weight is of dtype float32; accepted: float8_e4m3fn"),
        ({"weight": torch.ones(6, 8).to(torch.float8_e4m3fn)}, r"weight has shape \[6, 8\]; accepted: \[6, 16\]"),
        ({"scale": torch.ones(6).half()}, "scale is of dtype float16; accepted: float32"),
        ({"scale": torch.ones(6, 1)}, r"scale has shape \[6, 1\]; accepted: 1 dimensions"),
        ({"bias": torch.ones(5)}, r"bias has shape \[5\]; accepted: \[6\]"),
        ({"bias": torch.ones(6).half()}, "bias is of dtype float16; accepted: float32"),
        ({"activation": "mish"}, "activation is 'mish'; accepted: none, relu"),
        ({"scale": torch.ones(5), "bias": None, "activation": "geglu"}, r"scale has shape \[5\]; accepted"),
    ],
)
def test_refusals_name_argument_value_and_remedy(ops, change, message):
    weight = torch.ones(6, 16).to(torch.float8_e4m3fn)
    given = {
        "x": torch.ones(4, 8),
        "weight": weight,
        "scale": torch.ones(6),
        "bias": torch.ones(6),
        "activation": "gelu",
    }
    with pytest.raises(RuntimeError, match=f"^fp8_linear: {message}"):
        ops.fp8_linear(**(given | change))
