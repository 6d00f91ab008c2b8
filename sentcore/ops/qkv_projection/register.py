"""qkv_projection for torch: schema, shapes, plain kernel, autograd.

The weights come as one tensor (weight_k and weight_v None) or as three, which a kernel reads where they lie.
"""

from __future__ import annotations

import torch

from sentcore.ops.qkv_projection import reference
from sentcore.ops.register import autograd, define


def _fused(first, second, third):
    return first if second is None else torch.cat((first, second, third))


def _forward(x, weight, weight_k, weight_v, bias, bias_k, bias_v, num_heads, cos, sin):
    return reference.qkv_projection(
        x,
        _fused(weight, weight_k, weight_v),
        _fused(bias, bias_k, bias_v),
        num_heads=num_heads,
        rotary=None if cos is None else (cos, sin),
    )


def _forward_fake(x, weight, weight_k, weight_v, bias, bias_k, bias_v, num_heads, cos, sin):
    rows = weight.shape[0] // 3 if weight_k is None else weight.shape[0]
    return x.new_empty((x.shape[0], 3, num_heads, rows // num_heads))


def _backward(grad_qkv, x, weight, weight_k, weight_v, has_bias, cos, sin):
    grad_x, grad_weight, grad_bias = reference.qkv_projection_backward(
        grad_qkv, x, _fused(weight, weight_k, weight_v), cos, sin
    )
    if not has_bias:
        grad_bias = weight.new_empty(0)
    return grad_x, grad_weight, grad_bias


def _backward_fake(grad_qkv, x, weight, weight_k, weight_v, has_bias, cos, sin):
    rows = weight.shape[0] * (1 if weight_k is None else 3)
    return (
        x.new_empty(x.shape),
        weight.new_empty((rows, weight.shape[1])),
        weight.new_empty(rows if has_bias else 0),
    )


def _setup_context(ctx, inputs, output):
    x, weight, weight_k, weight_v, bias, _, _, _, cos, sin = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight, weight_k, weight_v, cos, sin)


def _autograd(ctx, grad_qkv):
    x, weight, weight_k, weight_v, cos, sin = ctx.saved_tensors
    if not any(ctx.needs_input_grad[1:7]):  # frozen, as beside adapters: half of the work
        grad_x = reference.grad_of_product(grad_qkv, cos, sin) @ _fused(weight, weight_k, weight_v)
        return grad_x, *(None,) * 9
    grad_x, grad_weight, grad_bias = torch.ops.sentcore.qkv_projection_backward.default(
        grad_qkv, x, weight, weight_k, weight_v, ctx.has_bias, cos, sin
    )
    weights = (grad_weight, None, None) if weight_k is None else grad_weight.chunk(3)
    biases = (None, None, None)
    if ctx.has_bias:
        biases = (grad_bias, None, None) if weight_k is None else grad_bias.chunk(3)
    return grad_x, *weights, *biases, None, None, None


define(
    "qkv_projection(Tensor x, Tensor weight, Tensor? weight_k, Tensor? weight_v, Tensor? bias, Tensor? bias_k,"
    " Tensor? bias_v, int num_heads, Tensor? cos, Tensor? sin) -> Tensor",
    _forward,
    _forward_fake,
)
define(
    "qkv_projection_backward(Tensor grad_qkv, Tensor x, Tensor weight, Tensor? weight_k, Tensor? weight_v,"
    " bool has_bias, Tensor? cos, Tensor? sin) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
    _backward,
    _backward_fake,
)
autograd("qkv_projection", _autograd, _setup_context)
