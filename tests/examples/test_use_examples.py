"""The scripts of examples/ that use a model for something, on their samples with a tiny random model, and what they compute."""

from __future__ import annotations

import itertools
import json
import math
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

import sentcore

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = [
    "customer_service",
    "opinion_monitor",
    "recommend",
    "question_answering",
    "translate",
    "bias_audit",
    "compress",
]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_and_length(name, capsys, load):
    with pytest.raises(SystemExit) as ended:
        load(name).main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--seed" in said and "--out" in said and ("--data" in said or "--items" in said)
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 250


def test_customer_service(tiny, tmp_path, capsys, run):
    pytest.importorskip("matplotlib")
    questions = ["how can i pay", "where is it", "我的包裹在哪里"]
    rows = [{"question": text, "answer": f"answer {text}", "asked": [text] * 4} for text in questions]
    path = write(tmp_path / "faq.jsonl", [*rows, {"asked": ["z", "x y q", "7", "9 8", "bread"]}])
    found = run("customer_service", "--data", path, "--model", tiny, "--out", tmp_path, "where is it", "z")
    # Whoever asks in the entry's own words gets it; all others score lower.
    assert found["faq"]["answered wrong"] == found["faq"]["wrongly not answered"] == 0
    assert sum(found["faq"].values()) == 9
    said = capsys.readouterr().out
    assert "1.000  answer where is it" in said and "(no entry answers this)" in said
    assert is_picture(tmp_path / "customer_service.png")
    sample = run("customer_service", "--model", tiny)
    assert {name: sum(got.values()) for name, got in sample.items()} == {"faq_en": 27, "faq_zh": 21}


def test_customer_service_chooses_by_what_a_wrong_answer_costs(load):
    choose = load("customer_service").choose
    scores, found = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.zeros(5, dtype=int)
    wanted = np.array([0, -1, 0, 0, -1])
    assert choose(scores, found, wanted, 0.0) == pytest.approx(0.55)
    assert choose(scores, found, wanted, 9.0) == pytest.approx(0.85)


def test_opinion_monitor(tiny, tmp_path, capsys, run):
    pytest.importorskip("matplotlib")
    alerts = run("opinion_monitor", "--model", tiny, "--alert-below", 0.2, "--out", tmp_path)
    assert "280 texts from 2026-03-01 to 2026-03-30" in capsys.readouterr().out
    assert len((tmp_path / "alerts.jsonl").read_text().splitlines()) == len(alerts) > 0
    assert is_picture(tmp_path / "opinion_monitor.png")


def test_opinion_monitor_alerts_on_a_surge_and_on_nothing_else(load):
    monitor = load("opinion_monitor")
    for negative, texts, share in [(0, 7, 0.3), (3, 7, 0.3), (7, 7, 0.3)]:
        drawn = itertools.product([0, 1], repeat=texts)
        wanted = sum(math.prod(share if bad else 1 - share for bad in row) for row in drawn if sum(row) >= negative)
        assert monitor.tail(negative, texts, share) == pytest.approx(wanted)
    first = date(2026, 1, 1)
    days = {first + timedelta(days=day): {"a": [2, 8], "b": [8, 8] if day in (12, 13) else [1, 8]} for day in range(15)}
    alerts = monitor.watch(days, window=2, least=20, below=1e-3)
    assert {(alert[0] - first).days for alert in alerts} == {12, 13} and {alert[1] for alert in alerts} == {"b"}
    last = alerts[1]  # the 13th and 14th day against twelve before
    assert last[2:5] == (16, 16, pytest.approx(13 / 98))
    assert last[5] == pytest.approx((13 / 98) ** 16)


def test_opinion_monitor_learns_sentiment(load):
    torch.manual_seed(0)
    features = torch.randn(40, 8)
    layer = load("opinion_monitor").train_sentiment(features, features[:, 2] > 0)
    assert ((layer(features)[:, 0] > 0) == (features[:, 2] > 0)).float().mean() > 0.9


def test_recommend(tiny, tmp_path, capsys, run):
    pytest.importorskip("matplotlib")
    table = run("recommend", "--model", tiny, "--user", "reader7", "--out", tmp_path)
    assert table["popularity"]["recall@10"] == pytest.approx(0.283, abs=1e-3)  # whatever the model
    assert "reader7 has: " in capsys.readouterr().out
    assert is_picture(tmp_path / "recommend.png")


def test_recommend_ranks_and_figures(load):
    recommend = load("recommend")
    scores = np.array([0.9, 0.8, 0.7, 0.7, 0.1])
    assert recommend.rank_of(scores, [0], 1) == 0
    assert recommend.rank_of(scores, [1], 2) == 2  # 0.9 and the equal 0.7 stand before
    found = recommend.measure([0, 2, 7], 5)
    assert found == {"recall@5": pytest.approx(2 / 3), "ndcg@5": pytest.approx((1 + 1 / 2) / 3)}


def test_question_answering(tiny, tmp_path, run):
    figures = run(
        *("question_answering", "--model", tiny, "--out", tmp_path / "out", "--max-length", 120),
        *("--steps", 45, "--learning-rate", 5e-3),
    )
    assert figures["exact_learned"] > figures["exact_before"] + 0.05
    rows = sentcore.SentenceEncoder(tmp_path / "out" / "encoder").encode(["the cat"])
    assert np.abs(rows - sentcore.SentenceEncoder(tiny).encode(["the cat"])).max() > 1e-3


def test_question_answering_spans(tiny, load):
    answering = load("question_answering")
    tokenizer = answering.AutoTokenizer.from_pretrained(tiny)
    rows = [
        {"question": "谁", "context": "我爱北京天安门", "answer": "北京"},
        {"question": "谁在", "context": "我爱北京天安门", "answer": "天安门"},
    ]
    batch = answering.tokenize(tokenizer, rows, 120)
    first, last = answering.spans(batch, rows)
    assert first.tolist() == [5, 8] and last.tolist() == [6, 10]
    first, last = answering.spans(answering.tokenize(tokenizer, rows, 9), rows)  # the second answer is cut off
    assert first.tolist()[1] == last.tolist()[1] == -100
    assert answering.measure(["北京", "门"], rows) == {"exact": 0.5, "f1": 0.75}


def test_translate(tmp_path, run):
    figures = run(
        "translate", "--out", tmp_path / "out", "--steps", 40, "--hidden-size", 64, "--layers", 1, "Good night!"
    )
    assert figures["difference"] < 1e-5
    assert figures["last_loss"] < 0.75 * figures["first_loss"]
    from transformers import MarianMTModel

    assert MarianMTModel.from_pretrained(tmp_path / "out").config.d_model == 64


def test_translate_attention_is_transformers_own(load):
    """Values and gradients, with padding on both sides, in the decoder too, and one token at a time."""
    translate = load("translate")
    torch.manual_seed(0)
    config = translate.MarianConfig(
        vocab_size=30, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0, forced_eos_token_id=None, dropout=0.0, max_position_embeddings=32,
    )  # fmt: skip
    model = translate.MarianMTModel(config).eval()
    sources, targets = torch.randint(2, 30, (3, 7)), torch.randint(2, 30, (3, 7))
    mask, decoder_mask = torch.ones(3, 7).long(), torch.ones(3, 7).long()
    mask[1, 4:] = decoder_mask[2, 3:] = 0
    results = {}
    for way in ("eager", "sentcore"):
        model.set_attn_implementation(way)
        model.zero_grad()
        given = {"input_ids": sources, "attention_mask": mask, "decoder_input_ids": targets}
        logits = model(**given, decoder_attention_mask=decoder_mask).logits[decoder_mask.bool()]
        logits.square().sum().backward()
        gradients = torch.cat(
            [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        )
        options = {"max_new_tokens": 9, "num_beams": 2, "do_sample": False}
        results[way] = logits.detach(), gradients, model.generate(sources, attention_mask=mask, **options)
    torch.testing.assert_close(results["sentcore"][0], results["eager"][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results["sentcore"][1], results["eager"][1], atol=1e-4, rtol=1e-4)
    assert torch.equal(results["sentcore"][2], results["eager"][2])


def test_bias_audit(tiny, tmp_path, run):
    pytest.importorskip("matplotlib")
    results = run("bias_audit", "--model", tiny, "--permutations", 500, "--out", tmp_path)
    assert len(results) == 5 and all(-2 <= result["effect"] <= 2 and 0 < result["p"] <= 1 for result in results)
    assert is_picture(tmp_path / "bias_audit.png")
    assert [entry["p"] for entry in json.loads((tmp_path / "results.json").read_text())] == [r["p"] for r in results]


def test_bias_audit_is_the_test_of_the_paper(load):
    audit = load("bias_audit")
    draw = np.random.default_rng(0)
    rows = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in draw.normal(size=(4, 4, 6))]
    x, y, a, b = rows
    s = lambda w: np.mean([w @ u for u in a]) - np.mean([w @ u for u in b])  # noqa: E731
    both = [s(w) for w in [*x, *y]]
    effect = (np.mean(both[:4]) - np.mean(both[4:])) / np.std(both, ddof=1)
    observed = sum(both[:4]) - sum(both[4:])
    splits = [
        sum(both[i] if i in chosen else -both[i] for i in range(8)) for chosen in itertools.combinations(range(8), 4)
    ]
    p = np.mean([split >= observed - 1e-12 for split in splits])
    found = audit.association_test(audit.associations(x, a, b), audit.associations(y, a, b), 1000, draw)
    assert found == {"effect": pytest.approx(effect), "p": pytest.approx(p), "permutations": 70}
    drawn = audit.association_test(audit.associations(x, a, b), audit.associations(y, a, b), 60, draw)
    assert drawn["permutations"] == 60 and drawn["p"] == pytest.approx(p, abs=0.25)
    apart = audit.association_test(np.array([3.0, 4, 5]), np.array([0.0, 1, 2]), 1000, draw)
    assert apart["p"] == pytest.approx(1 / 20)


def test_compress(tiny, tmp_path, run):
    pytest.importorskip("matplotlib")
    table = run("compress", "--model", tiny, "--layers", 1, "--steps", 3, "--out", tmp_path / "out")
    assert list(table) == ["teacher float32", "teacher int8", "student float32", "student int8"]
    sizes = {name: column["size (MB)"] for name, column in table.items()}
    assert sizes["teacher int8"] < sizes["teacher float32"] > sizes["student float32"] > sizes["student int8"]
    quality = {name: column["similarity correlation"] for name, column in table.items()}
    assert quality["teacher float32"] == pytest.approx(1) and quality["teacher int8"] > 0.9
    assert table["teacher float32"]["same nearest line"] == 1
    assert is_picture(tmp_path / "out" / "compress.png")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == table
    assert sentcore.SentenceEncoder(tmp_path / "out" / "student").encode("the cat").shape == (32,)


FAQ = '{"question": "a", "answer": "b", "asked": ["a", "a", "a", "a"]}\n'
BAD = [
    (
        "customer_service",
        "--data",
        "a.jsonl",
        FAQ + '{"question": "a", "asked": []}\n',
        "line 2: accepted: question and",
    ),
    ("customer_service", "--data", "a.jsonl", FAQ + "no\n", "line 2: no JSON object"),
    (
        "opinion_monitor",
        "--data",
        "a.jsonl",
        '{"date": "2026-13-01", "text": "a"}\n',
        "line 1: no JSON object with date",
    ),
    ("opinion_monitor", "--labelled", "a.jsonl", '{"text": "a", "sentiment": "good"}\n', "accepted: sentiments"),
    ("recommend", "--items", "a.jsonl", '{"id": "a", "text": "b"}\n{"id": "a", "text": "b"}\n', "line 2: accepted: id"),
    ("recommend", "--users", "a.jsonl", '{"user": "a", "items": ["nothing"]}\n', "user 'a': accepted: ids"),
    (
        "question_answering",
        "--data",
        "a.jsonl",
        '{"question": "a", "context": "b", "answer": "c"}\n',
        "line 1: accepted:",
    ),
    ("translate", "--data", "a.tsv", "a\tb\na b\n", "line 2: 1 columns"),
    ("bias_audit", "--data", "a.json", '[{"name": "a", "targets": {"x": ["a"]}}]', "test 1: accepted: a name"),
    ("compress", "--data", "a.txt", "a\nb\n\n", "2 lines with text leave"),
]


@pytest.mark.parametrize(("name", "option", "file", "content", "message"), BAD)
def test_a_bad_file_is_refused_with_its_line(name, option, file, content, message, tmp_path, run):
    path = tmp_path / file
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit, match=f"{file}[,:] {message}"):
        run(name, option, path)
