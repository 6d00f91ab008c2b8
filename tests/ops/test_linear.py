"""linear: its definition, gradients, and what torch asks of an op."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from called_ops import called_ops
from compare import assert_as_accurate
from sentcore import ops
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.linear import ACTIVATIONS, GATED
from sentcore.ops.linear.reference import activation_linear_backward, linear_backward

SHAPES = [(0, 8, 4), (1, 1, 2), (17, 33, 10), (65, 40, 24)]


def draw(tokens, depth, rows, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((tokens, depth), (rows, depth), (rows,))
    )
    return x, weight, bias


def with_gradients(function, arguments, activation):
    leaves = [a.clone().requires_grad_() for a in arguments]
    out = function(*leaves, activation=activation)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out.dtype))
    return [out, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("sizes", SHAPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_as_accurate_as_plain_pytorch(dtype, sizes, activation):
    arguments = draw(*sizes, dtype)
    ours = with_gradients(ops.linear, arguments, activation)
    plain = with_gradients(ops.reference.linear, arguments, activation)
    exact = with_gradients(ops.reference.linear, [a.double() for a in arguments], activation)
    for index, value in enumerate(exact):
        assert ours[index].dtype == dtype
        assert_as_accurate(ours[index], plain[index], value, f"result {index}")


def draw_activated(tokens, width, rows, activation, dtype=torch.float64, seed=0):
    pre = draw(tokens, 2 * width if activation in GATED else width, rows, dtype, seed)[0]
    return pre, *draw(tokens, width, rows, dtype, seed + 1)[1:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_activation_before_is_as_accurate_as_plain_pytorch(dtype, activation):
    for sizes in SHAPES:
        arguments = draw_activated(*sizes, activation, dtype)
        ours = with_gradients(ops.activation_linear, arguments, activation)
        plain = with_gradients(ops.reference.activation_linear, arguments, activation)
        exact = with_gradients(ops.reference.activation_linear, [a.double() for a in arguments], activation)
        for index, value in enumerate(exact):
            assert ours[index].dtype == dtype
            assert_as_accurate(ours[index], plain[index], value, f"result {index} of {sizes}")


def test_definition_is_the_formula():
    x, weight, bias = draw(4, 5, 6)
    pre = x @ weight.t() + bias
    gate, value = pre[:, :3], pre[:, 3:]
    torch.testing.assert_close(ops.reference.linear(x, weight, bias), pre)
    torch.testing.assert_close(ops.linear(x, weight, bias, activation="relu"), pre.clamp(min=0))
    torch.testing.assert_close(ops.linear(x, weight, bias, activation="geglu"), F.gelu(gate) * value)
    torch.testing.assert_close(ops.linear(x, weight, activation="swiglu"), _swiglu(x @ weight.t()))
    down = draw(4, 3, 2, seed=1)[1]
    torch.testing.assert_close(ops.activation_linear(pre, down, activation="swiglu"), _swiglu(pre) @ down.t())


def _swiglu(pre):
    gate, value = pre.chunk(2, dim=1)
    return gate * torch.sigmoid(gate) * value


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradcheck(activation, with_bias):
    x, weight, bias = (t.requires_grad_() for t in draw(4, 5, 6, seed=3))
    arguments = (x, weight, bias) if with_bias else (x, weight)
    assert torch.autograd.gradcheck(lambda *a: ops.linear(*a, activation=activation), arguments)


@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradcheck_of_an_activation_before(activation, with_bias):
    pre, weight, bias = (t.requires_grad_() for t in draw_activated(4, 5, 6, activation, seed=3))
    arguments = (pre, weight, bias) if with_bias else (pre, weight)
    assert torch.autograd.gradcheck(lambda *a: ops.activation_linear(*a, activation=activation), arguments)


@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_written_out_backwards_are_the_derivatives(activation):
    pre, weight, bias = draw_activated(4, 5, 6, activation)
    grad = torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 6)
    expected = with_gradients(ops.activation_linear, (pre, weight, bias), activation)[1:]
    torch.testing.assert_close(activation_linear_backward(grad, pre, weight, activation), tuple(expected))
    x, weight, bias = draw(4, 5, 6)
    out, *expected = with_gradients(ops.linear, (x, weight, bias), activation)
    grad = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
    found = linear_backward(grad, x, weight, x @ weight.t() + bias, activation)
    torch.testing.assert_close(found, tuple(expected))


def test_an_activation_before_keeps_what_it_is_given_alone():
    pre, weight, bias = (t.requires_grad_() for t in draw(64, 32, 8))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        ops.activation_linear(pre, weight, bias, activation="gelu")
    assert sorted(kept) == [weight.shape, pre.shape]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("wanted", ["x", "x and bias"])
def test_frozen_weights_and_strided_input(activation, wanted):
    x, weight, bias = draw(6, 5, 4)
    x = x.t().contiguous().t().requires_grad_()
    bias.requires_grad_("bias" in wanted)
    expected = [t.detach().clone().requires_grad_(t.requires_grad) for t in (x, bias)]
    with called_ops() as called:
        ops.linear(x, weight, bias, activation=activation).sum().backward()
    assert "linear_backward" not in called and called.count("mm") == 1  # of x alone
    ops.reference.linear(expected[0], weight, expected[1], activation=activation).sum().backward()
    torch.testing.assert_close(x.grad, expected[0].grad)
    torch.testing.assert_close(bias.grad, expected[1].grad)


@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
@pytest.mark.parametrize("wanted", ["pre", "pre and bias"])
def test_frozen_weights_behind_an_activation(activation, wanted):
    pre, weight, bias = draw_activated(6, 4, 3, activation)
    pre.requires_grad_()
    bias.requires_grad_("bias" in wanted)
    expected = [t.detach().clone().requires_grad_(t.requires_grad) for t in (pre, bias)]
    with called_ops() as called:
        ops.activation_linear(pre, weight, bias, activation=activation).sum().backward()
    assert "activation_linear_backward" not in called and called.count("mm") == 1
    ops.reference.activation_linear(expected[0], weight, expected[1], activation=activation).sum().backward()
    torch.testing.assert_close(pre.grad, expected[0].grad)
    torch.testing.assert_close(bias.grad, expected[1].grad)


@pytest.mark.parametrize("activation", ["none", "gelu", "geglu"])
def test_opcheck(activation):
    x, weight, bias = (t.float().requires_grad_() for t in draw(4, 5, 6))
    op = torch.ops.sentcore.linear.default
    torch.library.opcheck(op, (x, weight, bias, activation, activation != "none"))
    torch.library.opcheck(op, (x.detach(), weight.detach(), None, activation, False))
    if activation != "none":
        arguments = [t.float().requires_grad_() for t in draw_activated(4, 5, 6, activation)]
        torch.library.opcheck(torch.ops.sentcore.activation_linear.default, (*arguments, activation))


@pytest.mark.parametrize("activation", [None, "gelu", "swiglu"])
def test_compiles_as_one_graph(activation):
    arguments = [t.float().requires_grad_() for t in draw(4, 5, 6)]
    function = torch.compile(lambda *a: ops.linear(*a, activation=activation), fullgraph=True)
    out = function(*arguments)
    torch.testing.assert_close(out, ops.reference.linear(*arguments, activation=activation))
    out.sum().backward()
    assert all(a.grad is not None for a in arguments)


def test_wrong_arguments_are_named():
    x, weight, bias = draw(4, 5, 7)
    with pytest.raises(ArgumentValueError, match="activation is 'mish'; accepted: None, 'relu', 'gelu'"):
        ops.linear(x, weight, bias, activation="mish")
    with pytest.raises(ArgumentValueError, match="weight has 7 rows; accepted with activation='geglu': an even"):
        ops.linear(x, weight, bias, activation="geglu")
    with pytest.raises(ArgumentValueError, match=r"weight has shape \[5, 7\]; accepted: \[R, 5\]"):
        ops.linear(x, weight.t(), bias)
    with pytest.raises(ArgumentTypeError, match=r"bias has dtype torch\.float32"):
        ops.linear(x, weight, bias.float())
    with pytest.raises(ArgumentTypeError, match="x is None"):
        ops.linear(None, weight)
    with pytest.raises(ArgumentValueError, match="activation is None; accepted: 'relu', 'gelu'"):
        ops.activation_linear(x, weight, bias, activation=None)
    with pytest.raises(
        ArgumentValueError, match=r"pre has 5 columns; accepted with activation='geglu' and .* \[7, 5\]: 10"
    ):
        ops.activation_linear(x, weight, bias, activation="geglu")
