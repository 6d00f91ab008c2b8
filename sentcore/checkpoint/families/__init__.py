"""One file a model family, with NAMES and config_from_hf. Adding a family is adding a file and a line here."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from sentcore.checkpoint.families import (
    albert,
    bert,
    distilbert,
    electra,
    gte,
    jina_bert,
    modernbert,
    mpnet,
    nomic_bert,
    roberta,
)
from sentcore.checkpoint.files import shown
from sentcore.errors import CheckpointError

# config.json's model_type -> its family.
FAMILIES: dict[str, ModuleType] = {
    "bert": bert,
    "roberta": roberta,
    "xlm-roberta": roberta,
    "camembert": roberta,
    "distilbert": distilbert,
    "electra": electra,
    "albert": albert,
    "mpnet": mpnet,
    "modernbert": modernbert,
    "nomic_bert": nomic_bert,
    "new": gte,
    "gte": gte,
}


def family_of(values: dict, path: Path) -> ModuleType:
    """The family of a config.json.

    Raises:
        CheckpointError: it is of none that is known.
    """
    model_type = values.get("model_type")
    if model_type == "bert" and values.get("position_embedding_type") == "alibi":
        return jina_bert
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise CheckpointError(
            f"{path}: model_type is {shown(model_type)}; accepted: {', '.join(FAMILIES)}. Another architecture would give wrong "
            "features, so it is refused"
        )
    return FAMILIES[model_type]
