"""BERT (model_type "bert"; Devlin et al. 2018, https://arxiv.org/abs/1810.04805)."""

from __future__ import annotations

from pathlib import Path

from sentcore.checkpoint.families.reading import SHARED, absolute_positions, activation, build, same
from sentcore.checkpoint.naming import MaskedLMNames, Names
from sentcore.config import EncoderConfig

EMBEDDINGS = {
    "embeddings.word_embeddings": "embeddings.word_embeddings",
    "embeddings.position_embeddings": "embeddings.position_embeddings",
    "embeddings.token_type_embeddings": "embeddings.token_type_embeddings",
    "embeddings.LayerNorm": "embeddings.layer_norm",
}
INNER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention.layer_norm",
    "intermediate.dense": "feed_forward.up",
    "output.dense": "feed_forward.down",
    "output.LayerNorm": "feed_forward.layer_norm",
}
MASKED_LM = MaskedLMNames(
    dense="cls.predictions.transform.dense",
    norm="cls.predictions.transform.LayerNorm",
    decoder="cls.predictions.decoder",
    bias=("cls.predictions.bias", "cls.predictions.decoder.bias"),
    activation=("hidden_act", "gelu"),
)
NAMES = Names(prefixes=("bert.",), outer=EMBEDDINGS, layer="encoder.layer.{}.", inner=INNER)


def config_from_hf(values: dict, path: Path) -> EncoderConfig:
    """The EncoderConfig of a config.json; CheckpointError by file, field, value and what is accepted."""
    absolute_positions(values, path)
    return build(values, path, same(*SHARED), hidden_act=activation(values, path))
