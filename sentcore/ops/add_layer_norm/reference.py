"""add_layer_norm in plain PyTorch: the definition every kernel is tested against.

LayerNorm: Ba et al. 2016, https://arxiv.org/abs/1607.06450; the residual form is BERT's (Devlin et al. 2018).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def add_layer_norm(
    x: torch.Tensor,  # [T, H]
    residual: torch.Tensor | None,  # [T, H]
    weight: torch.Tensor,  # [H]
    norm_bias: torch.Tensor | None,  # [H]
    *,
    x_bias: torch.Tensor | None = None,  # [H]
    dropout_p: float = 0.0,
    seed: torch.Tensor | None = None,  # [2] int64
    eps: float,
    return_total: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """LayerNorm(residual + dropout(x + x_bias)), differentiable by torch's own autograd."""
    total = _total(x, residual, x_bias, dropout_p, seed)
    if weight.dtype == total.dtype:
        out = F.layer_norm(total, weight.shape, weight, norm_bias, eps)
    else:  # float32 parameters beside a half-precision x
        bias = None if norm_bias is None else norm_bias.float()
        out = F.layer_norm(total.float(), weight.shape, weight, bias, eps).to(x.dtype)
    return (out, total) if return_total else out


def add_layer_norm_forward(
    x: torch.Tensor,  # [T, H]
    residual: torch.Tensor | None,  # [T, H]
    weight: torch.Tensor,  # [H]
    norm_bias: torch.Tensor | None,  # [H]
    x_bias: torch.Tensor | None,  # [H]
    dropout_p: float,
    seed: torch.Tensor | None,  # [2] int64
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """As above, with what the backward needs: out [T,H], total [T,H], mean [T] and rstd [T] (float32, or float64)."""
    out, total = add_layer_norm(
        x,
        residual,
        weight,
        norm_bias,
        x_bias=x_bias,
        dropout_p=dropout_p,
        seed=seed,
        eps=eps,
        return_total=True,
    )
    wide = total.to(_accumulate(x))
    mean = wide.mean(dim=1)
    variance = (wide - mean[:, None]).square().mean(dim=1)
    return out, total, mean, torch.rsqrt(variance + eps)


def add_layer_norm_backward(
    grad_out: torch.Tensor,  # [T, H]
    grad_total: torch.Tensor | None,  # [T, H]
    total: torch.Tensor,  # [T, H]
    mean: torch.Tensor,  # [T] float32 | float64
    rstd: torch.Tensor,  # [T] float32 | float64
    weight: torch.Tensor,  # [H]
    dropout_p: float,
    seed: torch.Tensor | None,  # [2] int64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The explicit backward.

    Returns:
        grad_x [T,H], grad_residual [T,H], grad_weight [H], grad_norm_bias [H], grad_x_bias [H].
    """
    wide = mean.dtype
    grad = grad_out.to(wide)
    normalized = (total.to(wide) - mean[:, None]) * rstd[:, None]
    scaled = grad * weight.to(wide)
    grad_residual = rstd[:, None] * (
        scaled - scaled.mean(dim=1, keepdim=True) - normalized * (scaled * normalized).mean(dim=1, keepdim=True)
    )
    if grad_total is not None:
        grad_residual = grad_residual + grad_total.to(wide)
    grad_x = grad_residual
    if dropout_p > 0.0:
        grad_x = grad_x * keep_mask(total.shape, dropout_p, seed) / (1.0 - dropout_p)
    return (
        grad_x.to(total.dtype),
        grad_residual.to(total.dtype),
        (grad * normalized).sum(dim=0).to(weight.dtype),
        grad.sum(dim=0).to(weight.dtype),
        grad_x.sum(dim=0).to(weight.dtype),
    )


def keep_mask(shape: tuple[int, int], dropout_p: float, seed: torch.Tensor) -> torch.Tensor:
    """[T, H] bool, True where dropout keeps the element.

    Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): key = seed[0], counter = (element
    index // 4, seed[1]), word = element index % 4; kept when the word is at least dropout_p * 2^32.
    """
    low32 = 0xFFFFFFFF
    index = torch.arange(shape[0] * shape[1], dtype=torch.int64, device=seed.device)
    key0, key1 = seed[0] & low32, (seed[0] >> 32) & low32
    block = index // 4
    c0, c1 = block & low32, block >> 32
    c2, c3 = (seed[1] & low32).expand_as(c0), ((seed[1] >> 32) & low32).expand_as(c0)
    for _ in range(10):
        product0, product2 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # wraps at 64 bits, as wanted
        high0, high2 = (product0 >> 32) & low32, (product2 >> 32) & low32
        c0, c1, c2, c3 = high2 ^ c1 ^ key0, product2 & low32, high0 ^ c3 ^ key1, product0 & low32
        key0, key1 = (key0 + 0x9E3779B9) & low32, (key1 + 0xBB67AE85) & low32
    words = torch.stack((c0, c1, c2, c3), dim=-1)
    word = words.gather(-1, (index % 4)[:, None]).squeeze(-1)
    return (word >= int(dropout_p * 2**32)).view(shape)


def _total(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    x_bias: torch.Tensor | None,
    dropout_p: float,
    seed: torch.Tensor | None,
) -> torch.Tensor:
    total = x if x_bias is None else (x + x_bias).to(x.dtype)
    if dropout_p > 0.0:
        total = torch.where(keep_mask(x.shape, dropout_p, seed), total / (1.0 - dropout_p), 0.0)
    return total if residual is None else residual + total


def _accumulate(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
