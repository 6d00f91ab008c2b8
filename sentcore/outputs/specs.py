"""What follows the encoder, as data: the modules a model folder names after its Transformer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
HEAD_POOLINGS = ("cls", "mean")
SPLADE_POOLINGS = ("max", "sum")
SPLADE_ACTIVATIONS = ("relu", "log1p_relu")
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


@dataclass(frozen=True)
class LinearSpec:
    """x @ weight.T + bias.

    Attributes:
        weight: [R, H] float32.
        bias: [R] float32, or None.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def module(self) -> nn.Linear:
        """The same as a layer."""
        rows, width = self.weight.shape
        linear = nn.Linear(width, rows, bias=False, device="meta")  # no time spent on weights that are replaced
        linear.weight = self.weight if isinstance(self.weight, nn.Parameter) else nn.Parameter(self.weight)
        linear.bias = None if self.bias is None else nn.Parameter(self.bias)
        return linear


@dataclass(frozen=True)
class SpladeSettings:
    """What SPLADE's head does, without its tensors.

    Attributes:
        pooling_strategy: from SPLADE_POOLINGS.
        activation_function: from SPLADE_ACTIVATIONS, followed by log1p.
        activation: "gelu" (erf), "gelu_tanh" or "relu", within the masked-LM head.
    """

    pooling_strategy: str
    activation_function: str
    activation: str

    @property
    def takes_max(self) -> bool:
        """Whether the largest is taken over a sentence's tokens, or the sum."""
        return self.pooling_strategy == "max"


@dataclass(frozen=True)
class SpladeSpec(SpladeSettings):
    """A masked-LM head and the pooling of its logits: decoder(LayerNorm(act(dense(h)))).

    Attributes:
        dense: [H, H]; norm: LayerNorm's weight [H] and bias.
        eps: LayerNorm's.
        decoder: [V, H] float32, or None for the encoder's word embeddings.
        decoder_bias: [V] float32, or None.
    """

    dense: LinearSpec
    norm: LinearSpec
    eps: float
    decoder: torch.Tensor | None
    decoder_bias: torch.Tensor | None

    def settings(self) -> SpladeSettings:
        """The same without tensors."""
        return SpladeSettings(self.pooling_strategy, self.activation_function, self.activation)


@dataclass(frozen=True)
class Heads:
    """What a folder gives beside sentence features.

    Attributes:
        sparse: bge-m3's sparse head, SPLADE's, or None.
        colbert: bge-m3's ColBERT head, or None.
        special_tokens: names of the tokens that bge-m3's sparse head leaves out.
    """

    sparse: LinearSpec | SpladeSpec | None = None
    colbert: LinearSpec | None = None
    special_tokens: tuple[str, ...] = ()
