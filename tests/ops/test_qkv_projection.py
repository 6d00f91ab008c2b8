"""qkv_projection: definition, gradients, and what torch asks of an op."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from called_ops import called_ops
from sentcore import ops
from sentcore.errors import ArgumentTypeError, ArgumentValueError


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def parts(hidden=8, rows=12, dtype=torch.float64):
    weights = [draw(rows, hidden, seed=s, dtype=dtype) for s in (1, 2, 3)]
    return weights, [draw(rows, seed=s, dtype=dtype) for s in (4, 5, 6)]


def angles(tokens, size):
    angle = draw(tokens, size // 2, seed=9)
    return angle.cos(), angle.sin()


@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_three_weights_one_weight_and_three_linears_agree(tokens):
    x, (weights, biases) = draw(tokens, 8), parts()
    expected = torch.stack([F.linear(x, w, b).view(tokens, 2, 6) for w, b in zip(weights, biases, strict=True)], 1)
    for room in (ops, ops.reference):
        torch.testing.assert_close(room.qkv_projection(x, weights, biases, num_heads=2), expected)
        fused = room.qkv_projection(x, torch.cat(weights), torch.cat(biases), num_heads=2)
        torch.testing.assert_close(fused, expected)
    without = ops.qkv_projection(x, weights, None, num_heads=2)
    torch.testing.assert_close(without + torch.stack(biases).view(3, 2, 6), expected)


def test_rotary_turns_queries_and_keys_by_the_angle():
    x, (weights, biases) = draw(3, 8), parts()
    cos, sin = angles(3, 6)
    plain = ops.qkv_projection(x, weights, biases, num_heads=2)
    turned = ops.qkv_projection(x, weights, biases, num_heads=2, rotary=(cos, sin))
    as_complex = torch.complex(plain[..., :3], plain[..., 3:]) * torch.complex(cos, sin)[:, None, None]
    torch.testing.assert_close(turned[:, :2, :, :3], as_complex.real[:, :2])
    torch.testing.assert_close(turned[:, :2, :, 3:], as_complex.imag[:, :2])
    assert torch.equal(turned[:, 2], plain[:, 2])


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_gradcheck(rotary, fused):
    x, (weights, biases) = draw(4, 8).requires_grad_(), parts()
    table = angles(4, 6) if rotary else None
    if fused:
        weights, biases = [torch.cat(weights)], [torch.cat(biases)]
    leaves = [t.requires_grad_() for t in (*weights, *biases)]

    def function(x, *leaves):
        half = len(leaves) // 2
        weight, bias = (leaves[0], leaves[1]) if fused else (leaves[:half], leaves[half:])
        return ops.qkv_projection(x, weight, bias, num_heads=2, rotary=table)

    assert torch.autograd.gradcheck(function, (x, *leaves))


def test_opcheck_and_compile():
    x, (weights, biases) = draw(4, 8, dtype=torch.float32).requires_grad_(), parts(dtype=torch.float32)
    leaves = [t.requires_grad_() for t in (*weights, *biases)]
    op = torch.ops.sentcore.qkv_projection.default
    torch.library.opcheck(op, (x, *leaves, 2, None, None))
    torch.library.opcheck(op, (x, leaves[0], None, None, leaves[3], None, None, 2, None, None))
    function = torch.compile(lambda x: ops.qkv_projection(x, weights, biases, num_heads=2), fullgraph=True)
    torch.testing.assert_close(function(x), ops.reference.qkv_projection(x, weights, biases, num_heads=2))


def test_wrong_arguments_are_named():
    x, (weights, biases) = draw(4, 8), parts()
    with pytest.raises(ArgumentValueError, match="num_heads is 5"):
        ops.qkv_projection(x, weights, biases, num_heads=5)
    with pytest.raises(ArgumentTypeError, match="weight is of type list"):
        ops.qkv_projection(x, weights[:2], biases, num_heads=2)
    with pytest.raises(ArgumentValueError, match="different forms"):
        ops.qkv_projection(x, weights, torch.cat(biases), num_heads=2)
    with pytest.raises(ArgumentValueError, match=r"weight has shape \[12, 7\]; accepted: \[12, 8\]"):
        ops.qkv_projection(x, [weights[0], weights[1][:, :7], weights[2]], biases, num_heads=2)
    with pytest.raises(ArgumentValueError, match=r"rotary cos has shape \[3, 3\]; accepted: \[4, 3\]"):
        ops.qkv_projection(x, weights, biases, num_heads=2, rotary=angles(3, 6))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
def test_frozen_weights_have_no_gradient_computed(fused, rotary):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    weights = tuple(torch.randn(8, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    angles = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    options = {"num_heads": 2, "rotary": (angles.cos(), angles.sin()) if rotary else None}
    gradients = []
    for wanted in (False, True):
        leaves = [w.clone().requires_grad_(wanted) for w in weights]
        given = x.clone().requires_grad_()
        with called_ops() as called:
            ops.qkv_projection(given, torch.cat(leaves) if fused else tuple(leaves), None, **options).sum().backward()
        assert ("qkv_projection_backward" in called) is wanted
        gradients.append(given.grad)
    torch.testing.assert_close(*gradients)
