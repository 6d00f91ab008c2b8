"""Sentence features from BERT-family encoders, computed on packed batches."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sentcore._version import __version__

if TYPE_CHECKING:
    from sentcore import ops
    from sentcore._extension import build_info
    from sentcore.config import EncoderConfig
    from sentcore.cross_encoder import CrossEncoder
    from sentcore.errors import SentcoreError
    from sentcore.explain.attribution import Attribution, attribution
    from sentcore.explain.data import Trace
    from sentcore.explain.trace import trace
    from sentcore.integrations.acceleration import accelerate, restore
    from sentcore.integrations.parity import ParityReport, parity
    from sentcore.layers import Encoder
    from sentcore.packed import PackedBatch
    from sentcore.search import SearchIndex
    from sentcore.sentence_encoder import SentenceEncoder

# Name -> where it lives. Looked up at first use (PEP 562): importing torch takes seconds, which `sentcore --help` need
# not pay.
_HOMES = {
    "Attribution": "sentcore.explain.attribution",
    "CrossEncoder": "sentcore.cross_encoder",
    "Encoder": "sentcore.layers",
    "EncoderConfig": "sentcore.config",
    "PackedBatch": "sentcore.packed",
    "ParityReport": "sentcore.integrations.parity",
    "SearchIndex": "sentcore.search",
    "SentcoreError": "sentcore.errors",
    "SentenceEncoder": "sentcore.sentence_encoder",
    "Trace": "sentcore.explain.data",
    "accelerate": "sentcore.integrations.acceleration",
    "attribution": "sentcore.explain.attribution",
    "build_info": "sentcore._extension",
    "parity": "sentcore.integrations.parity",
    "restore": "sentcore.integrations.acceleration",
    "trace": "sentcore.explain.trace",
}

__all__ = [
    "Attribution",
    "CrossEncoder",
    "Encoder",
    "EncoderConfig",
    "PackedBatch",
    "ParityReport",
    "SearchIndex",
    "SentcoreError",
    "SentenceEncoder",
    "Trace",
    "__version__",
    "accelerate",
    "attribution",
    "build_info",
    "ops",
    "parity",
    "restore",
    "trace",
]


if not TYPE_CHECKING:  # a type checker would take any name for one of the package's

    def __getattr__(name: str) -> object:
        if name == "ops":
            return importlib.import_module("sentcore.ops")
        if name not in _HOMES:
            raise AttributeError(f"module 'sentcore' has no attribute {name!r}; it has: {', '.join(__all__)}")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
