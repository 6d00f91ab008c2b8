"""embedding_layer_norm for torch: schema, shapes, plain kernel, autograd.

The backward is LayerNorm's (add_layer_norm's op, called through torch), then a sum of rows by id for each table.
"""

from __future__ import annotations

import torch

from sentcore.ops.embedding_layer_norm import reference
from sentcore.ops.register import autograd, define


def _forward(
    token_ids, position_ids, token_type_ids, word, position, token_type, weight, norm_bias, eps, save_for_backward
):
    tensors = (token_ids, position_ids, token_type_ids, word, position, token_type, weight, norm_bias)
    if save_for_backward:
        return reference.embedding_layer_norm_forward(*tensors, eps)
    out = reference.embedding_layer_norm(*tensors, eps=eps)
    return out, *_saved(out, 0)


def _forward_fake(
    token_ids, position_ids, token_type_ids, word, position, token_type, weight, norm_bias, eps, save_for_backward
):
    out = word.new_empty((token_ids.shape[0], word.shape[1]))
    return out, *_saved(out, token_ids.shape[0] if save_for_backward else 0)


def _saved(out: torch.Tensor, rows: int):
    wide = torch.float64 if out.dtype == torch.float64 else torch.float32
    stats = (out.new_empty(rows, dtype=wide) for _ in range(2))
    return out.new_empty((rows, out.shape[1])), *stats


def _gradient(grad, ids, order, num_rows):
    return reference.embedding_gradient(grad, ids, num_rows)


def _gradient_fake(grad, ids, order, num_rows):
    return grad.new_empty((num_rows, grad.shape[1]))


def _setup_context(ctx, inputs, output):
    token_ids, position_ids, token_type_ids, word, position, token_type, weight, norm_bias, _, ctx.saved = inputs
    _, total, mean, rstd = output
    ctx.mark_non_differentiable(total, mean, rstd)
    ctx.rows = [0 if table is None else table.shape[0] for table in (word, position, token_type)]
    ctx.has_norm_bias = norm_bias is not None
    ctx.save_for_backward(token_ids, position_ids, token_type_ids, total, mean, rstd, weight)


def _autograd(ctx, grad_out, *_):
    if not ctx.saved:
        raise RuntimeError(
            "sentcore::embedding_layer_norm ran with save_for_backward=False, so it has no backward; call it with True"
        )
    *ids, total, mean, rstd, weight = ctx.saved_tensors
    _, grad, grad_weight, grad_norm_bias, _ = torch.ops.sentcore.add_layer_norm_backward.default(
        grad_out, None, total, mean, rstd, weight, ctx.has_norm_bias, False, 0.0, None
    )
    tables = [
        table_gradient(grad, each, rows) if needed and each is not None else None
        for each, rows, needed in zip(ids, ctx.rows, ctx.needs_input_grad[3:6], strict=True)
    ]
    return None, None, None, *tables, grad_weight, grad_norm_bias if ctx.has_norm_bias else None, None, None


def table_gradient(grad: torch.Tensor, ids: torch.Tensor, num_rows: int) -> torch.Tensor:
    """[num_rows, H] from grad [T, H] and ids [T]; on a GPU in sorted order, which needs no atomics."""
    order = torch.argsort(ids, stable=True) if ids.is_cuda else None
    return torch.ops.sentcore.embedding_gradient.default(grad, ids, order, num_rows)


define(
    "embedding_layer_norm(Tensor token_ids, Tensor? position_ids, Tensor? token_type_ids, Tensor word, Tensor? position,"
    " Tensor? token_type, Tensor weight, Tensor? norm_bias, float eps, bool save_for_backward)"
    " -> (Tensor out, Tensor total, Tensor mean, Tensor rstd)",
    _forward,
    _forward_fake,
)
define("embedding_gradient(Tensor grad, Tensor ids, Tensor? order, int num_rows) -> Tensor", _gradient, _gradient_fake)
autograd("embedding_layer_norm", _autograd, _setup_context)
