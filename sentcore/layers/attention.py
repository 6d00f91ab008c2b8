"""Self-attention with its output projection."""

from __future__ import annotations

import torch
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.layers.int8 import Int8Linear
from sentcore.layers.positions import NOWHERE, Positions, Prefix
from sentcore.layers.rounded import RoundedLinear
from sentcore.ops import draw_seed
from sentcore.ops.backends import ops_of
from sentcore.ops.inference_linear import InferenceLinear, usable
from sentcore.ops.plain import is_plain
from sentcore.packed import PackedBatch


class Attention(nn.Module):
    """output(attention(x)) (Vaswani et al. 2017); the layer around it adds, drops out and normalizes.

    Queries, keys and values stay three nn.Linear, so that adapters and optimizers find the modules they know; the
    projection reads the three weights in one op. `layer_norm` stands behind the residual, or before x where the
    architecture normalizes first; None before the first attention of such a one.
    """

    def __init__(self, config: EncoderConfig, backend: str = "auto", *, has_norm: bool = True) -> None:
        super().__init__()
        self.backend = backend
        self.num_heads = config.num_attention_heads
        self.attention_dropout_p = config.attention_probs_dropout_prob
        hidden = config.hidden_size
        self.query = nn.Linear(hidden, hidden, bias=config.attention_bias)
        self.key = nn.Linear(hidden, hidden, bias=config.attention_bias)
        self.value = nn.Linear(hidden, hidden, bias=config.attention_bias)
        # One [T, H] -> [T, 3H] in the place of the three: in 8 bits, or as another model keeps it.
        self.qkv: nn.Module | None = None
        self.output = nn.Linear(hidden, hidden, bias=config.attention_output_bias)
        self.layer_norm = nn.LayerNorm(hidden, config.layer_norm_eps, bias=config.norm_bias) if has_norm else None
        self.packs_weights = True  # for inference; not where another library's code may write to them unseen
        self._packed_qkv, self._packed_output = InferenceLinear(), InferenceLinear()

    def forward(self, x: torch.Tensor, batch: PackedBatch, positions: Positions = NOWHERE) -> torch.Tensor:
        """[T, H] -> [T, H]."""
        return self.project_output(self.context(x, batch, positions))

    def context(self, x: torch.Tensor, batch: PackedBatch, positions: Positions = NOWHERE) -> torch.Tensor:
        """[T, H] -> [T, H], what the output projection is given."""
        dropout_p = self.attention_dropout_p if self.training else 0.0
        if positions.prefix is not None:
            return self._behind(positions.prefix, x, batch, positions.rotary, dropout_p)
        context = ops_of(self.backend).varlen_attention(
            self.project(x, positions.rotary),
            batch.cu_seqlens,
            batch.max_seqlen,
            bias=positions.bias,
            alibi_slopes=positions.alibi_slopes,
            window=positions.window,
            dropout_p=dropout_p,
            seed=draw_seed(dropout_p, None, x),
        )
        return context.flatten(1)

    def _behind(
        self,
        prefix: Prefix,
        x: torch.Tensor,
        batch: PackedBatch,
        rotary: tuple[torch.Tensor, torch.Tensor] | None,
        dropout_p: float,
    ) -> torch.Tensor:
        """[T, H] -> [T, H], every sentence seeing its prefix too."""
        qkv = self.project(x, rotary)
        context = ops_of(self.backend).varlen_cross_attention(
            qkv[:, 0],
            torch.cat((prefix.keys_values.to(qkv.dtype), qkv[:, 1:]))[prefix.order],
            batch.cu_seqlens,
            prefix.cu_seqlens,
            batch.max_seqlen,
            prefix.max_seqlen,
            dropout_p=dropout_p,
            seed=draw_seed(dropout_p, None, x),
        )
        return context.flatten(1)

    def of_rows(
        self, x: torch.Tensor, rows: torch.Tensor, batch: PackedBatch, positions: Positions = NOWHERE
    ) -> torch.Tensor:
        """[T, H], [B] int64, one row of each sentence -> [B, H]: what `forward` gives for these rows; no window, no ALiBi."""
        ops = ops_of(self.backend)
        queries, keys_values = self._project_rows(x, rows, positions.rotary)
        context = ops.varlen_cross_attention(
            queries,
            keys_values,
            torch.arange(rows.shape[0] + 1, dtype=torch.int32, device=x.device),
            batch.cu_seqlens,
            1,
            batch.max_seqlen,
            bias=positions.bias,
        )
        return self.project_output(context.flatten(1))

    def project_output(self, context: torch.Tensor) -> torch.Tensor:
        """[T, H] -> [T, H]."""
        if not is_plain(self.output):
            return self.output(context)
        if self.packs_weights and usable(context, self.backend):
            return self._packed_output(context, (self.output,))
        return ops_of(self.backend).linear(context, self.output.weight, self.output.bias)

    def round_weights(self, kind: type[RoundedLinear]) -> None:
        """Its linear layers in 8 bits, of that kind; queries, keys and values become one, `qkv`."""
        self.qkv = kind((self.query, self.key, self.value), self.backend)
        self.query = self.key = self.value = None
        self.output = kind((self.output,), self.backend)

    def packed_weights(self) -> tuple[torch.Tensor, ...]:
        """Values, scale and bias of the projection and of what follows the attention, as `encoder_layers` takes them."""
        if isinstance(self.qkv, Int8Linear):
            return *self.qkv.packed_weights(), *self.output.packed_weights()
        linears = (self.query, self.key, self.value)
        return *self._packed_qkv.packed_weights(linears), *self._packed_output.packed_weights((self.output,))

    def project(self, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
        """[T, H] -> [T, 3, N, D], queries, keys and values as the attention takes them: queries and keys turned by `rotary`."""
        linears = (self.query, self.key, self.value) if self.qkv is None else (self.qkv,)
        if not is_plain(*linears):
            products = [linear(x) for linear in linears]
            return self._split(products[0] if len(products) == 1 else torch.cat(products, dim=-1), rotary)
        if self.packs_weights and usable(x, self.backend):
            return self._split(self._packed_qkv(x, linears), rotary)
        weights, biases = zip(*((linear.weight, linear.bias) for linear in linears), strict=True)
        if len(linears) == 1:
            weights, biases = weights[0], biases[0]
        elif biases[0] is None:
            biases = None
        return ops_of(self.backend).qkv_projection(x, weights, biases, num_heads=self.num_heads, rotary=rotary)

    def _project_rows(
        self, x: torch.Tensor, rows: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[T, H], [B] int64 -> queries [B, N, D] of these rows, keys and values [T, 2, N, D] of all, as `project` gives them."""
        linears, hidden = (self.query, self.key, self.value), x.shape[1]
        packs = self.packs_weights and rotary is None and self.qkv is None
        if packs and is_plain(*linears) and usable(x, self.backend):
            keys_values = self._packed_qkv.some_columns(x, linears, hidden, 2 * hidden)
            if keys_values is not None:
                queries = self._packed_qkv.some_columns(x[rows], linears, 0, hidden)
                return queries.unflatten(1, (self.num_heads, -1)), keys_values.unflatten(1, (2, self.num_heads, -1))
        qkv = self.project(x, rotary)
        return qkv[rows, 0], qkv[:, 1:].contiguous()

    def _split(self, product: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
        qkv = product.view(product.shape[0], 3, self.num_heads, product.shape[1] // (3 * self.num_heads))
        return qkv if rotary is None else turned(qkv, *rotary)


def turned(qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries and keys of [T, 3, N, D] turned by [T, D/2] angles, half-split layout; in place where no gradient is asked for."""
    cos, sin = cos[:, None, None, :].to(qkv.dtype), sin[:, None, None, :].to(qkv.dtype)
    first, second = qkv[:, :2].chunk(2, dim=-1)
    if qkv.requires_grad:
        queries_and_keys = torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
        return torch.cat((queries_and_keys, qkv[:, 2:]), dim=1)
    kept = first * sin
    first.mul_(cos).sub_(second * sin)
    second.mul_(cos).add_(kept)
    return qkv
