"""linear_add_layer_norm's CUDA kernel, which compute capability 9.0 alone has."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from kernels.device import chosen
from kernels.emulated import SEED_VARIABLE
from sentcore.ops.linear_add_layer_norm.reference import WIDTH, linear_add_layer_norm

BFLOAT16, FLOAT16 = torch.bfloat16, torch.float16
HALVES = [BFLOAT16, FLOAT16]
NAMES = ("x", "weight", "bias", "residual", "norm_weight", "norm_bias")
EPS = 1e-12


@pytest.fixture(autouse=True)
def _sm90a(ops):
    with chosen(ops, "sm_90a"):
        yield


def draw(tokens, depth, dtype):
    generator = torch.Generator().manual_seed(tokens + depth)

    def normal(*shape, scale=1.0, shift=0.0):
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale + shift).to(dtype)

    return {
        "x": normal(tokens, depth),
        "weight": normal(WIDTH, depth, scale=depth**-0.5),
        "bias": normal(WIDTH),
        "residual": normal(tokens, WIDTH, shift=0.5),
        "norm_weight": normal(WIDTH, scale=0.2, shift=1.0),
        "norm_bias": normal(WIDTH),
    }


def run(ops, t, eps=EPS):
    return ops.linear_add_layer_norm(*(t[name] for name in NAMES), eps)


def check(ops, t, eps=EPS):
    wide = {k: None if v is None else v.double() for k, v in t.items()}
    plain, exact = (linear_add_layer_norm(*(s[name] for name in NAMES), eps=eps) for s in (t, wide))
    assert_as_accurate(run(ops, t, eps), plain, exact, "out")


# T: nothing, one, a tail, several tiles a block. K: less than a step, a tail, more than the ring holds.
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("sizes", [(0, 64), (1, 8), (17, 40), (130, 384), (64, 264), (650, 136)], ids=str)
def test_every_size(ops, dtype, sizes):
    check(ops, draw(*sizes, dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_without_biases(ops, dtype):
    check(ops, draw(9, 72, dtype) | {"bias": None, "norm_bias": None}, eps=1e-5)


def test_rows_far_from_zero_keep_their_variance(ops):
    t = draw(70, 64, FLOAT16)
    t["residual"] += 300
    check(ops, t)


def test_a_row_of_one_value_is_the_norms_bias(ops):
    t = draw(3, 16, BFLOAT16) | {"bias": None}
    t["x"].zero_()
    t["residual"].fill_(2.0)
    assert torch.equal(run(ops, t), t["norm_bias"].expand(3, WIDTH))


def test_a_row_has_the_same_bits_in_any_batch_and_nan_stays_in_its_row(ops):
    t = draw(300, 72, BFLOAT16)
    t["x"][20] = torch.nan
    out = run(ops, t)
    assert out[20].isnan().all() and not out[:20].isnan().any() and not out[21:].isnan().any()
    for first, last in ((0, 1), (3, 20), (21, 300)):
        part = t | {"x": t["x"][first:last], "residual": t["residual"][first:last]}
        assert torch.equal(run(ops, part), out[first:last])


def test_the_order_of_threads_changes_no_bit(ops, monkeypatch):
    t = draw(450, 264, BFLOAT16)
    first = run(ops, t)
    for seed in range(1, 6):
        monkeypatch.setenv(SEED_VARIABLE, str(seed))
        assert torch.equal(run(ops, t), first)


def test_inputs_that_are_not_contiguous_or_not_aligned(ops):
    t = draw(11, 24, BFLOAT16)
    expected = run(ops, t)
    for name in NAMES:
        value = t[name]
        buffer = torch.full((value.numel() + 1,), torch.nan, dtype=BFLOAT16)
        buffer[1:] = value.flatten()
        assert torch.equal(run(ops, t | {name: buffer[1:].view(value.shape)}), expected)
        if value.dim() == 2:
            assert torch.equal(run(ops, t | {name: value.t().contiguous().t()}), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(5, 64)}, r"x is of dtype float32; accepted: bfloat16, float16.*Use linear"),
        ({"x": torch.ones(5, 63).bfloat16(), "weight": torch.ones(384, 63).bfloat16()}, r"K a multiple of 8"),
        ({"weight": torch.ones(768, 64).bfloat16()}, r"weight has shape \[768, 64\]; accepted: \[384, 64\]"),
        ({"residual": torch.ones(4, 384).bfloat16()}, r"residual has shape \[4, 384\]; accepted: \[5, 384\]"),
        ({"norm_weight": torch.ones(384)}, r"weight of the norm is of dtype float32; accepted: bfloat16"),
        ({"bias": torch.ones(383).bfloat16()}, r"bias has shape \[383\]; accepted: \[384\]"),
    ],
)
def test_refusals_name_argument_value_and_remedy(ops, change, message):
    with pytest.raises(RuntimeError, match=message):
        run(ops, draw(5, 64, BFLOAT16) | change)
