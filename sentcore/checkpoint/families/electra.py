"""ELECTRA (Clark et al. 2020, https://arxiv.org/abs/2003.10555): BERT behind embeddings of a width of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sentcore.checkpoint.families import bert
from sentcore.checkpoint.families.reading import SHARED, absolute_positions, activation, build, same
from sentcore.checkpoint.naming import Names
from sentcore.config import EncoderConfig

NAMES = Names(
    prefixes=("electra.",),
    outer={**bert.EMBEDDINGS, "embeddings_project": "embeddings.projection"},
    layer="encoder.layer.{}.",
    inner=bert.INNER,
    ignored=r"(discriminator_predictions|generator_predictions|generator_lm_head|classifier|qa_outputs|pooler)\.",
)


def config_from_hf(values: dict, path: Path) -> EncoderConfig:
    """The EncoderConfig of a config.json; CheckpointError by file, field, value and what is accepted."""
    absolute_positions(values, path)
    named = same(*SHARED, embedding_size=128, hidden_size=256, num_attention_heads=4, intermediate_size=1024)
    config = build(values, path, named, hidden_act=activation(values, path))
    same_width = config.embedding_size == config.hidden_size  # then nothing is projected
    return dataclasses.replace(config, embedding_size=None) if same_width else config
