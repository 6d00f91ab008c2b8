"""Nomic's BERT (Nussbaum et al. 2024, https://arxiv.org/abs/2402.01613): rotary positions, SwiGLU, few biases.

Two forms of config.json and of names are read: nomic-ai's own, and transformers'.
"""

from __future__ import annotations

from pathlib import Path

from sentcore.checkpoint.families.reading import SHARED, activation, build, only, rotary, same
from sentcore.checkpoint.files import field
from sentcore.checkpoint.naming import Names
from sentcore.config import EncoderConfig

NAMES = Names(
    prefixes=("nomic_bert.", "bert."),
    outer={
        "embeddings.word_embeddings": "embeddings.word_embeddings",
        "embeddings.token_type_embeddings": "embeddings.token_type_embeddings",
        "emb_ln": "embeddings.layer_norm",
        "embeddings.LayerNorm": "embeddings.layer_norm",
    },
    layer="encoder.layers.{}.",
    other_layers=("layers.{}.",),
    inner={
        "attn.Wqkv": ("attention.query", "attention.key", "attention.value"),
        "attn.out_proj": "attention.output",
        "norm1": "attention.layer_norm",
        "mlp.fc12": "feed_forward.up#0",
        "mlp.fc11": "feed_forward.up#1",
        "mlp.fc2": "feed_forward.down",
        "norm2": "feed_forward.layer_norm",
        # transformers' own
        "self_attn.q_proj": "attention.query",
        "self_attn.k_proj": "attention.key",
        "self_attn.v_proj": "attention.value",
        "self_attn.o_proj": "attention.output",
        "post_attention_layernorm": "attention.layer_norm",
        "mlp.gate_proj": "feed_forward.up#0",
        "mlp.up_proj": "feed_forward.up#1",
        "mlp.down_proj": "feed_forward.down",
        "post_mlp_layernorm": "feed_forward.layer_norm",
    },
)
_BIASES = dict.fromkeys(("attention_bias", "attention_output_bias", "up_bias", "down_bias"), False)


def config_from_hf(values: dict, path: Path) -> EncoderConfig:
    """The EncoderConfig of a config.json; CheckpointError by file, field, value and what is accepted."""
    if "n_embd" in values:
        return _of_nomic(values, path)
    named = same(
        *SHARED, vocab_size=30528, max_position_embeddings=2048, hidden_dropout_prob=0, attention_probs_dropout_prob=0
    )
    return build(
        values,
        path,
        named,
        hidden_act=activation(values, path, default="silu", gated=True),
        position_embedding_type="rotary",
        gated=True,
        **_BIASES,
        **rotary(values, path, 1000.0),
    )


def _of_nomic(values: dict, path: Path) -> EncoderConfig:
    only(values, path, "activation_function", "swiglu", default="gelu")
    only(values, path, "rotary_emb_fraction", 1.0, 1, default=0.0)
    for name in ("rotary_emb_interleaved", "prenorm", "causal", "parallel_block", "use_rms_norm"):
        only(values, path, name, False)
    for name in ("rotary_scaling_factor", "rotary_emb_scale_base", "moe_every_n_layers", "num_experts"):
        only(values, path, name, 0)
    biases = {
        "attention_bias": field(values, "qkv_proj_bias", (bool,), True, path),
        "attention_output_bias": field(values, "qkv_proj_bias", (bool,), True, path),
        "up_bias": field(values, "mlp_fc1_bias", (bool,), True, path),
        "down_bias": field(values, "mlp_fc2_bias", (bool,), True, path),
    }
    width = field(values, "n_embd", (int,), 768, path)
    named = {
        **same("vocab_size", "type_vocab_size", "initializer_range"),
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": ("n_inner", 4 * width),
        "max_position_embeddings": ("n_positions", 1024),
        "layer_norm_eps": ("layer_norm_epsilon", 1e-5),
        "hidden_dropout_prob": "resid_pdrop",
        "attention_probs_dropout_prob": "attn_pdrop",
        "embedding_dropout_prob": ("embd_pdrop", 0.1),
        "rope_theta": "rotary_emb_base",
    }
    return build(values, path, named, hidden_act="silu", position_embedding_type="rotary", gated=True, **biases)
