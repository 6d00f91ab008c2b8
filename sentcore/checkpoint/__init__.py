"""Model folders: the only place that knows Hugging Face's and sentence-transformers' names."""

from sentcore.checkpoint.cross_encoder import CrossEncoderCheckpoint, load_cross_encoder
from sentcore.checkpoint.load import Checkpoint, load_checkpoint
from sentcore.checkpoint.resolve import resolve
from sentcore.checkpoint.save import save_checkpoint
from sentcore.checkpoint.save_cross_encoder import save_cross_encoder

__all__ = [
    "Checkpoint",
    "CrossEncoderCheckpoint",
    "load_checkpoint",
    "load_cross_encoder",
    "resolve",
    "save_checkpoint",
    "save_cross_encoder",
]
