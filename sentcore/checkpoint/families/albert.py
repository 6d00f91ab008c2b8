"""ALBERT (Lan et al. 2020, https://arxiv.org/abs/1909.11942): factorised embeddings, layers that share their weights."""

from __future__ import annotations

from pathlib import Path

from sentcore.checkpoint.families import bert
from sentcore.checkpoint.families.reading import SHARED, absolute_positions, activation, build, only, same
from sentcore.checkpoint.naming import Names
from sentcore.config import EncoderConfig

NAMES = Names(
    prefixes=("albert.",),
    outer={**bert.EMBEDDINGS, "encoder.embedding_hidden_mapping_in": "embeddings.projection"},
    layer="encoder.albert_layer_groups.{}.albert_layers.0.",
    inner={
        "attention.query": "attention.query",
        "attention.key": "attention.key",
        "attention.value": "attention.value",
        "attention.dense": "attention.output",
        "attention.LayerNorm": "attention.layer_norm",
        "ffn": "feed_forward.up",
        "ffn_output": "feed_forward.down",
        "full_layer_layer_norm": "feed_forward.layer_norm",
    },
    ignored=r"(pooler|predictions|sop_classifier|classifier|qa_outputs)\.?",
)


def config_from_hf(values: dict, path: Path) -> EncoderConfig:
    """The EncoderConfig of a config.json; CheckpointError by file, field, value and what is accepted."""
    absolute_positions(values, path)
    only(values, path, "inner_group_num", 1)
    named = same(
        *SHARED,
        vocab_size=30000,
        embedding_size=128,
        hidden_size=4096,
        num_attention_heads=64,
        intermediate_size=16384,
        num_hidden_groups=1,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
    )
    return build(values, path, named, hidden_act=activation(values, path, default="gelu_new"))
