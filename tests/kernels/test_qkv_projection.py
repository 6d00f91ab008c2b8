"""qkv_projection's CUDA kernels, forward and backward."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from kernels.emulated import SEED_VARIABLE
from sentcore.ops.qkv_projection.reference import qkv_projection, qkv_projection_backward

FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
DTYPES = [FLOAT32, BFLOAT16, FLOAT16]
pytestmark = pytest.mark.usefixtures("kernels")
# T, H, N, D: nothing, one token, heads that a tile rotates and heads that it does not, tiles and their tails, odd sizes.
SIZES = [
    (0, 16, 2, 8),
    (1, 8, 1, 8),
    (17, 32, 2, 16),
    (130, 136, 3, 40),
    (65, 64, 4, 64),
    (3, 30, 3, 10),
    (2, 384, 1, 80),
]


def draw(tokens, hidden, heads, size, dtype, angles_dtype=None):
    generator = torch.Generator().manual_seed(tokens + hidden)

    def normal(*shape, scale=1.0):
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype)

    angles = torch.rand(tokens, size // 2, generator=generator, dtype=torch.float64) * 6
    return {
        "x": normal(tokens, hidden),
        "weights": [normal(heads * size, hidden, scale=hidden**-0.5) for _ in range(3)],
        "biases": [normal(heads * size) for _ in range(3)],
        "cos": angles.cos().to(angles_dtype or dtype),
        "sin": angles.sin().to(angles_dtype or dtype),
        "grad": normal(tokens, 3, heads, size),
        "heads": heads,
    }


def run(ops, t, *, stacked=False, bias=True, rotary=False):
    weights, biases = t["weights"], t["biases"] if bias else [None] * 3
    if stacked:
        weights = [torch.cat(weights), None, None]
        biases = [torch.cat(biases) if bias else None, None, None]
    angles = (t["cos"], t["sin"]) if rotary else (None, None)
    out = ops.qkv_projection(t["x"], *weights, *biases, t["heads"], *angles)
    return out, *ops.qkv_projection_backward(t["grad"], t["x"], *weights, bias, *angles)


def definition(t, bias, rotary, dtype=None):
    t = {k: _to(v, dtype) for k, v in t.items()}
    weight = torch.cat(t["weights"])
    angles = (t["cos"], t["sin"]) if rotary else None
    out = qkv_projection(t["x"], weight, torch.cat(t["biases"]) if bias else None, num_heads=t["heads"], rotary=angles)
    grads = qkv_projection_backward(t["grad"], t["x"], weight, *(angles or (None, None)))
    return out, *(grads if bias else (*grads[:2], grads[2][:0]))


def _to(value, dtype):
    if dtype is None or isinstance(value, int):
        return value
    return [v.to(dtype) for v in value] if isinstance(value, list) else value.to(dtype)


def check(ops, t, *, bias=True, rotary=False, stacked=False):
    ours = run(ops, t, stacked=stacked, bias=bias, rotary=rotary)
    plain = definition(t, bias, rotary)
    exact = definition(t, bias, rotary, torch.float64)
    for name, a, b, c in zip(("qkv", "grad_x", "grad_weight", "grad_bias"), ours, plain, exact, strict=True):
        assert a.dtype == t["x"].dtype
        assert_as_accurate(a, b, c, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_size(ops, dtype, sizes):
    check(ops, draw(*sizes, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(9, 16, 2, 16), (17, 64, 2, 64), (5, 40, 2, 80)], ids=str)
@pytest.mark.parametrize("angles", ["same", FLOAT32], ids=["angles alike", "angles float32"])
def test_rotation(ops, dtype, sizes, angles):
    check(ops, draw(*sizes, dtype, None if angles == "same" else angles), rotary=True)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_forms_of_weight_and_bias(ops, dtype, stacked, bias):
    check(ops, draw(7, 48, 3, 16, dtype), stacked=stacked, bias=bias)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_in_any_batch(ops, dtype):
    t = draw(150, 40, 2, 16, dtype)
    whole = run(ops, t, rotary=True)
    for first, last in ((0, 1), (3, 20), (20, 150)):
        part = {k: v[first:last] if k in ("x", "grad", "cos", "sin") else v for k, v in t.items()}
        some = run(ops, part, rotary=True)
        assert torch.equal(some[0], whole[0][first:last])
        assert torch.equal(some[1], whole[1][first:last])


def test_many_rows_are_summed_in_slices(ops):
    t = draw(700, 16, 1, 8, BFLOAT16)
    check(ops, t)


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16])
def test_inputs_that_are_not_contiguous_or_not_aligned(ops, dtype):
    t = draw(11, 24, 2, 8, dtype)
    expected = run(ops, t, rotary=True)
    turned = {k: v.t().contiguous().t() if torch.is_tensor(v) and v.dim() == 2 else v for k, v in t.items()}
    turned["weights"] = [w.t().contiguous().t() for w in t["weights"]]
    turned["grad"] = t["grad"].transpose(1, 2).contiguous().transpose(1, 2)
    for a, b in zip(run(ops, turned, rotary=True), expected, strict=True):
        assert torch.equal(a, b)

    def shifted(value):
        buffer = torch.full((value.numel() + 1,), torch.nan, dtype=dtype)
        buffer[1:] = value.flatten()
        return buffer[1:].view(value.shape)

    check(ops, t | {"x": shifted(t["x"])})
    check(ops, t | {"weights": [t["weights"][0], shifted(t["weights"][1]), t["weights"][2]]})


def test_the_order_of_threads_changes_no_bit(ops, monkeypatch):
    for dtype in (BFLOAT16, FLOAT32):
        t = draw(70, 72, 2, 16, dtype)
        first = run(ops, t, rotary=True)
        for seed in range(1, 4):
            monkeypatch.setenv(SEED_VARIABLE, str(seed))
            for a, b in zip(run(ops, t, rotary=True), first, strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(4, 16).double()}, "x is of dtype float64; accepted: float32"),
        ({"x": torch.ones(4)}, r"x has shape \[4\]; accepted: 2 dimensions"),
        ({"weight_k": torch.ones(15, 16)}, r"weight_k has shape \[15, 16\]; accepted: \[16, 16\]"),
        ({"weight_v": None}, "weight_k and weight_v are not both given"),
        ({"bias_v": None}, "bias does not come in the form of weight"),
        ({"bias_k": torch.ones(16).half()}, "bias_k is of dtype float16; accepted: float32"),
        ({"num_heads": 5}, "num_heads is 5; accepted: a number that divides the 16 rows"),
        ({"sin": None}, "cos and sin are not both given"),
        ({"cos": torch.ones(4, 3)}, r"cos has shape \[4, 3\]; accepted: \[4, 4\]"),
    ],
)
def test_refusals_name_argument_value_and_remedy(ops, change, message):
    given = {name: torch.ones(16, 16) for name in ("weight", "weight_k", "weight_v")}
    given |= {name: torch.ones(16) for name in ("bias", "bias_k", "bias_v")}
    given |= {"x": torch.ones(4, 16), "num_heads": 2, "cos": torch.ones(4, 4), "sin": torch.ones(4, 4)}
    with pytest.raises(RuntimeError, match=f"^qkv_projection: {message}"):
        ops.qkv_projection(**(given | change))
