"""add_layer_norm: its definition, its kernels on this machine, and what torch asks of an op."""

from __future__ import annotations

import pytest
import torch

from compare import assert_as_accurate
from sentcore import ops
from sentcore.errors import ArgumentTypeError, ArgumentValueError

SEED = torch.tensor([123456789012345, 987654321])
SHAPES = [(0, 8), (1, 1), (2, 3), (17, 33), (65, 384), (3, 4099)]


def tensors(tokens, hidden, dtype, *, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "x": draw(tokens, hidden),
        "residual": draw(tokens, hidden) * 3 + 1,
        "weight": draw(hidden) + 1,
        "norm_bias": draw(hidden),
        "x_bias": draw(hidden),
    }


def run(function, given, grad_out, grad_total, **options):
    leaves = {k: v.clone().requires_grad_() for k, v in given.items()}
    out, total = function(
        leaves["x"],
        leaves.get("residual"),
        leaves["weight"],
        leaves.get("norm_bias"),
        x_bias=leaves.get("x_bias"),
        eps=1e-5,
        return_total=True,
        **options,
    )
    torch.autograd.backward((out, total), (grad_out.to(out.dtype), grad_total.to(out.dtype)))
    return {"out": out, "total": total, **{f"grad {k}": v.grad for k, v in leaves.items()}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(("tokens", "hidden"), SHAPES)
@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("absent", [(), ("residual", "norm_bias", "x_bias")])
def test_forward_and_backward_are_as_accurate_as_plain_pytorch(dtype, tokens, hidden, dropout_p, absent):
    given = {k: v for k, v in tensors(tokens, hidden, dtype).items() if k not in absent}
    grad_out, grad_total = torch.randn(2, tokens, hidden, generator=torch.Generator().manual_seed(1)).to(dtype)
    options = {"dropout_p": dropout_p, "seed": SEED}
    ours = run(ops.add_layer_norm, given, grad_out, grad_total, **options)
    plain = run(ops.reference.add_layer_norm, given, grad_out, grad_total, **options)
    wide = {k: v.double() for k, v in given.items()}
    exact = run(ops.reference.add_layer_norm, wide, grad_out.double(), grad_total.double(), **options)
    for name, value in exact.items():
        assert ours[name].dtype == dtype
        assert_as_accurate(ours[name], plain[name], value, name)


def test_definition_is_the_formula():
    given = tensors(5, 7, torch.float64)
    total = given["residual"] + given["x"] + given["x_bias"]
    centered = total - total.mean(1, keepdim=True)
    expected = centered / (centered.pow(2).mean(1, keepdim=True) + 1e-5).sqrt() * given["weight"]
    out = ops.reference.add_layer_norm(**given, eps=1e-5)
    torch.testing.assert_close(out, expected + given["norm_bias"])


def test_float32_parameters_beside_bfloat16():
    given = tensors(9, 48, torch.float32)
    x, residual = given["x"].bfloat16(), given["residual"].bfloat16()
    out = ops.add_layer_norm(x, residual, given["weight"], given["norm_bias"], x_bias=given["x_bias"], eps=1e-5)
    exact = ops.reference.add_layer_norm(
        x.double(),
        residual.double(),
        given["weight"].double(),
        given["norm_bias"].double(),
        x_bias=given["x_bias"].double(),
        eps=1e-5,
    )
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), exact, rtol=2**-7, atol=2**-7)


def test_non_contiguous_input():
    given = tensors(12, 10, torch.float32)
    wide = torch.cat((given["x"], given["x"]), dim=1)
    strided, residual = wide[:, :10], given["residual"].t().contiguous().t()
    assert not strided.is_contiguous() and not residual.is_contiguous()
    out = ops.add_layer_norm(strided, residual, given["weight"], given["norm_bias"], eps=1e-5)
    same = ops.add_layer_norm(given["x"], given["residual"], given["weight"], given["norm_bias"], eps=1e-5)
    assert torch.equal(out, same)


def test_dropout_keeps_the_asked_share_and_scales_the_rest():
    keep = (
        ops.add_layer_norm(
            torch.ones(200, 500),
            None,
            torch.ones(500),
            None,
            dropout_p=0.25,
            seed=SEED,
            eps=1e-5,
            return_total=True,
        )[1]
        != 0
    )
    assert abs(keep.float().mean().item() - 0.75) < 0.01
    assert not torch.equal(keep[0], keep[1])


def test_dropout_follows_torchs_generator():
    x, weight = torch.ones(8, 16), torch.ones(16)

    def drop():
        return ops.add_layer_norm(x, None, weight, None, dropout_p=0.5, eps=1e-5, return_total=True)[1]

    torch.manual_seed(3)
    first, second = drop(), drop()
    torch.manual_seed(3)
    assert torch.equal(first, drop())
    assert not torch.equal(first, second)


def test_philox_matches_published_vectors():
    # Known answer of Philox4x32-10 for counter 0 and key 0 (Random123, kat_vectors).
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    from sentcore.ops.add_layer_norm.reference import keep_mask

    for p in (0.3, 0.5, 0.7, 0.9):
        expected = torch.tensor([[word >= int(p * 2**32) for word in words]])
        assert torch.equal(keep_mask((1, 4), p, torch.zeros(2, dtype=torch.int64)), expected)


@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
def test_gradcheck(dropout_p):
    given = {k: v.requires_grad_() for k, v in tensors(5, 6, torch.float64).items()}

    def function(x, residual, weight, norm_bias, x_bias):
        return ops.add_layer_norm(
            x,
            residual,
            weight,
            norm_bias,
            x_bias=x_bias,
            dropout_p=dropout_p,
            seed=SEED,
            eps=1e-5,
            return_total=True,
        )

    assert torch.autograd.gradcheck(function, tuple(given.values()))


@pytest.mark.parametrize("save", [True, False])
def test_opcheck(save):
    given = {k: v.requires_grad_(save) for k, v in tensors(5, 6, torch.float32).items()}
    torch.library.opcheck(torch.ops.sentcore.add_layer_norm.default, (*given.values(), 0.3, SEED, 1e-5, save))


def test_compiles_as_one_graph():
    given = tensors(5, 6, torch.float32)

    def function(x, residual, weight, norm_bias):
        return ops.add_layer_norm(x, residual, weight, norm_bias, eps=1e-5)

    arguments = [given[k].requires_grad_() for k in ("x", "residual", "weight", "norm_bias")]
    out = torch.compile(function, fullgraph=True)(*arguments)
    torch.testing.assert_close(out, function(*arguments))
    out.sum().backward()
    assert arguments[0].grad is not None


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"x": torch.ones(4, 6, dtype=torch.int64)}, ArgumentTypeError, "x has dtype torch.int64"),
        ({"x": [1.0]}, ArgumentTypeError, "x is"),
        ({"x": torch.ones(4)}, ArgumentValueError, r"x has shape \[4\]; accepted: \[T, H\]"),
        ({"residual": torch.ones(3, 6)}, ArgumentValueError, r"residual has shape \[3, 6\]"),
        ({"weight": torch.ones(5)}, ArgumentValueError, r"weight has shape \[5\]; accepted: \[6\]"),
        ({"weight": torch.ones(6).double()}, ArgumentTypeError, "weight has dtype torch.float64"),
        ({"norm_bias": torch.ones(6, device="meta")}, ArgumentValueError, "norm_bias is on meta"),
        ({"dropout_p": 1.0}, ArgumentValueError, "dropout_p is 1.0"),
        ({"dropout_p": 0.1, "seed": torch.ones(3).long()}, ArgumentValueError, "seed has shape"),
        ({"dropout_p": 0.1, "seed": torch.ones(2)}, ArgumentTypeError, "seed has dtype"),
    ],
)
def test_wrong_arguments_are_named(change, error, says):
    given = tensors(4, 6, torch.float32) | change
    x, residual, weight, norm_bias = (given.pop(k) for k in ("x", "residual", "weight", "norm_bias"))
    with pytest.raises(error, match=says):
        ops.add_layer_norm(x, residual, weight, norm_bias, eps=1e-5, **given)
