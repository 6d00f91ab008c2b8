"""Softmax attention inside each sentence of a packed batch."""

from __future__ import annotations

import torch

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.autocast import autocast_to
from sentcore.ops.checks import (
    check_device,
    check_dropout,
    check_input,
    check_parameter,
    check_shape,
    draw_seed,
    needs_grad,
)
from sentcore.ops.varlen_attention import register  # noqa: F401  declares sentcore::varlen_attention


@autocast_to("given")
def varlen_attention(
    qkv: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    *,
    scale: float | None = None,
    bias: torch.Tensor | None = None,
    alibi_slopes: torch.Tensor | None = None,
    window: tuple[int, int] | None = None,
    causal: bool = False,
    dropout_p: float = 0.0,
    seed: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(scale · q kᵀ + bias) v for every sentence and head; sentences never see each other.

    Args:
        qkv: [T, 3, N, D] float32, bfloat16, float16 or float64.
        cu_seqlens: [B+1] int32, cumulative sentence lengths from 0 to T; empty sentences are fine.
        max_seqlen: length of the longest sentence (a host integer, so nothing waits for the device).
        scale: factor on the scores; None for 1 / sqrt(D).
        bias: [N, S, S] with S >= max_seqlen, added to the scaled scores of every sentence; qkv's dtype or float32.
        alibi_slopes: [N] float32; slope · distance is taken from the scores.
        window: (left, right), how many keys a query sees on each side; -1 for all, None for (-1, -1).
        causal: a query sees no later key.
        dropout_p: probability of dropping an attention probability.
        seed: [2] int64 (seed, offset) on qkv's device; None draws it from the device's default generator.

    Returns:
        [T, N, D] in qkv's dtype; a query that sees no key gets zeros.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.

    Source: Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762). The definition is reference.py.
    """
    check_input("qkv", qkv, ("T", 3, "N", "D"))
    _check_lengths("cu_seqlens", cu_seqlens, "max_seqlen", max_seqlen, qkv)
    left, right = _check_options(qkv, qkv.shape[2], max_seqlen, max_seqlen, bias, alibi_slopes, window)
    check_dropout(dropout_p, seed, qkv)
    out, _ = torch.ops.sentcore.varlen_attention.default(
        qkv, None, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, scale, bias, alibi_slopes,
        left, right, causal, dropout_p, draw_seed(dropout_p, seed, qkv), needs_grad(qkv, bias),
    )  # fmt: skip
    return out


@autocast_to("given")
def varlen_cross_attention(
    q: torch.Tensor,
    kv: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    scale: float | None = None,
    bias: torch.Tensor | None = None,
    alibi_slopes: torch.Tensor | None = None,
    window: tuple[int, int] | None = None,
    causal: bool = False,
    dropout_p: float = 0.0,
    seed: torch.Tensor | None = None,
) -> torch.Tensor:
    """As varlen_attention, from the tokens of one packed batch to those of another with as many sentences.

    Args:
        q: [Tq, N, D].
        kv: [Tk, 2, N, D], q's dtype and device.
        cu_seqlens_q, cu_seqlens_k: [B+1] int32.
        max_seqlen_q, max_seqlen_k: length of the longest sentence on each side.
        bias: [N, Sq, Sk]. The other arguments are varlen_attention's; with causal, window and ALiBi the last query
            stands beside the last key.

    Returns:
        [Tq, N, D] in q's dtype.
    """
    check_input("q", q, ("Tq", "N", "D"))
    check_parameter("kv", kv, ("Tk", 2, q.shape[1], q.shape[2]), q)
    _check_lengths("cu_seqlens_q", cu_seqlens_q, "max_seqlen_q", max_seqlen_q, q)
    _check_lengths("cu_seqlens_k", cu_seqlens_k, "max_seqlen_k", max_seqlen_k, q)
    check_shape("cu_seqlens_k", cu_seqlens_k, tuple(cu_seqlens_q.shape))
    left, right = _check_options(q, q.shape[1], max_seqlen_q, max_seqlen_k, bias, alibi_slopes, window)
    check_dropout(dropout_p, seed, q)
    out, _ = torch.ops.sentcore.varlen_attention.default(
        q, kv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, bias, alibi_slopes,
        left, right, causal, dropout_p, draw_seed(dropout_p, seed, q), needs_grad(q, kv, bias),
    )  # fmt: skip
    return out


def _check_lengths(name: str, cu_seqlens, max_name: str, max_seqlen, like: torch.Tensor) -> None:
    if not isinstance(cu_seqlens, torch.Tensor) or cu_seqlens.dtype != torch.int32:
        found = getattr(cu_seqlens, "dtype", type(cu_seqlens).__name__)
        raise ArgumentTypeError(
            f"{name} is of {found}; accepted: an int32 tensor of cumulative lengths. Convert it, e.g. {name}.int()"
        )
    check_shape(name, cu_seqlens, ("B+1",))
    check_device(name, cu_seqlens, like)
    if cu_seqlens.shape[0] < 1:
        raise ArgumentValueError(f"{name} is empty; accepted: [B+1] lengths that begin with 0")
    if max_seqlen < 0:
        raise ArgumentValueError(f"{max_name} is {max_seqlen}; accepted: the longest sentence's length")


def _check_options(like, heads, max_q, max_k, bias, alibi_slopes, window) -> tuple[int, int]:
    if bias is not None:
        check_parameter("bias", bias, (heads, "S", "S"), like, float32_too=True)
        if bias.shape[1] < max_q or bias.shape[2] < max_k:
            raise ArgumentValueError(
                f"bias has shape {list(bias.shape)}; accepted: [{heads}, at least {max_q}, at least {max_k}], one score "
                "for every pair of positions"
            )
    if alibi_slopes is not None:
        check_shape("alibi_slopes", alibi_slopes, (heads,))
        check_device("alibi_slopes", alibi_slopes, like)
        if alibi_slopes.dtype != torch.float32:
            raise ArgumentTypeError(f"alibi_slopes has dtype {alibi_slopes.dtype}; accepted: float32")
    left, right = (-1, -1) if window is None else window
    if left < -1 or right < -1:
        raise ArgumentValueError(
            f"window is ({left}, {right}); accepted: (left, right) of at least 0, or -1 for all keys on that side"
        )
    return left, right
