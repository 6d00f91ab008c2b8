"""bias_gelu for torch: schema, shapes, plain kernel, autograd."""

from __future__ import annotations

import torch

from sentcore.ops.bias_gelu import reference
from sentcore.ops.register import autograd, define


def _forward(x, bias, approximate):
    return reference.bias_gelu(x, bias, approximate=approximate)


def _forward_fake(x, bias, approximate):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _backward(grad_out, x, bias, approximate):
    grad_x, grad_bias = reference.bias_gelu_backward(grad_out, x, bias, approximate)
    return grad_x, grad_bias if bias is not None else x.new_empty(0)


def _backward_fake(grad_out, x, bias, approximate):
    return torch.empty_like(x, memory_format=torch.contiguous_format), (
        x.new_empty(0) if bias is None else torch.empty_like(bias)
    )


def _setup_context(ctx, inputs, output):
    x, bias, ctx.approximate = inputs
    ctx.save_for_backward(x, bias)


def _autograd(ctx, grad_out):
    x, bias = ctx.saved_tensors
    grad_x, grad_bias = torch.ops.sentcore.bias_gelu_backward.default(grad_out, x, bias, ctx.approximate)
    return grad_x, grad_bias if bias is not None else None, None


define("bias_gelu(Tensor x, Tensor? bias, str approximate) -> Tensor", _forward, _forward_fake)
define(
    "bias_gelu_backward(Tensor grad_out, Tensor x, Tensor? bias, str approximate) -> (Tensor grad_x, Tensor grad_bias)",
    _backward,
    _backward_fake,
)
autograd("bias_gelu", _autograd, _setup_context)
