"""A tiny random BERT and a corpus of short texts, for scripts that measure everything but the model."""

from __future__ import annotations

import json
import random
from pathlib import Path

WORDS = [
    *(
        "a",
        "an",
        "the",
        "of",
        "with",
        "and",
        "in",
        "over",
        "index",
        "engine",
        "storage",
        "memory",
        "query",
        "row",
        "page",
    ),
    *(
        "table",
        "lock",
        "log",
        "tree",
        "key",
        "value",
        "block",
        "file",
        "cache",
        "node",
        "graph",
        "edge",
        "plan",
        "scan",
    ),
]


def make_model(folder: Path) -> Path:
    """Writes a checkpoint with random weights."""
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *map(str, range(10)),
        *(f"##{i}" for i in range(10)),
    ]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return folder


def make_corpus(path: Path, rows: int) -> Path:
    """Writes jsonl with an id and a short text in each row."""
    draw = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        for i in range(rows):
            text = " ".join(draw.choices(WORDS, k=draw.randint(2, 7)))
            file.write(json.dumps({"id": i, "text": f"{text} {i}"}) + "\n")
    return path
