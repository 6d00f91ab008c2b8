"""GTE v1.5 and its multilingual models (model_type "new" or "gte"; Zhang et al. 2024, https://arxiv.org/abs/2407.19669).

Rotary positions and GeGLU in BERT's order. Two forms of names are read: Alibaba-NLP's own, and transformers'.
"""

from __future__ import annotations

from pathlib import Path

from sentcore.checkpoint.families.reading import SHARED, activation, build, only, rotary, same
from sentcore.checkpoint.files import field
from sentcore.checkpoint.naming import Names
from sentcore.config import EncoderConfig

NAMES = Names(
    prefixes=("new.", "gte."),
    outer={
        "embeddings.word_embeddings": "embeddings.word_embeddings",
        "embeddings.token_type_embeddings": "embeddings.token_type_embeddings",
        "embeddings.LayerNorm": "embeddings.layer_norm",
    },
    layer="encoder.layer.{}.",
    other_layers=("layers.{}.",),
    inner={
        "attention.qkv_proj": ("attention.query", "attention.key", "attention.value"),
        "attention.o_proj": "attention.output",
        "attn_ln": "attention.layer_norm",
        "mlp.up_gate_proj": ("feed_forward.up#1", "feed_forward.up#0"),
        "mlp.down_proj": "feed_forward.down",
        "mlp_ln": "feed_forward.layer_norm",
        # transformers' own
        "self_attn.q_proj": "attention.query",
        "self_attn.k_proj": "attention.key",
        "self_attn.v_proj": "attention.value",
        "self_attn.o_proj": "attention.output",
        "post_attention_layernorm": "attention.layer_norm",
        "mlp.gate_proj": "feed_forward.up#0",
        "mlp.up_proj": "feed_forward.up#1",
        "post_mlp_layernorm": "feed_forward.layer_norm",
    },
)


def config_from_hf(values: dict, path: Path) -> EncoderConfig:
    """The EncoderConfig of a config.json; CheckpointError by file, field, value and what is accepted."""
    only(values, path, "position_embedding_type", "rope")
    only(values, path, "layer_norm_type", "layer_norm")
    only(values, path, "logn_attention_scale", False)
    is_new = values.get("model_type") == "new"
    named = same(
        *SHARED,
        vocab_size=30528 if is_new else 250048,
        max_position_embeddings=2048 if is_new else 8192,
        type_vocab_size=1,
        pad_token_id=0 if is_new else 1,
        attention_probs_dropout_prob=0,
    )
    return build(
        values,
        path,
        named,
        hidden_act=activation(values, path, gated=True),
        position_embedding_type="rotary",
        gated=True,
        up_bias=False,
        intermediate_dropout_prob=field(values, "hidden_dropout_prob", (int, float), 0.1, path),
        **rotary(values, path, 10_000.0 if is_new else 160_000.0, ntk=is_new),
    )
