"""Pooling over the outputs of two layers, as published for Chinese and other sentence encoders.

"first_last_avg" averages the first layer's output and the last's (Su et al. 2021, https://arxiv.org/abs/2103.15316),
"avg_top2" those of the last two (Li et al. 2020, https://arxiv.org/abs/2011.05864, "last2avg"); then both take the mean over
a sentence's tokens. Hidden state 0 is the embeddings, n the n-th layer's output; the last has passed the model's final
LayerNorm where it has one, as in transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from sentcore.errors import ArgumentValueError
from sentcore.ops import segment_pooling
from sentcore.outputs.specs import LAYER_POOLING_MODES


def hidden_states_of(mode: str, num_layers: int) -> tuple[int, int]:
    """Which two hidden states a mode averages in a model of so many layers.

    Raises:
        ArgumentValueError: the model has too few layers.
    """
    first = {"first_last_avg": 1, "avg_top2": num_layers - 1}[mode]
    if first < 1 or num_layers < 1:
        raise ArgumentValueError(
            f"pooling mode is {mode!r} in a model of {num_layers} layers; accepted: at least "
            f"{2 if mode == 'avg_top2' else 1}. Pool by 'mean'"
        )
    return first, num_layers


def hidden_states_needed(modes: Iterable[str], num_layers: int) -> list[int]:
    """Which hidden states the modes need beside the last, ascending; none for modes of the last alone."""
    needed = {state for mode in modes if mode in LAYER_POOLING_MODES for state in hidden_states_of(mode, num_layers)}
    return sorted(needed - {num_layers})


def pool_layers(
    states: Mapping[int, torch.Tensor], mode: str, num_layers: int, cu_seqlens: torch.Tensor, skip: int
) -> torch.Tensor:
    """[T, H] of each hidden state needed -> [B, H] float32.

    Each is pooled in float32 before the two are averaged, which is the same mean with fewer roundings.
    """
    first, last = (
        segment_pooling(states[state], cu_seqlens, mode="mean", skip=skip)
        for state in hidden_states_of(mode, num_layers)
    )
    return (first + last) / 2
