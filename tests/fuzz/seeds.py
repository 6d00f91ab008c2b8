"""The valid things that fuzzing starts from: a tiny folder of every layout and family, and input files of every kind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import families
from folders import make_bert_folder, write
from heads import make_bge, make_splade

TINY = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}


def _sentence_bert(folder: Path) -> None:
    tanh = "torch.nn.modules.activation.Tanh"
    make_bert_folder(folder, dense=(8, tanh), normalize=True, prompts={"query": "the query "}, **TINY)
    write(folder / "special_tokens_map.json", {"cls_token": "[CLS]", "sep_token": {"content": "[SEP]"}})


def _pickled(folder: Path, zipped: bool) -> None:
    make_bert_folder(folder, generation=None, **TINY)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)


def _sharded(folder: Path) -> None:
    make_bert_folder(folder, generation=None, **TINY)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {name: f"model-{place % 2}.safetensors" for place, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, folder / file)
    write(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": files})


def _cross_encoder(folder: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    make_bert_folder(folder, generation=None, **TINY)
    settings = BertConfig.from_pretrained(folder)
    settings.num_labels = 3
    BertForSequenceClassification(settings).save_pretrained(folder)


def _bare(family: str) -> Callable[[Path], None]:
    return lambda folder: families.save(families.make_model(family), folder, tokenizer=True)


MODELS: dict[str, Callable[[Path], object]] = {
    "sentence-bert": _sentence_bert,
    "pickled": lambda folder: _pickled(folder, zipped=True),
    "pickled-before-1.6": lambda folder: _pickled(folder, zipped=False),
    "sharded": _sharded,
    "cross-encoder": _cross_encoder,
    "bge-m3": make_bge,
    "splade": lambda folder: make_splade(folder, "bert"),
    **{name: _bare(name) for name in ("modernbert", "nomic_bert", "gte", "mpnet", "distilbert", "albert", "electra")},
}

_ROWS = ["the cat sat", "", '说 "你好", 世界', "a\tb", "x" * 300]
INPUTS: dict[str, Callable[[], bytes]] = {
    "in.txt": lambda: "\n".join(_ROWS).encode(),
    "in.jsonl": lambda: "".join(json.dumps({"id": i, "text": row}) + "\n" for i, row in enumerate(_ROWS)).encode(),
    "in.csv": lambda: b'id,text\n1,the cat\n2,"a ""b"", c\nd"\n3,\n',
    "in.txt.gz": lambda: gzip.compress(INPUTS["in.txt"]()),
    "in.jsonl.gz": lambda: gzip.compress(INPUTS["in.jsonl"]()),
}


def make_all(root: Path) -> None:
    """Writes every seed under `root`: models/NAME and inputs/NAME."""
    for name, make in MODELS.items():
        torch.manual_seed(0)
        make(root / "models" / name)
    (root / "inputs").mkdir(parents=True, exist_ok=True)
    for name, data in INPUTS.items():
        (root / "inputs" / name).write_bytes(data())
