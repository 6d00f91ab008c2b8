"""The parts that tokens have in a feature, where pooling and what follows it are linear."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sentcore.explain.passes import Prepared, watching
from sentcore.explain.shares import pooling_shares
from sentcore.outputs import Dense, Normalize, Pooling
from sentcore.sentence_encoder import SentenceEncoder

SPREAD = ("mean", "mean_sqrt_len_tokens", "weightedmean", "first_last_avg", "avg_top2")


def is_linear(stages: Sequence[nn.Module]) -> bool:
    """Whether a pooling, then Dense stages without activation, and perhaps a Normalize at the end are all there is."""
    behind = list(stages)[1:]
    if behind and isinstance(behind[-1], Normalize):
        behind.pop()
    linear = all(isinstance(stage, Dense) and stage.activation == "identity" for stage in behind)
    return isinstance(stages[0], Pooling) and linear


def spreads(stages: Sequence[nn.Module]) -> bool:
    """Whether the pooling is a mean of all tokens' rows in every mode."""
    return all(mode in SPREAD for mode in stages[0].spec.modes)


def exact_parts(model: SentenceEncoder, text: Prepared) -> tuple[torch.Tensor, torch.Tensor]:
    """([T, E], [E]) float64 on the CPU: of every token, and of what is no token's, Dense's biases."""
    with watching(model) as seen:
        model.model(text.batch, text.prompt_length)
    stage, args = seen.pooling
    _, parts = pooling_shares(stage, *args)
    parts = parts.double()
    rest = torch.zeros_like(parts[:1])
    for dense in model.model.outputs:
        if isinstance(dense, Dense):
            weight, bias = dense.linear.weight.double(), dense.linear.bias
            parts, rest = parts @ weight.T, rest @ weight.T
            rest = rest if bias is None else rest + bias.double()
    return parts.cpu(), rest[0].cpu()
