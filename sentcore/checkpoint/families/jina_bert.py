"""Jina's BERT v2 (Günther et al. 2023, https://arxiv.org/abs/2310.19923): ALiBi on both sides and gated units in BERT's order.

Its config.json says model_type "bert" with position_embedding_type "alibi".
"""

from __future__ import annotations

from pathlib import Path

from sentcore.checkpoint.families import bert
from sentcore.checkpoint.families.reading import SHARED, build, only, same
from sentcore.checkpoint.files import field
from sentcore.checkpoint.naming import Names
from sentcore.config import EncoderConfig

NAMES = Names(
    prefixes=("bert.",),
    outer=bert.EMBEDDINGS,
    layer="encoder.layer.{}.",
    inner={
        **{theirs: ours for theirs, ours in bert.INNER.items() if theirs.startswith("attention")},
        "mlp.gated_layers": "feed_forward.up",
        "mlp.wo": "feed_forward.down",
        "mlp.layernorm": "feed_forward.layer_norm",
    },
)


def config_from_hf(values: dict, path: Path) -> EncoderConfig:
    """The EncoderConfig of a config.json; CheckpointError by file, field, value and what is accepted."""
    only(values, path, "feed_forward_type", "geglu", default="original")
    return build(
        values,
        path,
        same(*SHARED),
        hidden_act="gelu",
        position_embedding_type="alibi",
        gated=True,
        up_bias=False,
        intermediate_dropout_prob=field(values, "hidden_dropout_prob", (int, float), 0.1, path),
    )
