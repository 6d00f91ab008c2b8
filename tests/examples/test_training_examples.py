"""The training scripts of examples/, on their samples with a tiny random model: they learn, and what they save loads."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

import sentcore
from folders import make_bert_folder

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DATA = EXAMPLES / "data"
TRAINING = ["ner", "classify", "retrieval", "few_shot", "continue_pretraining", "distill"]
SCRIPTS = [*TRAINING, "rerank"]


def features(folder):
    return sentcore.SentenceEncoder(folder).encode(["the cat", "我爱北京"])


def assert_trained(folder, base):
    """SentenceEncoder loads the folder, with the base's pooling and normalization and with other weights."""
    rows = features(folder)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert np.abs(rows - features(base)).max() > 1e-3


def test_ner(tiny, tmp_path, run):
    pytest.importorskip("seqeval")
    sample = DATA / "entities.conll"
    figures = run(
        *("ner", "--model", tiny, "--out", tmp_path / "out", "--test", sample, "--max-length", 96),
        *("--epochs", 8, "--learning-rate", 5e-3),
    )
    assert figures["f1_after"] > figures["f1_before"] + 0.2
    assert_trained(tmp_path / "out" / "encoder", tiny)
    assert AutoModelForTokenClassification.from_pretrained(tmp_path / "out").config.label2id["B-PER"] == 2


def test_ner_labels_first_pieces_only(tiny, load):
    pieces = load("ner").align(
        load("ner").AutoTokenizer.from_pretrained(tiny), (["Al", "in", "上"], ["B-PER", "O", "B-LOC"]),
        {"O": 0, "B-PER": 1, "B-LOC": 2}, max_length=96,
    )  # fmt: skip
    assert pieces["labels"] == [-100, 1, -100, 0, 2, -100]


def test_ner_without_seqeval_says_what_to_install(tiny, tmp_path, monkeypatch, run):
    monkeypatch.setitem(sys.modules, "seqeval", None)
    with pytest.raises(SystemExit, match="pip install 'sentcore\\[ner\\]'"):
        run("ner", "--model", tiny, "--out", tmp_path)


def test_classify(tiny, tmp_path, run):
    pytest.importorskip("accelerate")
    sample = DATA / "topics.jsonl"
    figures = run(
        *("classify", "--model", tiny, "--out", tmp_path / "out", "--test", sample),
        *("--epochs", 15, "--learning-rate", 5e-3),
    )
    assert figures["accuracy_after"] > figures["accuracy_before"] + 0.2
    assert_trained(tmp_path / "out" / "encoder", tiny)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config.id2label[0] == "food"


def test_classify_reads_tsv(tmp_path, load):
    path = tmp_path / "rows.tsv"
    path.write_text("id\tlabel\ttext\r\n1\tgood\tI like it\r\n\r\n2\tbad\t不好\r\n", encoding="utf-8")
    assert load("labelled_texts").read_rows(path) == [("I like it", "good"), ("不好", "bad")]


def test_retrieval_on_the_sample(tiny, tmp_path, run):
    arguments = ("--model", tiny, "--steps", 3, "--negative", "negative", "--learning-rate", 1e-3)
    figures = run("retrieval", *arguments, "--out", tmp_path / "out")
    assert set(figures) == {
        f"{name}_{when}" for name in ("recall@1", "recall@10", "ndcg@10") for when in ("before", "after")
    }
    assert_trained(tmp_path / "out", tiny)
    run("retrieval", *arguments, "--out", tmp_path / "again")
    assert np.array_equal(features(tmp_path / "out"), features(tmp_path / "again"))  # the seed decides all
    run("retrieval", *arguments, "--out", tmp_path / "padded", "--no-accelerate")
    np.testing.assert_allclose(features(tmp_path / "out"), features(tmp_path / "padded"), atol=1e-4)


def test_retrieval_learns_a_cipher(tiny, tmp_path, run):
    """Documents are queries with every letter moved on: what is learned on some rows holds for rows that were kept aside."""
    letters, draw = "abcdefghijklmnopqrstuvwxyz", random.Random(0)
    path = tmp_path / "rows.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for _ in range(300):
            query = draw.sample(letters, 5)
            body = [letters[(letters.index(letter) + 13) % 26] for letter in query]
            lines.write(json.dumps({"title": " ".join(query), "body": [" ".join(body[:2]), " ".join(body[2:])]}) + "\n")
    figures = run(
        *("retrieval", "--data", path, "--query", "title", "--document", "body", "--model", tiny),
        *("--out", tmp_path / "out", "--steps", 60, "--batch-size", 32, "--learning-rate", 5e-3),
    )
    for name in ("recall@1", "recall@10", "ndcg@10"):
        assert figures[f"{name}_after"] > figures[f"{name}_before"] + 0.2


def test_few_shot(tiny, tmp_path, run):
    """Two labels told apart by the letters that most of a text is made of."""
    draw = random.Random(0)
    path = tmp_path / "rows.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for index in range(120):
            marks, rest = draw.choices("aeiou" if index % 2 else "rstln", k=3), draw.choices("bcdfghjkmpqvwxyz", k=8)
            words = draw.sample(marks + rest, k=11)
            lines.write(json.dumps({"text": " ".join(words), "label": index % 2}) + "\n")
    figures = run(
        *("few_shot", "--data", path, "--shots", 20, "--model", tiny, "--out", tmp_path / "out"),
        *("--steps", 40, "--learning-rate", 3e-3),
    )
    assert figures["accuracy_after"] > figures["accuracy_before"] + 0.05
    assert_trained(tmp_path / "out", tiny)


def test_few_shot_on_the_sample(tiny, tmp_path, run):
    figures = run("few_shot", "--model", tiny, "--out", tmp_path / "out", "--steps", 3)
    assert 0 <= figures["accuracy_after"] <= 1
    assert_trained(tmp_path / "out", tiny)
    from safetensors import safe_open

    with safe_open(tmp_path / "out" / "head.safetensors", "pt") as head:
        assert json.loads(head.metadata()["labels"]) == ["food", "sport", "technology", "travel"]
        assert head.get_tensor("weight").shape == (4, 32)


def test_continue_pretraining(tiny, tmp_path, run):
    figures = run(
        *("continue_pretraining", "--model", tiny, "--out", tmp_path / "out"),
        *("--epochs", 3, "--learning-rate", 3e-3),
    )
    assert figures["perplexity_after"] < figures["perplexity_before"] / 2
    assert_trained(tmp_path / "out", tiny)
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "out" / "masked-lm")
    assert again.config.vocab_size == json.loads((tiny / "config.json").read_text())["vocab_size"]


@pytest.mark.parametrize("loss", ["cosine", "mse"])
def test_distill(tiny, tmp_path, loss, run):
    columns = run(
        *("distill", "--model", tiny, "--out", tmp_path / "out", "--layers", 1, "--loss", loss),
        *("--steps", 80, "--learning-rate", 2e-3),
    )
    for name in ("similarity correlation", "mean cosine to teacher"):
        assert columns["teacher"][name] > 0.999
        assert columns["student"][name] > columns["untrained"][name] + 0.02
    assert columns["student"]["parameters (million)"] < columns["teacher"]["parameters (million)"]
    assert_trained(tmp_path / "out", tiny)


def test_distill_refuses_more_layers_than_the_teacher_has(tiny, tmp_path, run):
    with pytest.raises(SystemExit, match="--layers is 2; accepted: 1 to 1"):
        run("distill", "--model", tiny, "--out", tmp_path, "--layers", 2)


def test_rerank(tiny, tmp_path, capsys, run):
    from transformers import BertConfig, BertForSequenceClassification

    from families import randomize

    reranker = make_bert_folder(tmp_path / "reranker", generation=None)
    model = BertForSequenceClassification(BertConfig.from_pretrained(reranker, num_labels=1))
    randomize(model)
    model.save_pretrained(reranker)
    found = run(
        *(
            "rerank",
            "--model",
            tiny,
            "--reranker",
            reranker,
            "--candidates",
            9,
            "--top-k",
            4,
            "--out",
            tmp_path / "f.jsonl",
        ),
        *("money", "怎么退货"),
    )
    assert [result["query"] for result in found] == ["money"] * 4 + ["怎么退货"] * 4
    scores = [result["score"] for result in found[:4]]
    assert scores == sorted(scores, reverse=True)
    assert all(1 <= result["searched_rank"] <= 9 for result in found)
    again = sentcore.CrossEncoder(reranker).predict([("money", result["text"]) for result in found[:4]])
    np.testing.assert_allclose(scores, again, atol=1e-5)
    assert [json.loads(line) for line in (tmp_path / "f.jsonl").read_text(encoding="utf-8").splitlines()] == found
    assert found[0]["text"] in capsys.readouterr().out


@pytest.mark.parametrize("name", TRAINING)
def test_scripts_accelerate_unless_told_not_to(name, tiny, tmp_path, monkeypatch, run):
    if name == "ner":
        pytest.importorskip("seqeval")

    class Reached(Exception):
        pass

    def reached(model):
        assert isinstance(model, torch.nn.Module)
        raise Reached

    monkeypatch.setattr(sentcore, "accelerate", reached, raising=False)
    with pytest.raises(Reached):
        run(name, "--model", tiny, "--out", tmp_path, *(["--layers", 1] if name == "distill" else []))


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_and_length(name, capsys, load):
    with pytest.raises(SystemExit) as ended:
        load(name).main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--model" in said and "--out" in said and "--data" in said
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 250


BAD = [
    ("ner", "a.conll", "Paris B-LOC\n\nParis\n", "line 3: 'Paris' has 1 columns"),
    ("ner", "a.conll", "Paris B-LOC\nis LOC\n", "line 2: label 'LOC'"),
    ("classify", "a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2: .*label"),
    ("classify", "a.jsonl", '{"text": "a", "label": 1}\n\n{"text": 3, "label": 1}\n', "line 3: text is 3"),
    ("classify", "a.tsv", "label\ttext\ngood\n", "line 2: 'good'"),
    ("classify", "a.tsv", "good\tfine\n", "line 1: columns"),
    ("few_shot", "a.jsonl", '{"text": "a", "label": 1}\nnothing\n', "line 2: no JSON object"),
    ("retrieval", "a.jsonl", '{"query": "a", "document": "b"}\n{"query": "a"}\n', "line 2: no JSON object with fields"),
    ("retrieval", "a.jsonl", '{"query": "a", "document": ["b", 3]}\n', "line 1: a field holds no text"),
    ("continue_pretraining", "a.txt", b"fine\n\xff\n", "line 2: no UTF-8"),
    ("distill", "a.txt", b"fine\n\xff\n", "line 2: no UTF-8"),
    ("rerank", "a.txt", b"fine\n\xff\n", "line 2: no UTF-8"),
]


@pytest.mark.parametrize(("name", "file", "content", "message"), BAD)
def test_a_bad_file_is_refused_with_its_line(name, file, content, message, tmp_path, run):
    if name == "ner":
        pytest.importorskip("seqeval")
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    extra = ["--reranker", tmp_path] if name == "rerank" else []
    with pytest.raises(SystemExit, match=f"{file}, {message}"):
        run(name, "--data", path, "--out", tmp_path / "out", *extra)
