"""One layer of an encoder in one call, for training on a CPU."""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable

from sentcore.ops.encoder_layer import register  # noqa: F401  declares sentcore::encoder_layer
from sentcore.ops.encoder_layer.reference import WEIGHTS

__all__ = ["WEIGHTS", "encoder_layer"]


def encoder_layer(
    x: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    qkv: list[torch.Tensor],
    weights: list[torch.Tensor],
    *,
    num_heads: int,
    activation: str,
    eps: float,
    attention_dropout_p: float = 0.0,
    hidden_dropout_p: float = 0.0,
    seeds: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """A layer that normalizes behind its residuals, forward and backward, without Python between its ops; CPU, float32.

    Between two products a block of rows stays in a core's cache; the activation is computed again in the backward. Gradients
    of frozen weights are not computed.

    Args:
        x: [T, H] float32, on a CPU.
        cu_seqlens: [B + 1] int32, where each sentence begins.
        max_seqlen: S, no sentence is longer.
        qkv: weight [3H, H] and bias [3H] of queries, keys and values; or three weights [H, H] and three biases [H].
        weights: as WEIGHTS names them: output [H, H], up [F, H] and down [H, F], their biases, and two LayerNorms.
        num_heads: N.
        activation: "gelu", "gelu_tanh" or "relu".
        eps: of both LayerNorms.
        attention_dropout_p, hidden_dropout_p: probabilities in [0, 1).
        seeds: with dropout, three int64 [2] (seed, offset): of the attention and of what either LayerNorm adds.

    Returns:
        [T, H] float32.

    Raises:
        RuntimeError: from the kernel, by argument, value found, what is accepted, remedy.
        NotImplementedError: the extension is not compiled, or x is not on a CPU.

    Source: Devlin et al. 2018 (https://arxiv.org/abs/1810.04805). The definition is reference.py.
    """
    options = (activation, eps, attention_dropout_p, hidden_dropout_p, seeds or [])
    given = (cu_seqlens, max_seqlen, num_heads)
    return _EncoderLayer.apply(given, options, len(qkv), x.contiguous(), *(t.contiguous() for t in (*qkv, *weights)))


class _EncoderLayer(torch.autograd.Function):
    # Not by register.py's `autograd`, which is for ops that take no lists of tensors.
    @staticmethod
    def forward(ctx, given, options, count, x, *weights):
        out, *saved = torch.ops.sentcore.encoder_layer.default(
            x, *given, list(weights[:count]), list(weights[count:]), *options
        )
        cu_seqlens, *ctx.sizes = given
        *ctx.numbers, seeds = options
        ctx.counts = (len(weights), count, len(seeds))
        ctx.save_for_backward(x, cu_seqlens, *weights, *seeds, *saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        x, cu_seqlens, *kept = ctx.saved_tensors
        total, count, seed_count = ctx.counts
        weights, seeds, saved = kept[:total], kept[total : total + seed_count], kept[total + seed_count :]
        needed = list(ctx.needs_input_grad[4:])
        grad_x, *grads = torch.ops.sentcore.encoder_layer_backward.default(
            grad_out.contiguous(),
            x,
            cu_seqlens,
            *ctx.sizes,
            weights[:count],
            weights[count:],
            saved,
            *ctx.numbers,
            seeds,
            needed,
        )
        return None, None, None, grad_x, *(grad if need else None for grad, need in zip(grads, needed, strict=True))
