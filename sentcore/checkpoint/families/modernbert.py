"""ModernBERT (Warner et al. 2024, https://arxiv.org/abs/2412.13663): pre-norm, rotary, a window in two of three layers, GeGLU."""

from __future__ import annotations

from pathlib import Path

from sentcore.checkpoint.families.reading import activation, build, rotary, same
from sentcore.checkpoint.files import field, shown
from sentcore.checkpoint.naming import MaskedLMNames, Names
from sentcore.config import MOST_LAYERS, EncoderConfig
from sentcore.errors import CheckpointError

NAMES = Names(
    prefixes=("model.",),
    outer={
        "embeddings.tok_embeddings": "embeddings.word_embeddings",
        "embeddings.norm": "embeddings.layer_norm",
        "final_norm": "final_norm",
    },
    layer="layers.{}.",
    inner={
        "attn.Wqkv": ("attention.query", "attention.key", "attention.value"),
        "attn.Wo": "attention.output",
        "attn_norm": "attention.layer_norm",
        "mlp.Wi": "feed_forward.up",
        "mlp.Wo": "feed_forward.down",
        "mlp_norm": "feed_forward.layer_norm",
    },
)
MASKED_LM = MaskedLMNames(
    dense="head.dense",
    norm="head.norm",
    decoder="decoder",
    bias=("decoder.bias",),
    activation=("classifier_activation", "gelu"),
    dense_bias=("classifier_bias", False),
    norm_bias=("norm_bias", False),
    decoder_bias=("decoder_bias", True),
)
_LAYER_TYPES = {"full_attention": "full", "sliding_attention": "sliding"}


def config_from_hf(values: dict, path: Path) -> EncoderConfig:
    """The EncoderConfig of a config.json; CheckpointError by file, field, value and what is accepted."""
    named = {
        **same("initializer_range", vocab_size=50368, hidden_size=768, num_hidden_layers=22, num_attention_heads=12),
        **same(intermediate_size=1152, max_position_embeddings=8192, pad_token_id=50283),
        "layer_norm_eps": ("norm_eps", 1e-5),
        "attention_probs_dropout_prob": ("attention_dropout", 0),
        "embedding_dropout_prob": ("embedding_dropout", 0),
        "intermediate_dropout_prob": ("mlp_dropout", 0),
    }
    attention_bias, mlp_bias, norm_bias = (
        field(values, name, (bool,), False, path) for name in ("attention_bias", "mlp_bias", "norm_bias")
    )
    layers = field(values, "num_hidden_layers", (int,), 22, path)
    local = rotary(values, path, field(values, "local_rope_theta", (int, float), 1e4, path), "sliding_attention")
    return build(
        values,
        path,
        named,
        hidden_act=activation(values, path, "hidden_activation", gated=True),
        type_vocab_size=0,
        hidden_dropout_prob=0.0,
        position_embedding_type="rotary",
        norm_first=True,
        gated=True,
        attention_bias=attention_bias,
        attention_output_bias=attention_bias,
        up_bias=mlp_bias,
        down_bias=mlp_bias,
        norm_bias=norm_bias,
        local_rope_theta=local["rope_theta"],
        layer_types=_layer_types(values, layers, path),
        sliding_window=field(values, "local_attention", (int,), 128, path) // 2,
        **rotary(values, path, field(values, "global_rope_theta", (int, float), 16e4, path), "full_attention"),
    )


def _layer_types(values: dict, layers: int, path: Path) -> tuple[str, ...]:
    given = field(values, "layer_types", (list,), None, path)
    if given is None:
        every = field(values, "global_attn_every_n_layers", (int,), 3, path)
        if every < 1:
            raise CheckpointError(f"{path}: global_attn_every_n_layers is {every}; accepted: at least 1")
        # More layers than that are refused behind this, by EncoderConfig.
        return tuple("sliding" if layer % every else "full" for layer in range(min(layers, MOST_LAYERS)))
    wrong = [kind for kind in given if not isinstance(kind, str) or kind not in _LAYER_TYPES]
    if wrong:
        raise CheckpointError(f"{path}: layer_types holds {shown(wrong[0])}; accepted: {', '.join(_LAYER_TYPES)}")
    return tuple(_LAYER_TYPES[kind] for kind in given)
