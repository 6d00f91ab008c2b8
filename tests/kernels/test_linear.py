"""linear's CUDA kernels, forward and backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from compare import assert_as_accurate
from kernels.emulated import SEED_VARIABLE
from sentcore.ops.linear.reference import linear, linear_backward

FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
DTYPES = [FLOAT32, BFLOAT16, FLOAT16]
pytestmark = pytest.mark.usefixtures("kernels")
ACTIVATIONS = ["none", "relu", "gelu", "gelu_tanh", "geglu", "swiglu"]
# T, K, R: nothing, one, tiles and their tails, sizes that are no packs.
SIZES = [(0, 8, 16), (1, 8, 8), (17, 64, 40), (130, 136, 264), (5, 384, 136), (3, 31, 10), (66, 9, 66)]


def draw(tokens, depth, rows, dtype, activation="none"):
    generator = torch.Generator().manual_seed(tokens + depth + rows)

    def normal(*shape, scale=1.0):
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype)

    width = rows // 2 if activation in ("geglu", "swiglu") else rows
    return {
        "x": normal(tokens, depth),
        "weight": normal(rows, depth, scale=depth**-0.5),
        "bias": normal(rows),
        "grad": normal(tokens, width),
    }


def forward(ops, t, activation, save=True):
    return ops.linear(t["x"], t["weight"], t["bias"], activation, save)


def backward(ops, t, pre, activation):
    return ops.linear_backward(t["grad"], t["x"], t["weight"], pre, t["bias"] is not None, activation)


def check(ops, t, activation="none"):
    wide = {k: v if v is None else v.double() for k, v in t.items()}
    out, pre = forward(ops, t, activation)
    plain, exact = (linear(s["x"], s["weight"], s["bias"], activation=activation) for s in (t, wide))
    assert out.dtype == t["x"].dtype
    assert_as_accurate(out, plain, exact, "out")
    if activation != "none":
        plain, exact = (F.linear(s["x"], s["weight"], s["bias"]) for s in (t, wide))
        assert_as_accurate(pre, plain, exact, "pre")
    ours = backward(ops, t, pre, activation)
    # The backward starts from what the forward saved, so it is measured from there.
    plain, exact = (
        linear_backward(s["grad"], s["x"], s["weight"], pre.to(s["x"].dtype), activation) for s in (t, wide)
    )
    for name, a, b, c in zip(("grad_x", "grad_weight", "grad_bias"), ours, plain, exact, strict=True):
        empty = name == "grad_bias" and t["bias"] is None
        assert_as_accurate(a, b[:0] if empty else b, c[:0] if empty else c, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_size(ops, dtype, sizes):
    check(ops, draw(*sizes, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
@pytest.mark.parametrize("sizes", [(17, 16, 32), (6, 40, 208), (3, 7, 6)], ids=str)
def test_activations(ops, dtype, activation, sizes):
    check(ops, draw(*sizes, dtype, activation), activation)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_without_a_bias(ops, dtype):
    check(ops, draw(9, 24, 16, dtype) | {"bias": None})


@pytest.mark.parametrize("activation", ["none", "gelu", "geglu"])
def test_without_saving_nothing_but_out_comes_back(ops, activation):
    t = draw(9, 24, 32, BFLOAT16, activation)
    out, pre = forward(ops, t, activation, save=False)
    assert torch.equal(out, forward(ops, t, activation)[0])
    assert pre.shape == (0, 32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_a_row_has_the_same_bits_in_any_batch(ops, dtype, activation):
    t = draw(150, 40, 48, dtype, activation)
    out, pre = forward(ops, t, activation)
    grad_x = backward(ops, t, pre, activation)[0]
    for first, last in ((0, 1), (3, 20), (20, 150)):
        part = {k: v[first:last] if k in ("x", "grad") else v for k, v in t.items()}
        some, some_pre = forward(ops, part, activation)
        assert torch.equal(some, out[first:last])
        assert torch.equal(backward(ops, part, some_pre, activation)[0], grad_x[first:last])


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_many_rows_are_summed_in_slices(ops, dtype):
    check(ops, draw(700, 16, 24, dtype))


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_inputs_that_are_not_contiguous_or_not_aligned(ops, dtype):
    t = draw(11, 24, 16, dtype, "gelu")
    out, pre = forward(ops, t, "gelu")
    expected = (out, pre, *backward(ops, t, pre, "gelu"))
    turned = {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in t.items()}
    found = (*forward(ops, turned, "gelu"), *backward(ops, turned, pre.t().contiguous().t(), "gelu"))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    for name in ("x", "weight", "bias", "grad"):
        buffer = torch.full((t[name].numel() + 1,), torch.nan, dtype=dtype)
        buffer[1:] = t[name].flatten()
        check(ops, t | {name: buffer[1:].view(t[name].shape)}, "gelu")


def test_the_order_of_threads_changes_no_bit(ops, monkeypatch):
    for dtype in (BFLOAT16, FLOAT32):
        t = draw(70, 72, 40, dtype, "geglu")

        def everything(t=t):
            out, pre = forward(ops, t, "geglu")
            return out, pre, *backward(ops, t, pre, "geglu")

        first = everything()
        for seed in range(1, 4):
            monkeypatch.setenv(SEED_VARIABLE, str(seed))
            for a, b in zip(everything(), first, strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(4, 8).double()}, "x is of dtype float64; accepted: float32"),
        ({"weight": torch.ones(6, 7)}, r"weight has shape \[6, 7\]; accepted: \[6, 8\]"),
        ({"weight": torch.ones(6, 8).half()}, "weight is of dtype float16; accepted: float32"),
        ({"bias": torch.ones(5)}, r"bias has shape \[5\]; accepted: \[6\]"),
        ({"activation": "mish"}, "activation is 'mish'; accepted: none, relu"),
        ({"weight": torch.ones(5, 8), "bias": None, "activation": "geglu"}, r"weight has shape \[5, 8\]; accepted"),
    ],
)
def test_refusals_name_argument_value_and_remedy(ops, change, message):
    given = {"x": torch.ones(4, 8), "weight": torch.ones(6, 8), "bias": torch.ones(6), "activation": "gelu"}
    with pytest.raises(RuntimeError, match=f"^linear: {message}"):
        ops.linear(**(given | change | {"save_for_backward": False}))
