"""RoBERTa, XLM-RoBERTa and CamemBERT (Liu et al. 2019, https://arxiv.org/abs/1907.11692).

As BERT, but the position table's rows up to the padding id are kept free, so it holds pad_token_id + 1 fewer positions.
"""

from __future__ import annotations

from pathlib import Path

from sentcore.checkpoint.families import bert
from sentcore.checkpoint.families.reading import SHARED, absolute_positions, activation, build, same, with_free_rows
from sentcore.checkpoint.naming import MaskedLMNames, Names
from sentcore.config import EncoderConfig

NAMES = Names(prefixes=("roberta.", "camembert."), outer=bert.EMBEDDINGS, layer="encoder.layer.{}.", inner=bert.INNER)
MASKED_LM = MaskedLMNames(
    dense="lm_head.dense",
    norm="lm_head.layer_norm",
    decoder="lm_head.decoder",
    bias=("lm_head.bias", "lm_head.decoder.bias"),
)


def config_from_hf(values: dict, path: Path) -> EncoderConfig:
    """The EncoderConfig of a config.json; CheckpointError by file, field, value and what is accepted."""
    absolute_positions(values, path)
    config = build(values, path, same(*SHARED, pad_token_id=1), hidden_act=activation(values, path))
    return with_free_rows(config, path)
