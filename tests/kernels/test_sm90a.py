"""What the kernels of compute capability 9.0 add to the tests of their ops: tiles, rings, long sentences, the choice."""

from __future__ import annotations

import pytest
import torch

from kernels.device import chosen
from kernels.emulated import SEED_VARIABLE
from kernels.test_fp8_linear import check as check_fp8
from kernels.test_fp8_linear import draw as draw_fp8
from kernels.test_linear import backward, draw, forward
from kernels.test_linear import check as check_linear
from kernels.test_qkv_projection import check as check_qkv
from kernels.test_qkv_projection import draw as draw_qkv
from kernels.test_qkv_projection import run as run_qkv
from kernels.test_varlen_attention import Case, check_backward, check_forward

BFLOAT16, FLOAT16 = torch.bfloat16, torch.float16
HALVES = [BFLOAT16, FLOAT16]


@pytest.fixture(autouse=True)
def _sm90a(ops):
    with chosen(ops, "sm_90a"):
        yield


# T, K, R: several tiles a block and rings that turn, with 128 and 192 columns to a tile; a tail in every dimension.
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("sizes", "activation"),
    [
        ((390, 328, 200), "none"),
        ((260, 392, 384), "gelu"),
        ((140, 200, 448), "gelu_tanh"),
        ((260, 136, 384), "geglu"),
        ((140, 72, 384), "swiglu"),
    ],
    ids=str,
)
def test_products_of_many_tiles(ops, dtype, sizes, activation):
    check_linear(ops, draw(*sizes, dtype, activation), activation)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("sizes", "activation"),
    [
        ((0, 16, 16), "none"),
        ((1, 8, 8), "none"),
        ((270, 700, 200), "none"),
        ((140, 136, 384), "gelu"),
        ((130, 31, 136), "gelu_tanh"),
        ((130, 264, 256), "geglu"),
        ((17, 520, 128), "swiglu"),
        ((17, 40, 136), "geglu"),  # halves that no box divides
        ((17, 40, 24), "relu"),
    ],
    ids=str,
)
def test_products_of_e4m3(ops, dtype, sizes, activation):
    t = draw_fp8(*sizes, dtype)
    check_fp8(ops, t, activation)
    check_fp8(ops, t | {"bias": None}, activation)


def test_rows_of_e4m3_do_not_depend_on_the_batch(ops):
    t = draw_fp8(150, 200, 136, BFLOAT16)
    t["x"][7] = torch.nan
    out = ops.fp8_linear(t["x"], *t["weight"], t["bias"], "gelu")
    assert out[7].isnan().all() and not out[:7].isnan().any() and not out[8:].isnan().any()
    for first, last in ((0, 1), (3, 7), (20, 150)):
        assert torch.equal(ops.fp8_linear(t["x"][first:last], *t["weight"], t["bias"], "gelu"), out[first:last])


def test_weight_gradients_of_many_slices(ops):
    check_linear(ops, draw(1500, 136, 72, BFLOAT16))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [16, 32, 64])
def test_three_weights_in_tiles_that_lie_across_them(ops, dtype, size):
    # Parts of 64, 128 and 320 rows: a tile of 192 columns takes boxes of two or three of them.
    t = draw_qkv(140, 72, {16: 4, 32: 4, 64: 5}[size], size, dtype)
    check_qkv(ops, t)
    check_qkv(ops, t, rotary=True)


def test_parts_that_no_box_divides_go_to_the_portable_kernel(ops):
    t = draw_qkv(20, 40, 3, 16, BFLOAT16)  # parts of 48 rows
    check_qkv(ops, t)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1], [1, 1, 1], [128], [17, 0, 65, 1, 2, 64, 200], [300, 1, 129]])
def test_attention_of_every_length(ops, dtype, size, lengths):
    case = Case(dtype, lengths, size=size)
    check_backward(ops, case, *check_forward(ops, case))


@pytest.mark.parametrize(("dtype", "size"), [(BFLOAT16, 64), (FLOAT16, 128)])
def test_attention_of_many_tiles(ops, dtype, size):
    check_forward(ops, Case(dtype, [700, 130, 512], heads=1, size=size))


@pytest.mark.parametrize(("queries", "keys"), [([1, 2], [200, 70]), ([130, 1], [1, 9]), ([0, 4], [3, 0]), ([5], [0])])
def test_cross_attention(ops, queries, keys):
    case = Case(BFLOAT16, queries, keys, size=64)
    check_backward(ops, case, *check_forward(ops, case))


@pytest.mark.parametrize("options", [{"scale": 0.3}, {"scale": -0.3}, {"causal": True}], ids=str)
def test_options_that_it_has_and_has_not(ops, options):
    check_forward(ops, Case(BFLOAT16, [70, 9], size=64, **options))


@pytest.mark.parametrize("size", [64, 128])
def test_a_sentence_with_nan_leaves_its_neighbours_alone(ops, size):
    case = Case(BFLOAT16, [70, 3, 140], size=size)
    expected, _ = case.forward(ops)
    case.q[70:73] = torch.nan
    out, lse = case.forward(ops)
    assert out[70:73].isnan().all() and lse[70:73].isnan().all()
    assert torch.equal(out[:70], expected[:70]) and torch.equal(out[73:], expected[73:])


def test_a_row_does_not_depend_on_the_batch(ops):
    case = Case(BFLOAT16, [300, 5, 130], size=64)
    out, lse = case.forward(ops)
    alone = Case(BFLOAT16, [130], size=64)
    alone.q = case.q[305:].clone()
    some, some_lse = alone.forward(ops)
    assert torch.equal(some, out[305:]) and torch.equal(some_lse, lse[305:])


def test_the_order_of_threads_changes_no_bit(ops, monkeypatch):
    case, t = Case(BFLOAT16, [300, 5], heads=3, size=64), draw(260, 200, 136, BFLOAT16, "geglu")
    turned = draw_qkv(140, 72, 4, 16, BFLOAT16)

    def everything():
        out, pre = forward(ops, t, "geglu")
        return (*case.forward(ops), out, pre, *backward(ops, t, pre, "geglu"), *run_qkv(ops, turned, rotary=True))

    first = everything()
    for seed in range(1, 6):
        monkeypatch.setenv(SEED_VARIABLE, str(seed))
        for a, b in zip(everything(), first, strict=True):
            assert torch.equal(a, b)


def test_a_measured_choice_goes_by_the_sentence_alone(ops):
    if ops.library is None:
        pytest.skip("the installed extension has its own table")
    attention, bfloat16 = 3, 2
    ops.library.sentcore_add_kernel_choice(attention, bfloat16, 128, 100)
    case = Case(BFLOAT16, [99, 150, 100, 3], heads=1, size=128)
    found = {}
    for mode in ("portable", "measured", "sm_90a"):
        with chosen(ops, mode):
            found[mode] = case.forward(ops)
    for which in range(2):
        portable, measured, own = (found[mode][which] for mode in ("portable", "measured", "sm_90a"))
        assert torch.equal(measured[:99], portable[:99]) and torch.equal(measured[349:], portable[349:])
        assert torch.equal(measured[99:349], own[99:349])
        assert not torch.equal(own, portable)  # else nothing is shown
