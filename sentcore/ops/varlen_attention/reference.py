"""varlen_attention in plain PyTorch: the definition.

Scaled dot-product attention: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762. ALiBi: Press et al. 2021,
https://arxiv.org/abs/2108.12409. The packed layout and the meaning of window and causal are FlashAttention's.

Sentences of equal length are computed together, so nothing is padded and a batch sorted by length copies nothing.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F

MAX_SCORES = 2**24  # elements of [n, N, Sq, Sk] held at once; longer groups are computed in parts


def varlen_attention(
    qkv: torch.Tensor,  # [T, 3, N, D]
    cu_seqlens: torch.Tensor,  # [B+1] int32
    max_seqlen: int,
    *,
    scale: float | None = None,
    bias: torch.Tensor | None = None,  # [N, S, S]
    alibi_slopes: torch.Tensor | None = None,  # [N] float32
    window: tuple[int, int] | None = None,
    causal: bool = False,
    dropout_p: float = 0.0,
    seed: torch.Tensor | None = None,  # [2] int64
) -> torch.Tensor:  # [T, N, D]
    """Self-attention inside each sentence, differentiable by torch's own autograd."""
    q, k, v = qkv.unbind(1)
    options = Options(scale, bias, alibi_slopes, window, causal, dropout_p, seed, max_seqlen)
    return forward(q, k, v, cu_seqlens, cu_seqlens, options)[0]


def varlen_cross_attention(
    q: torch.Tensor,  # [Tq, N, D]
    kv: torch.Tensor,  # [Tk, 2, N, D]
    cu_seqlens_q: torch.Tensor,  # [B+1] int32
    cu_seqlens_k: torch.Tensor,  # [B+1] int32
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    scale: float | None = None,
    bias: torch.Tensor | None = None,  # [N, Sq, Sk]
    alibi_slopes: torch.Tensor | None = None,  # [N] float32
    window: tuple[int, int] | None = None,
    causal: bool = False,
    dropout_p: float = 0.0,
    seed: torch.Tensor | None = None,  # [2] int64
) -> torch.Tensor:  # [Tq, N, D]
    """Attention from each sentence to its partner, differentiable by torch's own autograd."""
    k, v = kv.unbind(1)
    options = Options(scale, bias, alibi_slopes, window, causal, dropout_p, seed, max_seqlen_k)
    return forward(q, k, v, cu_seqlens_q, cu_seqlens_k, options)[0]


class Options:
    """What varies between calls, as the user's functions take it."""

    def __init__(self, scale, bias, alibi_slopes, window, causal, dropout_p, seed, max_seqlen_k):
        self.scale, self.bias, self.alibi_slopes = scale, bias, alibi_slopes
        self.left, self.right = (-1, -1) if window is None else window
        self.causal, self.dropout_p, self.seed = causal, dropout_p, seed
        self.max_seqlen_k = max_seqlen_k

    @property
    def plain(self) -> bool:
        """Nothing but softmax(q k^T / sqrt(D)) v, which torch has as one call."""
        masked = self.causal or self.left >= 0 or self.right >= 0
        added = self.bias is not None or self.alibi_slopes is not None
        return not (masked or added or self.dropout_p > 0.0)


def forward(
    q: torch.Tensor,  # [Tq, N, D]
    k: torch.Tensor,  # [Tk, N, D]
    v: torch.Tensor,  # [Tk, N, D]
    cu_seqlens_q: torch.Tensor,  # [B+1] int32
    cu_seqlens_k: torch.Tensor,  # [B+1] int32
    options: Options,
    with_lse: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """out [Tq,N,D] and, when asked for, the log-sum-exp of each row's scores [Tq,N] (-inf where nothing is visible)."""
    outs, lses, places = [], [], []
    for rows, columns, n in _groups(cu_seqlens_q, cu_seqlens_k, q.shape[1]):
        group_q, group_k, group_v = _take(q, rows, n), _take(k, columns, n), _take(v, columns, n)
        if options.plain and not with_lse and group_k.shape[2]:
            out = F.scaled_dot_product_attention(group_q, group_k, group_v, scale=options.scale)
        else:
            scores, visible = _scores(group_q, group_k, options)
            lse = torch.logsumexp(scores, dim=-1) if scores.shape[-1] else scores.sum(-1) - torch.inf
            probabilities = _probabilities(scores, lse, visible)
            if options.dropout_p > 0.0:
                keep = _keep(rows, n, scores.shape, options)
                probabilities = probabilities * keep / (1.0 - options.dropout_p)
            out = (probabilities @ group_v.to(probabilities.dtype)).to(q.dtype)
            lses.append(lse.transpose(1, 2).flatten(0, 1))
        outs.append(out.transpose(1, 2).flatten(0, 1))
        places.append(rows)
    out = _put(outs, places, q)
    return out, _put(lses, places, q.new_empty(q.shape[:2], dtype=_wide(q))) if with_lse else None


def backward(
    grad_out: torch.Tensor,  # [Tq, N, D]
    q: torch.Tensor,  # [Tq, N, D]
    k: torch.Tensor,  # [Tk, N, D]
    v: torch.Tensor,  # [Tk, N, D]
    lse: torch.Tensor,  # [Tq, N] float32 | float64
    cu_seqlens_q: torch.Tensor,  # [B+1] int32
    cu_seqlens_k: torch.Tensor,  # [B+1] int32
    options: Options,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The explicit backward: grad_q [Tq,N,D], grad_k [Tk,N,D], grad_v [Tk,N,D], grad_bias like bias or None."""
    scale = _scale(q, options)
    grad_q, grad_k, grad_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    wide = _wide(q)
    grad_bias = None if options.bias is None else torch.zeros_like(options.bias, dtype=wide)
    for rows, columns, n in _groups(cu_seqlens_q, cu_seqlens_k, q.shape[1]):
        group_q, group_k, group_v, grad = (
            _take(tensor, place, n).to(wide)
            for tensor, place in ((q, rows), (k, columns), (v, columns), (grad_out, rows))
        )
        scores, visible = _scores(group_q, group_k, options)
        group_lse = lse[rows].view(n, -1, lse.shape[1]).transpose(1, 2)
        probabilities = _probabilities(scores, group_lse, visible)
        grad_probabilities = grad @ group_v.transpose(-1, -2)
        dropped = probabilities
        if options.dropout_p > 0.0:
            keep = _keep(rows, n, scores.shape, options).to(wide) / (1.0 - options.dropout_p)
            dropped, grad_probabilities = probabilities * keep, grad_probabilities * keep
        mean = (probabilities * grad_probabilities).sum(-1, keepdim=True)
        grad_scores = probabilities * (grad_probabilities - mean)
        for total, place, part in (
            (grad_q, rows, (grad_scores @ group_k) * scale),
            (grad_k, columns, (grad_scores.transpose(-1, -2) @ group_q) * scale),
            (grad_v, columns, dropped.transpose(-1, -2) @ grad),
        ):
            total[place] = part.transpose(1, 2).flatten(0, 1).to(total.dtype)
        if grad_bias is not None:
            grad_bias[:, : scores.shape[2], : scores.shape[3]] += grad_scores.sum(0)
    return grad_q, grad_k, grad_v, None if grad_bias is None else grad_bias.to(options.bias.dtype)


def _groups(cu_seqlens_q, cu_seqlens_k, heads):
    """(query places, key places, n) of n sentences with equal lengths; a place is a slice, or an index where scattered."""
    starts_q, starts_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    groups: dict[tuple[int, int], list[int]] = {}
    for sentence in range(len(starts_q) - 1):
        lengths = (
            starts_q[sentence + 1] - starts_q[sentence],
            starts_k[sentence + 1] - starts_k[sentence],
        )
        groups.setdefault(lengths, []).append(sentence)
    for (length_q, length_k), sentences in groups.items():
        if length_q == 0 and length_k == 0:
            continue
        most = max(1, MAX_SCORES // max(1, heads * length_q * length_k))
        for first in range(0, len(sentences), most):
            part = sentences[first : first + most]
            rows = _place([starts_q[s] for s in part], length_q, cu_seqlens_q.device)
            columns = _place([starts_k[s] for s in part], length_k, cu_seqlens_k.device)
            yield rows, columns, len(part)


def _place(starts: list[int], length: int, device: torch.device) -> slice | torch.Tensor:
    if starts[-1] - starts[0] == (len(starts) - 1) * length:  # starts ascend, so these lie side by side
        return slice(starts[0], starts[0] + len(starts) * length)
    first = torch.tensor(starts, device=device)
    return (first[:, None] + torch.arange(length, device=device)).flatten()


def _take(tensor: torch.Tensor, place: slice | torch.Tensor, n: int) -> torch.Tensor:
    """[T, N, D] -> [n, N, S, D] of one group."""
    part = tensor[place]
    return part.view(n, part.shape[0] // n, *part.shape[1:]).transpose(1, 2)


def _put(parts: list[torch.Tensor], places: list, like: torch.Tensor) -> torch.Tensor:
    """The groups' rows back at their places in a tensor of `like`'s shape and dtype."""
    in_order = all(isinstance(place, slice) for place in places) and all(a.stop == b.start for a, b in pairwise(places))
    if in_order and parts and sum(part.shape[0] for part in parts) == like.shape[0]:
        return torch.cat(parts)
    out = torch.zeros(like.shape, dtype=like.dtype, device=like.device)
    for part, place in zip(parts, places, strict=True):
        out[place] = part
    return out


def _scores(
    q: torch.Tensor,  # [n, N, Sq, D]
    k: torch.Tensor,  # [n, N, Sk, D]
    options: Options,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scores [n,N,Sq,Sk] (float32, or float64), -inf where not visible, and the mask [Sq,Sk] or None."""
    wide = _wide(q)
    scores = (q.to(wide) @ k.to(wide).transpose(-1, -2)) * _scale(q, options)
    length_q, length_k = scores.shape[-2:]
    # The last query stands beside the last key, as in FlashAttention.
    row = torch.arange(length_q, device=q.device)[:, None] + (length_k - length_q)
    column = torch.arange(length_k, device=q.device)[None, :]
    if options.bias is not None:
        scores = scores + options.bias[:, :length_q, :length_k].to(wide)
    if options.alibi_slopes is not None:
        scores = scores - options.alibi_slopes.to(wide)[:, None, None] * (row - column).abs()
    visible = None
    if options.causal or options.left >= 0 or options.right >= 0:
        visible = torch.ones(length_q, length_k, dtype=torch.bool, device=q.device)
        if options.causal:
            visible &= column <= row
        if options.left >= 0:
            visible &= column >= row - options.left
        if options.right >= 0:
            visible &= column <= row + options.right
        scores = scores.masked_fill(~visible, -torch.inf)
    return scores, visible


def _probabilities(scores: torch.Tensor, lse: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
    """exp(scores - lse), zero in rows that see nothing."""
    if visible is None:
        return torch.exp(scores - lse[..., None])
    lse = lse.masked_fill(lse == -torch.inf, 0.0)
    return torch.exp(scores - lse[..., None]).masked_fill(~visible, 0.0)


def _scale(q: torch.Tensor, options: Options) -> float:
    return q.shape[-1] ** -0.5 if options.scale is None else options.scale


def _wide(q: torch.Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _keep(rows: slice | torch.Tensor, n: int, shape: torch.Size, options: Options) -> torch.Tensor:
    """[n, N, Sq, Sk] bool, True where dropout keeps the probability.

    The element index is (query token * N + head) * columns + key position in its sentence, where columns is
    max_seqlen_k rounded up to a multiple of four, so that one draw serves four keys; the bits are Philox4x32-10's
    (Salmon et al. 2011), key = seed[0], counter = (index // 4, seed[1]), word = index % 4.
    """
    seed, low32 = options.seed, 0xFFFFFFFF
    if isinstance(rows, slice):
        rows = torch.arange(rows.start, rows.stop, device=seed.device)
    token = rows.view(n, 1, shape[2], 1)
    head = torch.arange(shape[1], device=seed.device).view(1, -1, 1, 1)
    column = torch.arange(shape[3], device=seed.device)
    columns = -(-options.max_seqlen_k // 4) * 4
    index = (token * shape[1] + head) * columns + column
    key0, key1 = seed[0] & low32, (seed[0] >> 32) & low32
    c0, c1 = (index // 4) & low32, (index // 4) >> 32
    c2, c3 = (seed[1] & low32).expand_as(c0), ((seed[1] >> 32) & low32).expand_as(c0)
    for _ in range(10):
        product0, product2 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # wraps at 64 bits, as wanted
        high0, high2 = (product0 >> 32) & low32, (product2 >> 32) & low32
        c0, c1, c2, c3 = high2 ^ c1 ^ key0, product2 & low32, high0 ^ c3 ^ key1, product0 & low32
        key0, key1 = (key0 + 0x9E3779B9) & low32, (key1 + 0xBB67AE85) & low32
    words = torch.stack((c0, c1, c2, c3), dim=-1)
    word = words.gather(-1, (index % 4)[..., None]).squeeze(-1)
    return word >= int(options.dropout_p * 2**32)
