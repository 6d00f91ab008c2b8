"""A layer in one op where nothing stands between its parts: BERT's, trained on a CPU in float32, unadapted and unobserved."""

from __future__ import annotations

import torch
from torch import nn

from sentcore._extension import extension
from sentcore.layers.positions import Positions
from sentcore.ops import draw_seed
from sentcore.ops.checks import needs_grad
from sentcore.ops.encoder_layer import encoder_layer
from sentcore.ops.plain import is_observed, is_plain
from sentcore.packed import PackedBatch

_FEWEST_TOKENS = 192  # below, packing the weights at every call costs more than is gained
# At H = 384 a step of the layer takes 0.85 to 0.95 of its parts' time. At 768 products are nearly all there is, and torch's own
# (MKL) are faster on some CPUs.
_MOST_HIDDEN = 512
_ACTIVATIONS = ("relu", "gelu", "gelu_tanh")


def whole_layer(layer: nn.Module, x: torch.Tensor, batch: PackedBatch, positions: Positions) -> torch.Tensor | None:
    """[T, H] -> [T, H] through an EncoderLayer, or None where its parts have to be run one by one."""
    if (
        x.shape[0] < _FEWEST_TOKENS
        or x.dtype != torch.float32
        or x.device.type != "cpu"
        or layer.backend == "reference"
    ):
        return None
    if (
        x.shape[1] > _MOST_HIDDEN
        or layer.norm_first
        or any(given is not None for given in positions)
        or not torch.is_grad_enabled()
    ):
        return None
    if extension() is None or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return None
    attention, network = layer.attention, layer.feed_forward
    if network.gated or network.activation not in _ACTIVATIONS or (layer.training and network.intermediate_dropout_p):
        return None
    if is_observed(attention) or is_observed(network):
        return None
    linears = (attention.query, attention.key, attention.value) if attention.qkv is None else (attention.qkv,)
    norms = (attention.layer_norm, network.layer_norm)
    modules = (*linears, attention.output, norms[0], network.up, network.down, norms[1])
    if not is_plain(*modules) or norms[0].eps != norms[1].eps:
        return None
    weights = [tensor for module in modules for tensor in (module.weight, module.bias)]
    if any(tensor is None or tensor.dtype != torch.float32 for tensor in weights) or not needs_grad(x, *weights):
        return None
    first = 2 * len(linears)
    attention_p = attention.attention_dropout_p if attention.training else 0.0
    hidden_p = layer.dropout_p if layer.training else 0.0
    # Drawn in the order of the parts, so that a seed gives the same masks as they do.
    seeds = [draw_seed(p, None, x) for p in (attention_p, hidden_p, hidden_p)]
    return encoder_layer(
        x,
        batch.cu_seqlens,
        batch.max_seqlen,
        weights[0:first:2] + weights[1:first:2],
        weights[first:],
        num_heads=attention.num_heads,
        activation=network.activation,
        eps=norms[0].eps,
        attention_dropout_p=attention_p,
        hidden_dropout_p=hidden_p,
        seeds=[batch.cu_seqlens if seed is None else seed for seed in seeds]
        if any(s is not None for s in seeds)
        else None,
    )
