"""A tiny encoder in the place of the real one, and helpers for the command line."""

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from sentcore.cli import main
from sentcore.errors import ArgumentValueError


class TinyEncoder:
    """Features that say which text they are of: its length, its code points' sum, and six columns more."""

    made: ClassVar[list] = []  # the keyword arguments of every encoder made
    window = 3
    device = torch.device("cpu")
    dtype = torch.float32
    checkpoint = SimpleNamespace(folder=Path(__file__).parent)

    def __init__(self, model, **options):
        type(self).made.append({"model": model, **options})
        if options["device"] == "moon":
            raise ArgumentValueError("device is 'moon'; accepted: 'cpu'")

    def get_sentence_embedding_dimension(self):
        return 8

    def encode_iter(self, sentences, prompt_name=None, prompt=None, truncate_dim=None, **options):
        type(self).made.append({"prompt": prompt, "prompt_name": prompt_name, **options})
        first, block = 0, []

        def given():
            rows = np.stack([self.row(text) for text in block])[:, :truncate_dim]
            return np.arange(first, first + len(block), dtype=np.int64), rows

        for text in sentences:
            block.append(text)
            if len(block) == self.window:
                yield given()
                first, block = first + len(block), []
        if block:
            yield given()

    def encode_windows(
        self, lists, show_progress_bar=None, prompt=None, prompt_name=None, truncate_dim=None, **options
    ):
        type(self).made.append({"prompt": prompt, "prompt_name": prompt_name, **options})
        for texts in lists:
            rows = np.zeros((len(texts), 8), dtype=np.float32)
            for row, text in zip(rows, texts, strict=True):
                row[:] = self.row(text)
            yield rows[:, :truncate_dim]

    @staticmethod
    def row(text):
        total = sum(map(ord, text)) % 997
        columns = [len(text), total, -total, 0.1, -0.5, 1.5, 1e-8, total / 7]
        return np.asarray(columns, dtype=np.float32)


@pytest.fixture
def tiny(monkeypatch):
    import sentcore.pipeline.corpus.parquet
    import sentcore.pipeline.corpus.sources
    import sentcore.sentence_encoder

    monkeypatch.setattr(sentcore.pipeline.corpus.sources, "SHARD_ROWS", 3)
    monkeypatch.setattr(sentcore.pipeline.corpus.parquet, "SHARD_ROWS", 3)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # hundreds of shards go through a disk that others use too
    monkeypatch.setattr(sentcore.sentence_encoder, "SentenceEncoder", TinyEncoder)
    monkeypatch.setattr(TinyEncoder, "made", [])
    return TinyEncoder


@pytest.fixture
def sentcore_command(capsys, monkeypatch):
    """run(*argv, stdin=None) -> (status, standard output, standard error)."""

    def run(*argv, stdin=None, terminal=False):
        stream = io.TextIOWrapper(io.BytesIO(stdin or b""))
        stream.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stdin", stream)
        status = main([str(part) for part in argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run
