"""bias_gelu_layer_norm for torch: schema, shapes, plain kernel, autograd."""

from __future__ import annotations

import torch

from sentcore.ops.bias_gelu_layer_norm import reference
from sentcore.ops.register import autograd, define


def _forward_fake(x, bias, weight, norm_bias, eps):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _backward(grad_out, x, bias, weight, has_norm_bias, eps):
    grad_x, grad_bias, grad_weight, grad_norm_bias = reference.bias_gelu_layer_norm_backward(
        grad_out, x, bias, weight, eps
    )
    return (
        grad_x,
        grad_bias if bias is not None else weight.new_empty(0),
        grad_weight,
        grad_norm_bias if has_norm_bias else weight.new_empty(0),
    )


def _backward_fake(grad_out, x, bias, weight, has_norm_bias, eps):
    hidden = x.shape[1]
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        weight.new_empty(0 if bias is None else hidden),
        weight.new_empty(hidden),
        weight.new_empty(hidden if has_norm_bias else 0),
    )


def _setup_context(ctx, inputs, output):
    x, bias, weight, norm_bias, ctx.eps = inputs
    ctx.has_norm_bias = norm_bias is not None
    ctx.save_for_backward(x, bias, weight)


def _autograd(ctx, grad_out):
    x, bias, weight = ctx.saved_tensors
    grad_x, grad_bias, grad_weight, grad_norm_bias = torch.ops.sentcore.bias_gelu_layer_norm_backward.default(
        grad_out, x, bias, weight, ctx.has_norm_bias, ctx.eps
    )
    return (
        grad_x,
        grad_bias if bias is not None else None,
        grad_weight,
        grad_norm_bias if ctx.has_norm_bias else None,
        None,
    )


define(
    "bias_gelu_layer_norm(Tensor x, Tensor? bias, Tensor weight, Tensor? norm_bias, float eps) -> Tensor",
    reference.bias_gelu_layer_norm,
    _forward_fake,
)
define(
    "bias_gelu_layer_norm_backward(Tensor grad_out, Tensor x, Tensor? bias, Tensor weight, bool has_norm_bias,"
    " float eps) -> (Tensor grad_x, Tensor grad_bias, Tensor grad_weight, Tensor grad_norm_bias)",
    _backward,
    _backward_fake,
)
autograd("bias_gelu_layer_norm", _autograd, _setup_context)
