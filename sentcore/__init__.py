"""Sentence features from BERT-family encoders, computed on packed batches."""

from sentcore import ops
from sentcore._extension import build_info
from sentcore._version import __version__
from sentcore.config import EncoderConfig
from sentcore.errors import SentcoreError
from sentcore.integrations.parity import ParityReport, parity
from sentcore.layers import Encoder
from sentcore.packed import PackedBatch
from sentcore.sentence_encoder import SentenceEncoder

__all__ = [
    "Encoder",
    "EncoderConfig",
    "PackedBatch",
    "ParityReport",
    "SentcoreError",
    "SentenceEncoder",
    "__version__",
    "build_info",
    "ops",
    "parity",
]
