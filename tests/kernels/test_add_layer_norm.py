"""add_layer_norm's CUDA kernels, forward and backward, on the emulated GPU."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from kernels.emulated import SEED_VARIABLE
from sentcore.ops.add_layer_norm.reference import add_layer_norm_backward, add_layer_norm_forward

EPS = 1e-5
SEED = torch.tensor([123456789012345678, 987654321])
FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
DTYPES = [FLOAT32, BFLOAT16, FLOAT16]
FORWARD = ("out", "total", "mean", "rstd")
BACKWARD = ("grad_x", "grad_residual", "grad_weight", "grad_norm_bias", "grad_x_bias")
ALL = {"residual", "norm_bias", "x_bias", "grad_total"}
# T and H: nothing, one, odd, whole packs in a warp's registers (two sizes), not quite a warp's, a block's in packs and odd.
SHAPES = [
    (0, 8),
    (1, 1),
    (2, 3),
    (17, 8),
    (65, 33),
    (17, 384),
    (2, 1000),
    (5, 1024),
    (2, 2048),
    (2, 4099),
]


def draw(tokens, hidden, dtype, weight_dtype=None, given=ALL):
    """x, residual, weight, norm_bias, x_bias, grad_out and grad_total; those not in `given` are None."""
    generator = torch.Generator().manual_seed(tokens * 10007 + hidden)

    def normal(*shape, dtype=dtype):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weight_dtype = weight_dtype or dtype
    tensors = {
        "x": normal(tokens, hidden),
        "residual": normal(tokens, hidden) * 2 + 1,
        "weight": normal(hidden, dtype=weight_dtype) + 1,
        "norm_bias": normal(hidden, dtype=weight_dtype),
        "x_bias": normal(hidden, dtype=weight_dtype),
        "grad_out": normal(tokens, hidden),
        "grad_total": normal(tokens, hidden),
    }
    return {k: v if k in given | {"x", "weight", "grad_out"} else None for k, v in tensors.items()}


def forward(ops, t, dropout_p=0.0):
    results = ops.add_layer_norm(
        t["x"], t["residual"], t["weight"], t["norm_bias"], t["x_bias"], dropout_p, SEED, EPS, True
    )
    return dict(zip(FORWARD, results, strict=True))


def backward(ops, t, saved, dropout_p=0.0):
    results = ops.add_layer_norm_backward(
        t["grad_out"],
        t["grad_total"],
        saved["total"],
        saved["mean"],
        saved["rstd"],
        t["weight"],
        t["norm_bias"] is not None,
        t["x_bias"] is not None,
        dropout_p,
        SEED,
    )
    return dict(zip(BACKWARD, results, strict=True))


def both(ops, tensors, dropout_p=0.0):
    results = forward(ops, tensors, dropout_p)
    return results | backward(ops, tensors, results, dropout_p)


def reference_forward(t, dropout_p):
    """The definition, in the tensors' own dtype."""
    results = add_layer_norm_forward(
        t["x"], t["residual"], t["weight"], t["norm_bias"], t["x_bias"], dropout_p, SEED, EPS
    )
    return dict(zip(FORWARD, results, strict=True))


def reference_backward(t, saved, dropout_p):
    results = add_layer_norm_backward(
        t["grad_out"],
        t["grad_total"],
        saved["total"],
        saved["mean"],
        saved["rstd"],
        t["weight"],
        dropout_p,
        SEED,
    )
    results = dict(zip(BACKWARD, results, strict=True))
    empty = {"grad_x": dropout_p == 0.0} | {f"grad_{bias}": t[bias] is None for bias in ("norm_bias", "x_bias")}
    return {k: v[:0] if empty.get(k) else v for k, v in results.items()}


def double(tensors):
    return {k: v if v is None else v.double() for k, v in tensors.items()}


def check(ops, tensors, dropout_p=0.0):
    ours = forward(ops, tensors, dropout_p)
    plain = reference_forward(tensors, dropout_p)
    exact = reference_forward(double(tensors), dropout_p)
    # The statistics are those of the total that was saved, whichever way its last bit was rounded.
    total = ours["total"]
    for wide, results in ((total.float(), plain), (total.double(), exact)):
        results["mean"] = wide.mean(1)
        centered = wide - results["mean"][:, None]
        results["rstd"] = (centered.square().mean(1) + EPS).rsqrt()
    compare(ours, plain, exact)

    plain = reference_backward(tensors, ours, dropout_p)
    exact = reference_backward(double(tensors), double(ours), dropout_p)
    compare(backward(ops, tensors, ours, dropout_p), plain, exact)


def compare(ours, plain, exact):
    for name, value in exact.items():
        assert ours[name].dtype == plain[name].dtype, name
        assert_as_accurate(ours[name], plain[name], value, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "hidden"), SHAPES)
def test_every_size(ops, dtype, tokens, hidden):
    check(ops, draw(tokens, hidden, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "hidden"), [(3, 7), (2, 24), (17, 384), (1, 1033), (1, 1536)])
def test_dropout_draws_the_mask_of_the_definition(ops, dtype, tokens, hidden):
    check(ops, draw(tokens, hidden, dtype), dropout_p=0.3)


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
@pytest.mark.parametrize(("tokens", "hidden"), [(3, 33), (9, 768), (2, 1104)])
def test_float32_parameters(ops, dtype, tokens, hidden):
    tensors = draw(tokens, hidden, dtype, FLOAT32)
    check(ops, tensors)


@pytest.mark.parametrize("absent", [*sorted(ALL), "all"])
@pytest.mark.parametrize("hidden", [5, 64, 1040])
def test_optional_tensors(ops, absent, hidden):
    given = set() if absent == "all" else ALL - {absent}
    check(ops, draw(3, hidden, FLOAT32, given=given))
    check(ops, draw(3, hidden, BFLOAT16, given=given), dropout_p=0.2)


@pytest.mark.parametrize("hidden", [3, 8])
def test_more_rows_than_blocks(ops, hidden):
    # 264 groups of 8 rows in the backward, 1056 blocks in the forward.
    check(ops, draw(2113 if hidden == 8 else 1059, hidden, FLOAT32))


# The longest row that is kept in shared memory, beside what the block's sums take there, and a longer one.
@pytest.mark.parametrize("hidden", [12288, 13001])
def test_rows_that_fill_shared_memory_or_outgrow_it(ops, hidden):
    check(ops, draw(1, hidden, BFLOAT16))


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_inputs_that_are_not_contiguous_or_not_aligned(ops, dtype):
    tensors = draw(6, 40, dtype)
    expected = both(ops, tensors)

    def strided(value):
        wide = torch.full((*value.shape, 2), torch.nan, dtype=dtype)
        wide[..., 0] = value
        return wide[..., 0]

    def shifted(value):
        buffer = torch.full((value.numel() + 1,), torch.nan, dtype=dtype)
        buffer[1:] = value.flatten()
        return buffer[1:].view(value.shape)

    turned = both(ops, {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in tensors.items()})
    assert_same(both(ops, {k: strided(v) for k, v in tensors.items()}), expected)
    assert_same(turned, expected)
    for name in tensors:
        check(ops, tensors | {name: shifted(tensors[name])})


def assert_same(left, right):
    for name, value in right.items():
        assert torch.equal(left[name], value), name


@pytest.mark.parametrize(("tokens", "hidden"), [(17, 33), (9, 384), (3, 1032)])
def test_the_order_of_threads_changes_no_bit(ops, monkeypatch, tokens, hidden):
    tensors = draw(tokens, hidden, BFLOAT16)
    first = both(ops, tensors, 0.1)
    for seed in range(1, 9):
        monkeypatch.setenv(SEED_VARIABLE, str(seed))
        assert_same(both(ops, tensors, 0.1), first)


def test_without_saving_nothing_but_out_comes_back(ops):
    t = draw(5, 24, BFLOAT16)
    arguments = (t["x"], t["residual"], t["weight"], t["norm_bias"], t["x_bias"], 0.0, None, EPS)
    out, total, mean, rstd = ops.add_layer_norm(*arguments, False)
    assert torch.equal(out, ops.add_layer_norm(*arguments, True)[0])
    assert (total.shape, mean.shape, rstd.shape) == ((0, 24), (0,), (0,))


def test_no_rows_give_zero_parameter_gradients(ops):
    results = both(ops, draw(0, 40, FLOAT16))
    for name in BACKWARD[2:]:
        assert torch.equal(results[name], torch.zeros(40, dtype=FLOAT16)), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x": torch.ones(4, 8, dtype=torch.float64)},
            r"x is of dtype float64; accepted: float32, bf.*\.float\(\)",
        ),
        ({"x": torch.ones(4)}, r"x has shape \[4\]; accepted: 2 dimensions, \[T, H\]"),
        ({"x": torch.ones(4, 0)}, r"x has shape \[4, 0\]; accepted: \[T, H\] with H of at least 1"),
        ({"residual": torch.ones(3, 8)}, r"residual has shape \[3, 8\]; accepted: \[4, 8\]"),
        ({"residual": torch.ones(4, 8).half()}, r"residual is of dtype float16; accepted: float32"),
        ({"weight": torch.ones(7)}, r"weight has shape \[7\]; accepted: \[8\]"),
        (
            {"weight": torch.ones(8).half()},
            r"weight is of dtype float16; accepted: float32\. Convert",
        ),
        (
            {"norm_bias": torch.ones(8).bfloat16()},
            r"norm_bias is of dtype bfloat16; accepted: float32",
        ),
        ({"x_bias": torch.ones(8, 1)}, r"x_bias has shape \[8, 1\]; accepted: \[8\]"),
        ({"dropout_p": 1.0}, r"dropout_p is 1\.0+; accepted: a probability in \[0, 1\)"),
        ({"seed": None, "dropout_p": 0.5}, r"seed is None; accepted with dropout_p > 0: an int64"),
        ({"seed": torch.ones(2), "dropout_p": 0.5}, r"seed is of dtype float32; accepted: int64"),
    ],
)
def test_refusals_name_argument_value_and_remedy(ops, change, message):
    given = {
        "x": torch.ones(4, 8),
        "residual": None,
        "weight": torch.ones(8),
        "norm_bias": None,
        "x_bias": None,
        "dropout_p": 0.0,
        "seed": SEED,
        "eps": EPS,
        "save_for_backward": True,
    }
    with pytest.raises(RuntimeError, match=f"^add_layer_norm: {message}"):
        ops.add_layer_norm(**(given | change))


def test_backward_refuses_what_the_forward_did_not_save(ops):
    t = both(ops, draw(4, 8, BFLOAT16))
    good = [
        t["out"],
        None,
        t["total"],
        t["mean"],
        t["rstd"],
        torch.ones(8).bfloat16(),
        True,
        True,
        0.0,
        None,
    ]
    for position, value, message in [
        (0, t["out"][:2], r"grad_out has shape \[2, 8\]; accepted: \[4, 8\]"),
        (1, t["out"].float(), "grad_total is of dtype float32; accepted: bfloat16"),
        (3, t["mean"].half(), "mean is of dtype float16; accepted: float32"),
        (4, t["rstd"][:0], r"rstd has shape \[0\]; accepted: \[4\]"),
    ]:
        with pytest.raises(RuntimeError, match=f"^add_layer_norm_backward: {message}"):
            ops.add_layer_norm_backward(*good[:position], value, *good[position + 1 :])
