"""BERT checkpoints (model_type "bert"): Hugging Face's config and tensor names in ours."""

from __future__ import annotations

import re
from pathlib import Path

from sentcore.checkpoint.files import field
from sentcore.config import EncoderConfig
from sentcore.errors import CheckpointError, SentcoreError

# Only what computes exactly the same; "gelu_fast" and "quick_gelu" are other functions.
ACTS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}

# Heads and buffers that a sentence feature does not pass through.
IGNORED = re.compile(
    r"(pooler\.|cls\.|classifier\.|qa_outputs\.|dropout\.|embeddings\.position_ids$|embeddings\.token_type_ids$)"
)

_EMBEDDINGS = {
    "embeddings.word_embeddings": "embeddings.word_embeddings",
    "embeddings.position_embeddings": "embeddings.position_embeddings",
    "embeddings.token_type_embeddings": "embeddings.token_type_embeddings",
    "embeddings.LayerNorm": "embeddings.layer_norm",
}
_LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention.layer_norm",
    "intermediate.dense": "feed_forward.up",
    "output.dense": "feed_forward.down",
    "output.LayerNorm": "feed_forward.layer_norm",
}
_LEGACY_SUFFIX = {"gamma": "weight", "beta": "bias"}
_LAYER_NAME = re.compile(r"encoder\.layer\.(\d+)\.(.+)")


def config_from_hf(values: dict, path: Path) -> EncoderConfig:
    """The EncoderConfig of a config.json.

    Raises:
        CheckpointError: by file, field, value and what is accepted.
    """
    for name in ("is_decoder", "add_cross_attention"):
        if values.get(name):
            raise CheckpointError(f"{path}: {name} is true; accepted: false. A decoder is no sentence encoder")
    act = field(values, "hidden_act", (str,), "gelu", path)
    if act not in ACTS:
        raise CheckpointError(
            f"{path}: hidden_act is {act!r}; accepted: {', '.join(ACTS)}. Another activation would give wrong features"
        )
    position = field(values, "position_embedding_type", (str,), "absolute", path)
    if position != "absolute":
        raise CheckpointError(
            f"{path}: position_embedding_type is {position!r}; accepted: 'absolute'. Other positions would give wrong "
            "features"
        )
    defaults = EncoderConfig()
    chosen = {"hidden_act": ACTS[act]}
    for name in (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
        "pad_token_id",
    ):
        chosen[name] = field(values, name, (int,), getattr(defaults, name), path)
    for name in (
        "layer_norm_eps",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "initializer_range",
    ):
        chosen[name] = field(values, name, (int, float), getattr(defaults, name), path)
    try:
        return EncoderConfig(**chosen)
    except SentcoreError as error:
        raise CheckpointError(f"{path}: {error}") from error


def our_name(hf_name: str) -> str | None:
    """Our name of a checkpoint's tensor, None for one that is not needed, KeyError for one nobody knows."""
    name = hf_name.removeprefix("bert.")
    if IGNORED.match(name):
        return None
    stem, _, suffix = name.rpartition(".")
    suffix = _LEGACY_SUFFIX.get(suffix, suffix)
    if stem in _EMBEDDINGS:
        return f"{_EMBEDDINGS[stem]}.{suffix}"
    layer = _LAYER_NAME.fullmatch(stem)
    if layer and layer[2] in _LAYER:
        return f"layers.{layer[1]}.{_LAYER[layer[2]]}.{suffix}"
    raise KeyError(hf_name)


def hf_name(our: str) -> str:
    """The Hugging Face name of our tensor."""
    stem, _, suffix = our.rpartition(".")
    backwards = {v: k for k, v in _EMBEDDINGS.items()}
    if stem in backwards:
        return f"{backwards[stem]}.{suffix}"
    _, number, rest = stem.split(".", 2)
    return f"encoder.layer.{number}.{ {v: k for k, v in _LAYER.items()}[rest] }.{suffix}"


def shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Name (ours) -> shape of every tensor the encoder needs."""
    hidden, inner = config.hidden_size, config.intermediate_size
    wanted: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),
        "embeddings.layer_norm.weight": (hidden,),
        "embeddings.layer_norm.bias": (hidden,),
    }
    if config.type_vocab_size:
        wanted["embeddings.token_type_embeddings.weight"] = (config.type_vocab_size, hidden)
    for layer in range(config.num_hidden_layers):
        for part, rows, columns in (
            ("attention.query", hidden, hidden),
            ("attention.key", hidden, hidden),
            ("attention.value", hidden, hidden),
            ("attention.output", hidden, hidden),
            ("feed_forward.up", inner, hidden),
            ("feed_forward.down", hidden, inner),
        ):
            wanted[f"layers.{layer}.{part}.weight"] = (rows, columns)
            wanted[f"layers.{layer}.{part}.bias"] = (rows,)
        for part in ("attention.layer_norm", "feed_forward.layer_norm"):
            wanted[f"layers.{layer}.{part}.weight"] = (hidden,)
            wanted[f"layers.{layer}.{part}.bias"] = (hidden,)
    return wanted
