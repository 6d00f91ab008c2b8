"""DistilBERT (Sanh et al. 2019, https://arxiv.org/abs/1910.01108): BERT's layers under other names, no token types."""

from __future__ import annotations

from pathlib import Path

from sentcore.checkpoint.families.reading import activation, build
from sentcore.checkpoint.naming import MaskedLMNames, Names
from sentcore.config import EncoderConfig

NAMES = Names(
    prefixes=("distilbert.",),
    outer={
        "embeddings.word_embeddings": "embeddings.word_embeddings",
        "embeddings.position_embeddings": "embeddings.position_embeddings",
        "embeddings.LayerNorm": "embeddings.layer_norm",
    },
    layer="transformer.layer.{}.",
    inner={
        "attention.q_lin": "attention.query",
        "attention.k_lin": "attention.key",
        "attention.v_lin": "attention.value",
        "attention.out_lin": "attention.output",
        "sa_layer_norm": "attention.layer_norm",
        "ffn.lin1": "feed_forward.up",
        "ffn.lin2": "feed_forward.down",
        "output_layer_norm": "feed_forward.layer_norm",
    },
    ignored=r"(pre_classifier|classifier|vocab_transform|vocab_layer_norm|vocab_projector|qa_outputs)\.",
)
MASKED_LM = MaskedLMNames(
    dense="vocab_transform",
    norm="vocab_layer_norm",
    decoder="vocab_projector",
    bias=("vocab_projector.bias",),
    activation=("activation", "gelu"),
)


def config_from_hf(values: dict, path: Path) -> EncoderConfig:
    """The EncoderConfig of a config.json; CheckpointError by file, field, value and what is accepted."""
    named = {
        "vocab_size": "vocab_size",
        "hidden_size": "dim",
        "num_hidden_layers": ("n_layers", 6),
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "max_position_embeddings": "max_position_embeddings",
        "pad_token_id": "pad_token_id",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "initializer_range": "initializer_range",
    }
    return build(values, path, named, hidden_act=activation(values, path, "activation"), type_vocab_size=0)
