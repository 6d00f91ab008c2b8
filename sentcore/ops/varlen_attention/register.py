"""varlen_attention for torch: schema, shapes, plain kernel, autograd.

One op serves both forms: q is qkv [T,3,N,D] when kv is None (self-attention), else q [Tq,N,D] with kv [Tk,2,N,D].
"""

from __future__ import annotations

import torch

from sentcore.ops.register import autograd, define
from sentcore.ops.varlen_attention import reference


def _split(q, kv):
    return q.unbind(1) if kv is None else (q, *kv.unbind(1))


def _forward(
    q, kv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, bias, alibi_slopes,
    window_left, window_right, causal, dropout_p, seed, save_for_backward,
):  # fmt: skip
    options = reference.Options(
        scale, bias, alibi_slopes, (window_left, window_right), causal, dropout_p, seed, max_seqlen_k
    )
    out, lse = reference.forward(*_split(q, kv), cu_seqlens_q, cu_seqlens_k, options, with_lse=save_for_backward)
    return out.contiguous(), q.new_empty((0, 0), dtype=_wide(q)) if lse is None else lse


def _forward_fake(
    q, kv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, bias, alibi_slopes,
    window_left, window_right, causal, dropout_p, seed, save_for_backward,
):  # fmt: skip
    tokens, heads, size = q.shape[0], q.shape[-2], q.shape[-1]
    rows = (tokens, heads) if save_for_backward else (0, 0)
    return q.new_empty((tokens, heads, size)), q.new_empty(rows, dtype=_wide(q))


def _backward(
    grad_out, q, kv, out, lse, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, bias, alibi_slopes,
    window_left, window_right, causal, dropout_p, seed,
):  # fmt: skip
    options = reference.Options(
        scale, bias, alibi_slopes, (window_left, window_right), causal, dropout_p, seed, max_seqlen_k
    )
    # out saves the kernels a pass over the keys; plain PyTorch has all of a row at once.
    grad_q, grad_k, grad_v, grad_bias = reference.backward(
        grad_out, *_split(q, kv), lse, cu_seqlens_q, cu_seqlens_k, options
    )
    grad_bias = q.new_empty(0) if grad_bias is None else grad_bias.contiguous()
    if kv is None:
        return torch.stack((grad_q, grad_k, grad_v), dim=1), q.new_empty(0), grad_bias
    return grad_q.contiguous(), torch.stack((grad_k, grad_v), dim=1), grad_bias


def _backward_fake(
    grad_out, q, kv, out, lse, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, bias, alibi_slopes,
    window_left, window_right, causal, dropout_p, seed,
):  # fmt: skip
    return (
        q.new_empty(q.shape),
        q.new_empty(0) if kv is None else kv.new_empty(kv.shape),
        q.new_empty(0) if bias is None else bias.new_empty(bias.shape),
    )


def _wide(q: torch.Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _setup_context(ctx, inputs, output):
    q, kv, cu_q, cu_k, max_q, max_k, scale, bias, slopes, left, right, causal, p, seed, save = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.saved_for_backward = save
    ctx.lengths, ctx.options = (max_q, max_k), (left, right, causal, p)
    ctx.scale = scale
    ctx.save_for_backward(q, kv, *output, cu_q, cu_k, bias, slopes, seed)


def _autograd(ctx, grad_out, grad_lse):
    if not ctx.saved_for_backward:
        raise RuntimeError(
            "sentcore::varlen_attention ran with save_for_backward=False, so it has no backward; call it with True"
        )
    q, kv, out, lse, cu_q, cu_k, bias, slopes, seed = ctx.saved_tensors
    grad_q, grad_kv, grad_bias = torch.ops.sentcore.varlen_attention_backward.default(
        grad_out, q, kv, out, lse, cu_q, cu_k, *ctx.lengths, ctx.scale, bias, slopes, *ctx.options, seed
    )
    return (
        grad_q,
        None if kv is None else grad_kv,
        *[None] * 5,
        None if bias is None else grad_bias,
        *[None] * 7,
    )


_OPTIONS = (
    "int max_seqlen_q, int max_seqlen_k, float? scale, Tensor? bias, Tensor? alibi_slopes, int window_left,"
    " int window_right, bool causal, float dropout_p, Tensor? seed"
)
define(
    f"varlen_attention(Tensor q, Tensor? kv, Tensor cu_seqlens_q, Tensor cu_seqlens_k, {_OPTIONS},"
    " bool save_for_backward) -> (Tensor out, Tensor lse)",
    _forward,
    _forward_fake,
)
define(
    "varlen_attention_backward(Tensor grad_out, Tensor q, Tensor? kv, Tensor out, Tensor lse,"
    f" Tensor cu_seqlens_q, Tensor cu_seqlens_k, {_OPTIONS}) -> (Tensor grad_q, Tensor grad_kv, Tensor grad_bias)",
    _backward,
    _backward_fake,
)
autograd("varlen_attention", _autograd, _setup_context)
