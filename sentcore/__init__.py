"""Sentence features from BERT-family encoders, computed on packed batches."""

from sentcore._version import __version__

__all__ = ["__version__"]
