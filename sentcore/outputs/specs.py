"""What follows the encoder, as data: the modules a model folder names after its Transformer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
LAYER_POOLING_MODES = ("first_last_avg", "avg_top2")  # of two layers; no folder names them
ACTIVATIONS = ("identity", "tanh", "relu", "gelu", "gelu_tanh", "sigmoid", "silu")


@dataclass(frozen=True)
class PoolingSpec:
    """Token features to one sentence feature; several modes are concatenated in the order given.

    Attributes:
        modes: from POOLING_MODES, sentence-transformers' names, or from LAYER_POOLING_MODES.
        include_prompt: False leaves the prompt's tokens out.
    """

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True


@dataclass(frozen=True)
class DenseSpec:
    """activation(x @ weight.T + bias).

    Attributes:
        weight: [out_features, in_features] float32.
        bias: [out_features] float32, or None.
        activation: one of ACTIVATIONS.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    activation: str = "tanh"


@dataclass(frozen=True)
class NormalizeSpec:
    """Scale to length 1."""


OutputSpec = PoolingSpec | DenseSpec | NormalizeSpec
