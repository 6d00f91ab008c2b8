"""What every family's config.json is read with: fields by type, activations by name, refusals by value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentcore.checkpoint.files import field, shown
from sentcore.config import EncoderConfig
from sentcore.errors import CheckpointError, SentcoreError

# Only what computes exactly the same; "gelu_fast" and "quick_gelu" are other functions.
ACTS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
GATED_ACTS = {"gelu": "gelu", "silu": "silu", "swish": "silu"}

_NUMBERS = {
    "layer_norm_eps",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "intermediate_dropout_prob",
    "embedding_dropout_prob",
    "initializer_range",
    "rope_theta",
}
# What nearly every family names alike.
SHARED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "pad_token_id",
    "layer_norm_eps",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
)


def build(values: dict, path: Path, named: Mapping[str, str | tuple[str, Any]], **chosen: Any) -> EncoderConfig:
    """The EncoderConfig of a config.json.

    Args:
        values: config.json.
        path: its path, for messages.
        named: our field -> theirs, or (theirs, the family's own default); a default is otherwise EncoderConfig's.
        chosen: fields that are decided already.

    Raises:
        CheckpointError: by file, field, value and what is accepted.
    """
    for name in ("is_decoder", "add_cross_attention"):
        if values.get(name):
            raise CheckpointError(f"{path}: {name} is true; accepted: false. A decoder is no sentence encoder")
    if values.get("pruned_heads"):
        raise CheckpointError(
            f"{path}: pruned_heads is {shown(values['pruned_heads'])}; accepted: none. Layers with heads of their own count are "
            "not computed here; use the checkpoint from before pruning"
        )
    defaults = EncoderConfig()
    for ours, theirs in named.items():
        theirs, default = theirs if isinstance(theirs, tuple) else (theirs, getattr(defaults, ours))
        kinds = (int, float) if ours in _NUMBERS else (int,)
        chosen[ours] = field(values, theirs, kinds, default, path)
    try:
        config = EncoderConfig(**chosen)
    except SentcoreError as error:
        raise CheckpointError(f"{path}: {error}") from error
    only(values, path, "head_dim", config.head_size)
    return config


def with_free_rows(config: EncoderConfig, path: Path) -> EncoderConfig:
    """The same, with the position table's rows up to the padding id kept free, as RoBERTa counts."""
    try:
        return dataclasses.replace(config, position_offset=config.pad_token_id + 1)
    except SentcoreError as error:
        raise CheckpointError(f"{path}: pad_token_id is {config.pad_token_id}: {error}") from error


def same(*names: str, **defaults: Any) -> dict[str, str | tuple[str, Any]]:
    """`named` for fields that are called alike; `defaults` where the family's differ from EncoderConfig's."""
    return {name: (name, defaults[name]) if name in defaults else name for name in {**dict.fromkeys(names), **defaults}}


def activation(
    values: dict, path: Path, name: str = "hidden_act", default: str = "gelu", *, gated: bool = False
) -> str:
    """Our name of the activation that config.json names."""
    accepted = GATED_ACTS if gated else ACTS
    act = field(values, name, (str,), default, path)
    if act not in accepted:
        raise CheckpointError(
            f"{path}: {name} is {shown(act)}; accepted: {', '.join(accepted)}. Another activation would give wrong features"
        )
    return accepted[act]


def only(values: dict, path: Path, name: str, *accepted: Any, default: Any = None) -> None:
    """Refuses any value of a field but the accepted ones; absent and null count as `default`, or are accepted."""
    value = values.get(name)
    value = default if value is None else value
    if value is None or any(value == one and type(value) is type(one) for one in accepted):
        return
    what = ", ".join(map(repr, accepted)) or "nothing"
    raise CheckpointError(
        f"{path}: {name} is {shown(value)}; accepted: {what}. What it asks for is not computed here, and features without it would "
        "be wrong"
    )


def absolute_positions(values: dict, path: Path) -> None:
    """Refuses learned positions of another kind than a table."""
    position = field(values, "position_embedding_type", (str,), "absolute", path)
    if position != "absolute":
        raise CheckpointError(
            f"{path}: position_embedding_type is {shown(position)}; accepted: 'absolute'. Other positions would give wrong "
            "features"
        )


def rotary(
    values: dict, path: Path, default_theta: float, key: str | None = None, *, ntk: bool = False
) -> dict[str, float]:
    """rope_theta and rope_ntk_factor of a config.json, in transformers' present form or in older ones.

    Args:
        default_theta: the family's.
        key: the layer type whose parameters are meant, where they are kept by layer type.
        ntk: whether the family's own code knows the type "ntk".
    """
    given = field(values, "rope_parameters", (dict,), {}, path)
    if key is not None:
        given = field(given, key, (dict,), {}, path)
    scaling = field(values, "rope_scaling", (dict,), {}, path)
    parameters = {**given, **scaling}
    for place in (values, parameters):
        only(place, path, "partial_rotary_factor", 1, 1.0)
    kinds = [place.get(name) for place in (scaling, given) for name in ("rope_type", "type")]
    kind = next((kind for kind in kinds if kind not in (None, "default")), "default")
    if key is None:  # by layer type, a rope_theta for all means nothing
        default_theta = field(values, "rope_theta", (int, float), default_theta, path)
    theta = float(field(given, "rope_theta", (int, float), default_theta, path))
    if kind == "default":
        return {"rope_theta": theta}
    if kind == "ntk" and ntk and parameters.get("mixed_b") is None:
        factor = float(field(parameters, "factor", (int, float), 1.0, path))
        if not factor >= 1:  # its authors' code scales only what becomes longer
            raise CheckpointError(f"{path}: rope factor is {factor}; accepted: at least 1")
        return {"rope_theta": theta, "rope_ntk_factor": factor}
    accepted = "'default', and 'ntk' without mixed_b" if ntk else "'default'"
    raise CheckpointError(
        f"{path}: rope type is {shown(kind)} with {shown(parameters)}; accepted: {accepted}. Other rotary scalings would give wrong "
        "features"
    )
