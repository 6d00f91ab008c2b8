"""linear and activation_linear for torch: schema, shapes, plain kernel, autograd.

`pre`, the product before its activation, is kept for linear's backward where there is an activation. activation_linear keeps
what it is given, and activates that again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sentcore.ops.linear import reference
from sentcore.ops.register import autograd, define

_GATED = ("geglu", "swiglu")


def _forward(x, weight, bias, activation, save_for_backward):
    pre = F.linear(x, weight, bias)
    saved = save_for_backward and activation != "none"
    # Two results of an op may not share memory, nor may one be its input.
    out = reference.activate(pre, activation)
    return out, pre if saved else x.new_empty((0, weight.shape[0]))


def _forward_fake(x, weight, bias, activation, save_for_backward):
    rows = weight.shape[0]
    saved = save_for_backward and activation != "none"
    return (
        x.new_empty((x.shape[0], rows // 2 if activation in _GATED else rows)),
        x.new_empty((x.shape[0] if saved else 0, rows)),
    )


def _backward(grad_out, x, weight, pre, has_bias, activation):
    grad_pre = grad_out if activation == "none" else _activate_backward(grad_out, pre, activation)
    return grad_pre @ weight, grad_pre.t() @ x, grad_pre.sum(dim=0) if has_bias else x.new_empty(0)


def _activate_backward(grad_out, pre, activation):
    """As reference.activate_backward, a single pass of torch's own for each derivative."""
    aten = torch.ops.aten
    if activation == "relu":
        return aten.threshold_backward.default(grad_out, pre, 0)
    if activation in ("gelu", "gelu_tanh"):
        return aten.gelu_backward.default(grad_out, pre, approximate="tanh" if activation == "gelu_tanh" else "none")
    gate, value = pre.chunk(2, dim=-1)
    slope, function = (aten.gelu_backward, F.gelu) if activation == "geglu" else (aten.silu_backward, F.silu)
    return torch.cat((slope(grad_out * value, gate), grad_out * function(gate)), dim=-1)


def _backward_fake(grad_out, x, weight, pre, has_bias, activation):
    return (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape),
        x.new_empty(weight.shape[0] if has_bias else 0),
    )


def _setup_context(ctx, inputs, output):
    x, weight, bias, ctx.activation, save = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.saved = save or ctx.activation == "none"
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight, output[1])


def _autograd(ctx, grad_out, grad_pre):
    if not ctx.saved:
        raise RuntimeError(
            "sentcore::linear ran with save_for_backward=False, so it has no backward; call it with True"
        )
    x, weight, pre = ctx.saved_tensors
    if not ctx.needs_input_grad[1]:  # frozen, as beside adapters: a third of the work
        grad_sum = grad_out if ctx.activation == "none" else _activate_backward(grad_out, pre, ctx.activation)
        return grad_sum @ weight, None, grad_sum.sum(dim=0) if ctx.needs_input_grad[2] else None, None, None
    grad_x, grad_weight, grad_bias = torch.ops.sentcore.linear_backward.default(
        grad_out, x, weight, pre, ctx.has_bias, ctx.activation
    )
    return grad_x, grad_weight, grad_bias if ctx.has_bias else None, None, None


define(
    "linear(Tensor x, Tensor weight, Tensor? bias, str activation, bool save_for_backward) -> (Tensor out, Tensor pre)",
    _forward,
    _forward_fake,
)
define(
    "linear_backward(Tensor grad_out, Tensor x, Tensor weight, Tensor pre, bool has_bias, str activation)"
    " -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
    _backward,
    _backward_fake,
)
autograd("linear", _autograd, _setup_context)


# ---- activation_linear ----


def _activation_forward(pre, weight, bias, activation):
    return F.linear(reference.activate(pre, activation), weight, bias)


def _activation_forward_fake(pre, weight, bias, activation):
    return pre.new_empty((pre.shape[0], weight.shape[0]))


def _activation_backward(grad_out, pre, weight, has_bias, activation):
    grad_weight = grad_out.t() @ reference.activate(pre, activation)
    grad_pre = _activate_backward(grad_out @ weight, pre, activation)
    return grad_pre, grad_weight, grad_out.sum(dim=0) if has_bias else pre.new_empty(0)


def _activation_backward_fake(grad_out, pre, weight, has_bias, activation):
    return (
        pre.new_empty(pre.shape),
        weight.new_empty(weight.shape),
        pre.new_empty(weight.shape[0] if has_bias else 0),
    )


def _activation_setup_context(ctx, inputs, output):
    pre, weight, bias, ctx.activation = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(pre, weight)


def _activation_autograd(ctx, grad_out):
    if not ctx.needs_input_grad[1]:
        pre, weight = ctx.saved_tensors
        grad_pre = _activate_backward(grad_out @ weight, pre, ctx.activation)
        return grad_pre, None, grad_out.sum(dim=0) if ctx.needs_input_grad[2] else None, None
    grad_pre, grad_weight, grad_bias = torch.ops.sentcore.activation_linear_backward.default(
        grad_out, *ctx.saved_tensors, ctx.has_bias, ctx.activation
    )
    return grad_pre, grad_weight, grad_bias if ctx.has_bias else None, None


define(
    "activation_linear(Tensor pre, Tensor weight, Tensor? bias, str activation) -> Tensor",
    _activation_forward,
    _activation_forward_fake,
)
define(
    "activation_linear_backward(Tensor grad_out, Tensor pre, Tensor weight, bool has_bias, str activation)"
    " -> (Tensor grad_pre, Tensor grad_weight, Tensor grad_bias)",
    _activation_backward,
    _activation_backward_fake,
)
autograd("activation_linear", _activation_autograd, _activation_setup_context)
