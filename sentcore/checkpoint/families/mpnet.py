"""MPNet (Song et al. 2020, https://arxiv.org/abs/2004.09297): RoBERTa's positions, and a bias on distances all layers share."""

from __future__ import annotations

from pathlib import Path

from sentcore.checkpoint.families import bert, roberta
from sentcore.checkpoint.families.reading import SHARED, activation, build, only, same, with_free_rows
from sentcore.checkpoint.naming import Names
from sentcore.config import EncoderConfig

NAMES = Names(
    prefixes=("mpnet.",),
    outer={
        "embeddings.word_embeddings": "embeddings.word_embeddings",
        "embeddings.position_embeddings": "embeddings.position_embeddings",
        "embeddings.LayerNorm": "embeddings.layer_norm",
        "encoder.relative_attention_bias": "positions.relative_attention_bias",
    },
    layer="encoder.layer.{}.",
    inner={
        "attention.attn.q": "attention.query",
        "attention.attn.k": "attention.key",
        "attention.attn.v": "attention.value",
        "attention.attn.o": "attention.output",
        "attention.LayerNorm": "attention.layer_norm",
        "intermediate.dense": bert.INNER["intermediate.dense"],
        "output.dense": bert.INNER["output.dense"],
        "output.LayerNorm": bert.INNER["output.LayerNorm"],
    },
)
MASKED_LM = roberta.MASKED_LM


def config_from_hf(values: dict, path: Path) -> EncoderConfig:
    """The EncoderConfig of a config.json; CheckpointError by file, field, value and what is accepted."""
    # The architecture's code holds both fixed, whatever the file says.
    only(values, path, "pad_token_id", 1)
    only(values, path, "relative_attention_num_buckets", 32)
    named = same(*SHARED, vocab_size=30527, pad_token_id=1, relative_attention_num_buckets=32)
    del named["type_vocab_size"]
    config = build(values, path, named, hidden_act=activation(values, path), type_vocab_size=0)
    return with_free_rows(config, path)
