"""The classification head of every family that has one in transformers (its ...ForSequenceClassification), as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from sentcore.checkpoint.families import (
    albert,
    bert,
    distilbert,
    electra,
    gte,
    modernbert,
    mpnet,
    nomic_bert,
    roberta,
)
from sentcore.checkpoint.families.reading import activation
from sentcore.checkpoint.files import field, shown
from sentcore.config import EncoderConfig
from sentcore.errors import CheckpointError
from sentcore.outputs.specs import HEAD_POOLINGS, ClassificationHeadSpec


@dataclass(frozen=True)
class Head:
    """dense -> activation [-> norm] -> output, on one token's feature or on the mean of all.

    Attributes:
        dense, output, norm: stems of the tensors' names; {} stands for the encoder's prefix, where a tensor is kept with it.
        activation: one of sentcore.outputs' ACTIVATIONS, or a field of config.json in braces.
        dropout: the field that holds the probability; absent or null it is `dropout_default`, None for hidden_dropout_prob.
        dropout_before_dense: whether dropout acts there too; before the output layer it always does.
        dense_bias, pooling: the field of config.json that decides, and what holds without it.
    """

    dense: str
    output: str
    activation: str = "tanh"
    norm: str | None = None
    dropout: str = "classifier_dropout"
    dropout_default: float | None = None
    dropout_before_dense: bool = False
    dense_bias: tuple[str, bool] | None = None
    pooling: tuple[str, str] | None = None

    def names(self, prefix: str) -> dict[str, str]:
        """Our stem -> the checkpoint's."""
        named = {"dense": self.dense, "norm": self.norm, "output": self.output}
        return {ours: theirs.format(prefix) for ours, theirs in named.items() if theirs is not None}

    def spec(self, values: dict, path: Path, config: EncoderConfig, num_labels: int) -> ClassificationHeadSpec:
        """The head that config.json describes; CheckpointError by file, field, value and what is accepted."""
        dropout = config.hidden_dropout_prob if self.dropout_default is None else self.dropout_default
        dropout = field(values, self.dropout, (int, float), dropout, path)
        if not 0 <= dropout < 1:
            raise CheckpointError(f"{path}: {self.dropout} is {dropout!r}; accepted: a probability in [0, 1)")
        bias = True if self.dense_bias is None else field(values, self.dense_bias[0], (bool,), self.dense_bias[1], path)
        pooling = "cls" if self.pooling is None else field(values, self.pooling[0], (str,), self.pooling[1], path)
        if pooling not in HEAD_POOLINGS:
            raise CheckpointError(
                f"{path}: {self.pooling[0]} is {shown(pooling)}; accepted: {', '.join(HEAD_POOLINGS)}"
            )
        act = self.activation
        return ClassificationHeadSpec(
            hidden_size=config.hidden_size,
            num_labels=num_labels,
            activation=activation(values, path, act[1:-1]) if act.startswith("{") else act,
            pooling=pooling,
            dense_bias=bias,
            norm=self.norm is not None,
            norm_bias=config.norm_bias,
            norm_eps=config.layer_norm_eps,
            dropout_prob=float(dropout),
            dropout_before_dense=self.dropout_before_dense,
        )


_POOLER = Head("{}pooler.dense", "classifier")
_OWN = Head("classifier.dense", "classifier.out_proj", dropout_before_dense=True)
# Jina's BERT is not here: transformers has no such class to compare with.
HEADS: dict[ModuleType, Head] = {
    bert: _POOLER,
    nomic_bert: _POOLER,
    gte: _POOLER,
    albert: Head("{}pooler", "classifier", dropout="classifier_dropout_prob", dropout_default=0.1),
    roberta: _OWN,
    electra: Head("classifier.dense", "classifier.out_proj", activation="gelu", dropout_before_dense=True),
    mpnet: Head("classifier.dense", "classifier.out_proj", dropout="hidden_dropout_prob", dropout_before_dense=True),
    distilbert: Head(
        "pre_classifier", "classifier", activation="relu", dropout="seq_classif_dropout", dropout_default=0.2
    ),
    modernbert: Head(
        "head.dense",
        "classifier",
        activation="{classifier_activation}",
        norm="head.norm",
        dropout_default=0.0,
        dense_bias=("classifier_bias", False),
        pooling=("classifier_pooling", "cls"),
    ),
}


def head_of(family: ModuleType, path: Path) -> Head:
    """The family's head.

    Raises:
        CheckpointError: it has none that is known.
    """
    if family not in HEADS:
        name = family.__name__.rpartition(".")[2]
        known = ", ".join(sorted(module.__name__.rpartition(".")[2] for module in HEADS))
        raise CheckpointError(
            f"{path} describes a model of the family {name!r}, whose classification head is not known; accepted as "
            f"cross-encoders: {known}. Another head would give wrong scores, so it is refused"
        )
    return HEADS[family]
