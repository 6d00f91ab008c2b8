"""embedding_layer_norm in plain PyTorch: the definition. BERT's input: Devlin et al. 2018, https://arxiv.org/abs/1810.04805."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def embedding_layer_norm(
    token_ids: torch.Tensor,  # [T] int64
    position_ids: torch.Tensor | None,  # [T] int64
    token_type_ids: torch.Tensor | None,  # [T] int64
    word: torch.Tensor,  # [V, H]
    position: torch.Tensor | None,  # [P, H]
    token_type: torch.Tensor | None,  # [Y, H]
    weight: torch.Tensor,  # [H]
    norm_bias: torch.Tensor | None,  # [H]
    *,
    eps: float,
) -> torch.Tensor:  # [T, H]
    """LayerNorm of the sum of each token's rows, differentiable by torch's own autograd."""
    total = _sum(token_ids, position_ids, token_type_ids, word, position, token_type)
    if weight.dtype == total.dtype:
        return F.layer_norm(total, weight.shape, weight, norm_bias, eps)
    wide_bias = None if norm_bias is None else norm_bias.float()
    return F.layer_norm(total.float(), weight.shape, weight, wide_bias, eps).to(total.dtype)


def embedding_layer_norm_forward(
    token_ids, position_ids, token_type_ids, word, position, token_type, weight, norm_bias, eps
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """out [T,H], and for the backward total [T,H], mean [T], rstd [T] (float32, or float64)."""
    total = _sum(token_ids, position_ids, token_type_ids, word, position, token_type)
    wide = total.to(torch.float64 if total.dtype == torch.float64 else torch.float32)
    mean = wide.mean(dim=1)
    centered = wide - mean[:, None]
    rstd = torch.rsqrt(centered.square().mean(dim=1) + eps)
    out = centered * rstd[:, None] * weight.to(wide.dtype)
    if norm_bias is not None:
        out = out + norm_bias.to(wide.dtype)
    return out.to(total.dtype), total, mean, rstd


def embedding_gradient(
    grad: torch.Tensor,  # [T, H]
    ids: torch.Tensor,  # [T] int64
    num_rows: int,
) -> torch.Tensor:  # [num_rows, H]
    """The gradient of a table from that of its gathered rows: row r is the sum over the tokens whose id is r."""
    wide = torch.float64 if grad.dtype == torch.float64 else torch.float32
    table = torch.zeros((num_rows, grad.shape[1]), dtype=wide, device=grad.device)
    return table.index_add_(0, ids, grad.to(wide)).to(grad.dtype)


def _sum(token_ids, position_ids, token_type_ids, word, position, token_type) -> torch.Tensor:
    total = word[token_ids]
    if token_type is not None:
        total = total + token_type[token_type_ids]
    return total if position is None else total + position[position_ids]
