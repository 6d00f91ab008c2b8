"""What follows the encoder, as data: the modules a model folder names after its Transformer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
HEAD_POOLINGS = ("cls", "mean")
ACTIVATIONS = ("identity", "tanh", "relu", "gelu", "gelu_tanh", "sigmoid", "silu")


@dataclass(frozen=True)
class PoolingSpec:
    """Token features to one sentence feature; several modes are concatenated in the order given.

    Attributes:
        modes: from POOLING_MODES, sentence-transformers' names.
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


@dataclass(frozen=True)
class ClassificationHeadSpec:
    """Sentence features to label scores: dense -> activation -> LayerNorm (where there is one) -> output.

    Attributes:
        hidden_size: H, width of what comes in and of the dense layer.
        num_labels: scores a sentence gets.
        activation: one of ACTIVATIONS, behind the dense layer.
        pooling: one of HEAD_POOLINGS, "cls" for the first token's feature.
        dense_bias: whether the dense layer has a bias; the output layer always has.
        norm, norm_bias, norm_eps: whether there is a LayerNorm, and its form.
        dropout_prob: before the output layer while training; with dropout_before_dense also before the dense layer.
    """

    hidden_size: int
    num_labels: int
    activation: str = "tanh"
    pooling: str = "cls"
    dense_bias: bool = True
    norm: bool = False
    norm_bias: bool = True
    norm_eps: float = 1e-12
    dropout_prob: float = 0.1
    dropout_before_dense: bool = False


OutputSpec = PoolingSpec | DenseSpec | NormalizeSpec
