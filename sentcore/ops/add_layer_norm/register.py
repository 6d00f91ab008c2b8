"""add_layer_norm for torch: schema, shapes, plain kernel, autograd. The compiled kernels are in csrc/ops/add_layer_norm."""

from __future__ import annotations

import torch

from sentcore.ops.add_layer_norm import reference
from sentcore.ops.register import autograd, define


def _forward(x, residual, weight, norm_bias, x_bias, dropout_p, seed, eps, save_for_backward):
    if save_for_backward:
        out, total, mean, rstd = reference.add_layer_norm_forward(
            x, residual, weight, norm_bias, x_bias, dropout_p, seed, eps
        )
        # An op's result may not be one of its arguments.
        return out, total.clone() if total is x else total, mean, rstd
    out = reference.add_layer_norm(
        x, residual, weight, norm_bias, x_bias=x_bias, dropout_p=dropout_p, seed=seed, eps=eps
    )
    stats = x.new_empty(0, dtype=_stats_dtype(x))
    return out, x.new_empty((0, x.shape[1])), stats, stats.clone()


def _forward_fake(x, residual, weight, norm_bias, x_bias, dropout_p, seed, eps, save_for_backward):
    rows = x.shape[0] if save_for_backward else 0
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        x.new_empty((rows, x.shape[1])),
        x.new_empty(rows, dtype=_stats_dtype(x)),
        x.new_empty(rows, dtype=_stats_dtype(x)),
    )


def _backward(grad_out, grad_total, total, mean, rstd, weight, has_norm_bias, has_x_bias, dropout_p, seed):
    grad_x, grad_residual, grad_weight, grad_norm_bias, grad_x_bias = reference.add_layer_norm_backward(
        grad_out, grad_total, total, mean, rstd, weight, dropout_p, seed
    )
    return (
        grad_x if dropout_p > 0.0 else total.new_empty((0, total.shape[1])),
        grad_residual,
        grad_weight,
        grad_norm_bias if has_norm_bias else weight.new_empty(0),
        grad_x_bias if has_x_bias else weight.new_empty(0),
    )


def _backward_fake(grad_out, grad_total, total, mean, rstd, weight, has_norm_bias, has_x_bias, dropout_p, seed):
    tokens, hidden = total.shape
    return (
        total.new_empty((tokens if dropout_p > 0.0 else 0, hidden)),
        total.new_empty((tokens, hidden)),
        weight.new_empty(hidden),
        weight.new_empty(hidden if has_norm_bias else 0),
        weight.new_empty(hidden if has_x_bias else 0),
    )


def _stats_dtype(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _setup_context(ctx, inputs, output):
    _, residual, weight, norm_bias, x_bias, dropout_p, seed, _, save_for_backward = inputs
    _, total, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)
    ctx.saved_for_backward = save_for_backward
    ctx.options = residual is not None, norm_bias is not None, x_bias is not None, dropout_p
    ctx.save_for_backward(total, mean, rstd, weight, seed)


def _autograd(ctx, grad_out, grad_total, grad_mean, grad_rstd):
    if not ctx.saved_for_backward:
        raise RuntimeError(
            "sentcore::add_layer_norm ran with save_for_backward=False, so it has no backward; call it with True"
        )
    total, mean, rstd, weight, seed = ctx.saved_tensors
    has_residual, has_norm_bias, has_x_bias, dropout_p = ctx.options
    if grad_out is None:
        grad_out = torch.zeros_like(total)
    grad_x, grad_residual, grad_weight, grad_norm_bias, grad_x_bias = (
        torch.ops.sentcore.add_layer_norm_backward.default(
            grad_out, grad_total, total, mean, rstd, weight, has_norm_bias, has_x_bias, dropout_p, seed
        )
    )
    return (
        grad_x if dropout_p > 0.0 else grad_residual,
        grad_residual if has_residual else None,
        grad_weight,
        grad_norm_bias if has_norm_bias else None,
        grad_x_bias if has_x_bias else None,
        *[None] * 4,
    )


define(
    "add_layer_norm(Tensor x, Tensor? residual, Tensor weight, Tensor? norm_bias, Tensor? x_bias, float dropout_p,"
    " Tensor? seed, float eps, bool save_for_backward) -> (Tensor out, Tensor total, Tensor mean, Tensor rstd)",
    _forward,
    _forward_fake,
)
define(
    "add_layer_norm_backward(Tensor grad_out, Tensor? grad_total, Tensor total, Tensor mean, Tensor rstd,"
    " Tensor weight, bool has_norm_bias, bool has_x_bias, float dropout_p, Tensor? seed) -> (Tensor grad_x,"
    " Tensor grad_residual, Tensor grad_weight, Tensor grad_norm_bias, Tensor grad_x_bias)",
    _backward,
    _backward_fake,
)
autograd("add_layer_norm", _autograd, _setup_context)
