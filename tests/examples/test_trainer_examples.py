"""Examples of training with PEFT, sentence-transformers' trainer and Optuna: they learn, and what they save loads."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sentcore

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAMPLE = EXAMPLES / "data" / "topics.jsonl"
METHODS = ["lora", "adalora", "prefix", "prompt", "bottleneck", "head"]


@pytest.fixture(autouse=True)
def packages():
    for name in ("accelerate", "peft", "datasets", "optuna"):
        pytest.importorskip(name)


@pytest.fixture(scope="session")
def vowels(tmp_path_factory):
    """Two labels told apart by the letters that most of a text is made of."""
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("rows") / "vowels.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for index in range(120):
            words = draw.choices("aeiou" if index % 2 else "rstln", k=6) + draw.choices("bcdfghjkmpqvwxyz", k=4)
            draw.shuffle(words)
            lines.write(json.dumps({"text": " ".join(words), "label": index % 2}) + "\n")
    return path


@pytest.mark.parametrize("method", METHODS)
def test_adapters(method, vowels, tiny, tmp_path, run, load):
    figures = run(
        *("adapters", "--method", method, "--data", vowels, "--model", tiny, "--out", tmp_path / "out"),
        *("--steps", 60, "--learning-rate", 2e-2),
    )
    assert figures["accuracy_after"] > figures["accuracy_before"] + 0.2
    assert figures["trained"] < 0.2 * figures["parameters"]
    assert figures["loaded_differs"] < 1e-4  # on transformers' own encoder
    _, names = load("adapters").load(tiny, tmp_path / "out")
    assert names == ["0", "1"]


def test_adapters_on_the_sample(tiny, tmp_path, run):
    run("adapters", "--model", tiny, "--steps", 2, "--out", tmp_path / "out")
    run("adapters", "--model", tiny, "--steps", 2, "--out", tmp_path / "padded", "--no-accelerate")
    from safetensors.torch import load_file

    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("out", "padded"))
    assert all(name in theirs for name in ours)
    assert max(float(tensor.abs().max()) for name, tensor in ours.items() if "lora_B" in name) > 0


@pytest.mark.parametrize("method", METHODS)
def test_adapters_freeze_the_encoder(method, tiny, load):
    from transformers import AutoModel

    adapters = load("adapters")
    encoder = AutoModel.from_pretrained(tiny)
    model = adapters.Classifier(encoder, 32, 2)
    theirs = list(encoder.parameters())
    model.encoder = adapters.with_adapter(encoder, method, size=2, steps=10)
    ids = torch.randint(5, 60, (4, 7))
    torch.nn.functional.cross_entropy(model(ids, torch.ones_like(ids)), torch.tensor([0, 1, 0, 1])).backward()
    assert all(p.grad is None and not p.requires_grad for p in theirs)
    known = set(map(id, [*theirs, *model.head.parameters()]))
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    assert all(p.grad is not None for p in trained) and bool(trained) == (method != "head")


def test_a_model_without_prefixes_is_refused(tmp_path, load):
    import transformers as hf

    model = hf.DistilBertModel(hf.DistilBertConfig(vocab_size=50, dim=8, n_heads=2, n_layers=1, hidden_dim=8))
    with pytest.raises(SystemExit, match="--method prefix: distilbert takes none; accepted: bert"):
        load("adapters").with_adapter(model, "prefix", size=2, steps=10)


@pytest.mark.parametrize("loss", ["ranking", "cached", "cosent", "matryoshka"])
def test_sentence_transformers_trainer(loss, tiny, tmp_path, run):
    """Documents are queries with every letter moved on, negatives random letters."""
    letters, draw = "abcdefghijklmnopqrstuvwxyz", random.Random(0)
    path = tmp_path / "rows.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for _ in range(300):
            query = draw.sample(letters, 5)
            moved = [letters[(letters.index(letter) + 13) % 26] for letter in query]
            row = {"query": " ".join(query), "document": " ".join(moved), "negative": " ".join(draw.sample(letters, 5))}
            lines.write(json.dumps(row) + "\n")
    figures = run(
        *("sentence_transformers_trainer", "--loss", loss, "--data", path, "--model", tiny),
        *("--out", tmp_path / "out", "--steps", 60, "--batch-size", 32, "--learning-rate", 5e-3, "--mini-batch", 16),
    )
    names = {"cosent": ["spearman"], "matryoshka": ["recall@1 by 32", "recall@1 by 8"]}.get(loss, ["recall@1"])
    for name in names:
        assert figures[f"{name}_after"] > figures[f"{name}_before"] + 0.15
    rows = sentcore.SentenceEncoder(tmp_path / "out").encode(["the cat", "我爱北京"])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)


def test_sentence_transformers_trainer_on_the_sample(tiny, tmp_path, run):
    arguments = ("--model", tiny, "--steps", 3, "--learning-rate", 1e-3)
    run("sentence_transformers_trainer", *arguments, "--out", tmp_path / "ours")
    run("sentence_transformers_trainer", *arguments, "--out", tmp_path / "padded", "--no-accelerate")
    ours, theirs, base = (
        sentcore.SentenceEncoder(folder).encode(["the cat", "我爱北京"])
        for folder in (tmp_path / "ours", tmp_path / "padded", tiny)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.abs(ours - base).max() > 1e-3


def test_cosent_reads_scores_and_refuses_equal_ones(tiny, tmp_path, run, load):
    path = tmp_path / "rows.jsonl"
    rows = [{"query": "a", "document": "b c", "likeness": score} for score in (0.1, 0.5, 0.9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    read = load("retrieval").read_rows(path, "query", "document", None, "likeness")
    assert [pair[2] for pair in load("sentence_transformers_trainer").scored_pairs(read)] == [0.1, 0.5, 0.9]
    with pytest.raises(SystemExit, match=r"line 1: .* a number in 'absent'"):
        load("retrieval").read_rows(path, "query", "document", None, "absent")
    with pytest.raises(SystemExit, match="all pairs are equally alike"):
        run("sentence_transformers_trainer", "--loss", "cosent", "--data", path, "--model", tiny, "--out", tmp_path)


def test_tune(tiny, tmp_path, run):
    from transformers import AutoModelForSequenceClassification

    figures = run("tune", "--model", tiny, "--trials", 2, "--epochs", 2, "--out", tmp_path / "out")
    assert len(set(figures["losses"])) == len(figures["losses"]) == 2 and figures["best_loss"] == min(figures["losses"])
    # The best choices, read back, train the classifier of that trial again.
    assert figures["tuned_loss"] == pytest.approx(figures["best_loss"], rel=1e-4)
    choices = json.loads((tmp_path / "out" / "choices.json").read_text(encoding="utf-8"))
    assert set(choices) == {"learning_rate", "per_device_train_batch_size", "warmup_steps"}
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config.id2label[0] == "food"


@pytest.mark.parametrize("to", ["tensorboard", "wandb"])
def test_tune_reports_every_trial(to, tiny, tmp_path, monkeypatch, run):
    pytest.importorskip(to, reason=f"{to} is not installed")
    for name in ("WANDB_MODE", "WANDB_DIR"):
        monkeypatch.setenv(name, "")  # put back after the test, which the script sets
    run(*("tune", "--model", tiny, "--trials", 2, "--epochs", 1, "--report-to", to, "--out", tmp_path / "out"))
    ending = {"tensorboard": "trial-*/events.out.tfevents.*", "wandb": "offline-run-*/*.wandb"}[to]
    written = list((tmp_path / "out").rglob(ending))
    assert len(written) == 2 and all(file.stat().st_size for file in written)


@pytest.mark.parametrize(("package", "remedy"), [("tensorboard", "sentcore\\[tune\\]"), ("wandb", "pip install wandb")])
def test_tune_without_a_package_says_what_to_install(package, remedy, tiny, tmp_path, monkeypatch, run):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match=f"needs the package {package}, which is not installed; .*{remedy}"):
        run("tune", "--model", tiny, "--out", tmp_path, "--report-to", package)


@pytest.mark.parametrize("name", ["adapters", "sentence_transformers_trainer", "tune"])
def test_help_length_and_acceleration(name, tiny, tmp_path, capsys, monkeypatch, load, run):
    with pytest.raises(SystemExit) as ended:
        load(name).main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--model" in said and "--out" in said and "--data" in said
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 250

    class Reached(Exception):
        pass

    def reached(model):
        assert isinstance(model, torch.nn.Module)
        raise Reached

    monkeypatch.setattr(sentcore, "accelerate", reached)
    with pytest.raises(Reached):
        run(name, "--model", tiny, "--out", tmp_path)
