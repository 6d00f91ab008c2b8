"""Model folders: the only place that knows Hugging Face's and sentence-transformers' names."""

from sentcore.checkpoint.load import Checkpoint, load_checkpoint
from sentcore.checkpoint.resolve import resolve
from sentcore.checkpoint.save import save_checkpoint

__all__ = ["Checkpoint", "load_checkpoint", "resolve", "save_checkpoint"]
