"""bias_gelu and bias_gelu_layer_norm: definitions, gradients, and what torch asks of an op."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from compare import assert_as_accurate
from sentcore import ops
from sentcore.errors import ArgumentTypeError, ArgumentValueError

SHAPES = [(0, 8), (1, 1), (17, 33), (65, 384)]


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def with_gradients(function, arguments, grad_out):
    leaves = [a.clone().requires_grad_() if torch.is_tensor(a) else a for a in arguments]
    out = function(*leaves)
    out.backward(grad_out.to(out.dtype))
    return [out, *(leaf.grad for leaf in leaves if torch.is_tensor(leaf))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(("tokens", "width"), SHAPES)
@pytest.mark.parametrize("name", ["erf", "tanh", "layer_norm"])
def test_as_accurate_as_plain_pytorch(dtype, tokens, width, name):
    arguments = [draw(tokens, width, dtype=dtype) * 2, draw(width, dtype=dtype, seed=1)]
    if name == "layer_norm":
        arguments += [draw(width, dtype=dtype, seed=2) + 1, draw(width, dtype=dtype, seed=3)]

    def function(room):
        if name == "layer_norm":
            return lambda *a: room.bias_gelu_layer_norm(*a, 1e-5)
        return lambda *a: room.bias_gelu(*a, approximate="tanh" if name == "tanh" else "none")

    grad_out = draw(tokens, width, dtype=dtype, seed=4)
    ours = with_gradients(function(ops), arguments, grad_out)
    plain = with_gradients(function(ops.reference), arguments, grad_out)
    exact = with_gradients(function(ops.reference), [a.double() for a in arguments], grad_out.double())
    for index, value in enumerate(exact):
        assert ours[index].dtype == dtype
        assert_as_accurate(ours[index], plain[index], value, f"result {index}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_accurate_wherever_x_is(dtype, approximate):
    borders = [-12, -6, -4, -2, -1, -0.1, -1e-3, 0, 1e-3, 0.1, 1, 3, 6, 12, 100]
    for low, high in pairwise(borders):
        x = torch.linspace(low, high, 3000, dtype=torch.float64).to(dtype).view(3, 1000)
        ours, plain, exact = (
            with_gradients(
                lambda x, room=room: room.bias_gelu(x, None, approximate=approximate), [value], torch.ones_like(value)
            )
            for room, value in ((ops, x), (ops.reference, x), (ops.reference, x.double()))
        )
        for index, what in enumerate(("gelu", "derivative")):
            assert_as_accurate(ours[index], plain[index], exact[index], f"{what} from {low} to {high}")


def test_definition_is_the_formula():
    x, bias = draw(4, 5), draw(5, seed=1)
    total = x + bias
    erf = 0.5 * total * (1 + torch.erf(total / math.sqrt(2)))
    torch.testing.assert_close(ops.reference.bias_gelu(x, bias), erf)
    tanh = 0.5 * total * (1 + torch.tanh(math.sqrt(2 / math.pi) * (total + 0.044715 * total**3)))
    torch.testing.assert_close(ops.reference.bias_gelu(x, bias, approximate="tanh"), tanh)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradcheck(approximate, with_bias):
    x, bias = draw(4, 5).requires_grad_(), draw(5, seed=1).requires_grad_() if with_bias else None

    def function(x, bias):
        return ops.bias_gelu(x, bias, approximate=approximate)

    assert torch.autograd.gradcheck(function, (x, bias))


def test_gradcheck_layer_norm():
    arguments = [a.requires_grad_() for a in (draw(4, 5), draw(5, seed=1), draw(5, seed=2), draw(5, seed=3))]
    assert torch.autograd.gradcheck(lambda *a: ops.bias_gelu_layer_norm(*a, 1e-5), arguments)


def test_opcheck():
    x, bias, weight, norm_bias = (
        a.float().requires_grad_() for a in (draw(4, 5), draw(5), draw(5, seed=2), draw(5, seed=3))
    )
    torch.library.opcheck(torch.ops.sentcore.bias_gelu.default, (x, bias, "none"))
    torch.library.opcheck(torch.ops.sentcore.bias_gelu.default, (x, None, "tanh"))
    torch.library.opcheck(torch.ops.sentcore.bias_gelu_layer_norm.default, (x, bias, weight, norm_bias, 1e-5))


def test_compiles_as_one_graph():
    x, bias = draw(4, 5).float().requires_grad_(), draw(5).float()
    function = torch.compile(lambda x, b: ops.bias_gelu(x, b), fullgraph=True)
    torch.testing.assert_close(function(x, bias), ops.reference.bias_gelu(x, bias))
    function = torch.compile(lambda x, b: ops.bias_gelu_layer_norm(x, b, b, b, 1e-5), fullgraph=True)
    torch.testing.assert_close(function(x, bias), ops.reference.bias_gelu_layer_norm(x, bias, bias, bias, 1e-5))


def test_wrong_arguments_are_named():
    x = torch.ones(3, 4)
    with pytest.raises(ArgumentValueError, match="approximate is 'fast'; accepted: 'none'"):
        ops.bias_gelu(x, None, approximate="fast")
    with pytest.raises(ArgumentValueError, match=r"bias has shape \[3\]; accepted: \[4\]"):
        ops.bias_gelu(x, torch.ones(3))
    with pytest.raises(ArgumentTypeError, match="weight is None"):
        ops.bias_gelu_layer_norm(x, None, None, None, 1e-5)
