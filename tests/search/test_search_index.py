"""SearchIndex against plain NumPy, in memory and in a folder: what is found, what is kept, what is refused."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

import sentcore
from folders import change, make_bert_folder
from sentcore.search import IndexMismatchError, exact

TEXTS = [
    "the cat sat",
    "dog",
    "我爱北京",
    "",
    "the cat sat",
    "cats on the dog",
    "天安门",
    "a b c d e f",
    "x\n\ty",
    "the",
]
QUERIES = ["the cat", "北京", "dog on"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    prompts = {"query": "the ", "passage": "cat "}
    return make_bert_folder(tmp_path_factory.mktemp("models") / "tiny", prompts=prompts)


@pytest.fixture
def model(folder):
    return sentcore.SentenceEncoder(folder)


def by_numpy(model, k, texts=TEXTS, queries=QUERIES, **options):
    """(scores, rows) by sorting every score, in float64."""
    corpus = model.encode(texts, prompt="cat ", **options).astype(np.float64)
    asked = model.encode(queries, prompt="the ", **options).astype(np.float64)
    scores = model.similarity_fn_name
    if scores == "cosine":
        corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    if scores in ("cosine", "dot"):
        found = asked @ corpus.T
    else:
        found = -np.linalg.norm(asked[:, None] - corpus, ord={"euclidean": 2, "manhattan": 1}[scores], axis=2)
    order = np.argsort(-found.round(6), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(found, order, axis=1), order


def assert_found(found, wanted, texts=TEXTS):
    scores, rows = wanted
    assert [[hit["corpus_id"] for hit in hits] for hits in found] == rows.tolist()
    np.testing.assert_allclose([[hit["score"] for hit in hits] for hits in found], scores, atol=2e-5)
    assert [[hit["text"] for hit in hits] for hits in found] == [[texts[row] for row in line] for line in rows]


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("stored", [False, True])
def test_what_is_found_is_what_numpy_finds(model, tmp_path, similarity, stored, monkeypatch):
    monkeypatch.setattr(exact, "BLOCK_BYTES", 4 * 32 * 3)  # three rows a block
    model.similarity_fn_name = similarity
    index = sentcore.SearchIndex.build(model, iter(TEXTS), tmp_path / "index" if stored else None)
    assert len(index) == len(TEXTS) and list(index.texts) == TEXTS
    assert isinstance(index.features, np.memmap) == stored
    for k in (1, 4, 10):
        assert_found(index.search(QUERIES, k=k), by_numpy(model, k))
    one = index.search(QUERIES[0], k=99)
    assert_found([one], by_numpy(model, 10, queries=QUERIES[:1]))


def test_top_k_of_random_rows_with_equal_ones(monkeypatch):
    draw = np.random.default_rng(0)
    features = draw.integers(-2, 3, (500, 6)).astype(np.float32)  # whole numbers: sums are exact, many scores equal
    queries = draw.integers(-2, 3, (7, 6)).astype(np.float32)
    monkeypatch.setattr(exact, "BLOCK_BYTES", 4 * 7 * 64)
    for k in (1, 5, 64, 65, 500):
        scores, rows = exact.top_k(queries, features, k, "dot")
        order = np.argsort(-(queries @ features.T), axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(rows, order)
        np.testing.assert_array_equal(scores, np.take_along_axis(queries @ features.T, order, axis=1))


def test_options_hold_for_queries_too(model, tmp_path):
    index = sentcore.SearchIndex.build(model, TEXTS, truncate_dim=5)
    assert index.features.shape == (10, 5)
    assert_found(index.search(QUERIES, k=3), by_numpy(model, 3, truncate_dim=5))
    plain = sentcore.SearchIndex.build(model, TEXTS, prompt="")
    hits = plain.search("dog", k=1, prompt="")
    assert hits[0]["text"] == "dog" and hits[0]["score"] == pytest.approx(1, abs=1e-5)


def test_saved_and_loaded(model, folder, tmp_path):
    built = sentcore.SearchIndex.build(model, TEXTS, corpus={"name": "mine"})
    built.save(tmp_path / "index")
    again = sentcore.SearchIndex.load(tmp_path / "index", sentcore.SentenceEncoder(folder), corpus={"name": "mine"})
    assert np.array_equal(again.features, built.features) and list(again.texts) == TEXTS
    assert again.search(QUERIES, k=4) == built.search(QUERIES, k=4)
    again.save(tmp_path / "index")  # over itself
    assert sentcore.SearchIndex.load(tmp_path / "index", model).search("dog") == built.search("dog")
    assert len(list((tmp_path / "index").iterdir())) == 4  # nothing of the first is left
    with pytest.raises(IndexMismatchError, match="the corpus differs in name \\('mine' in the index, 'yours' here\\)"):
        sentcore.SearchIndex.load(tmp_path / "index", model, corpus={"name": "yours"})
    with pytest.raises(IndexMismatchError, match="the index differs in chunk \\(None in the index, 'mean' here\\)"):
        sentcore.SearchIndex.load(tmp_path / "index", model, options={"chunk": "mean"})


def test_another_model_is_refused_by_what_differs(model, folder, tmp_path):
    sentcore.SearchIndex.build(model, TEXTS, tmp_path / "index")
    with torch.no_grad():
        model.model.encoder.embeddings.word_embeddings.weight[7, 0] += 1e-3
    with pytest.raises(IndexMismatchError, match=r"differs in weights \('.*--rebuild"):
        sentcore.SearchIndex.load(tmp_path / "index", model)
    with pytest.raises(IndexMismatchError, match="differs in max_length \\(24 in the index, 9 here\\)"):
        sentcore.SearchIndex.load(tmp_path / "index", sentcore.SentenceEncoder(folder, max_length=9))
    with pytest.raises(IndexMismatchError, match="dtype \\('float32' in the index, 'bfloat16' here\\)"):
        sentcore.SearchIndex.load(tmp_path / "index", sentcore.SentenceEncoder(folder, dtype="bfloat16"))
    with pytest.raises(IndexMismatchError, match="differs in architecture"):
        sentcore.SearchIndex.load(tmp_path / "index", sentcore.SentenceEncoder(folder, pooling="max"))
    change(folder / "tokenizer_config.json", do_lower_case=False)
    try:
        with pytest.raises(IndexMismatchError, match="differs in tokenizer"):
            sentcore.SearchIndex.load(tmp_path / "index", sentcore.SentenceEncoder(folder))
    finally:
        change(folder / "tokenizer_config.json", do_lower_case=True)


def test_a_build_that_fails_leaves_the_old_index(model, tmp_path):
    built = sentcore.SearchIndex.build(model, TEXTS, tmp_path / "index")
    before = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}

    def texts():
        yield from ["a"] * 9000  # more than a block
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sentcore.SearchIndex.build(model, texts(), tmp_path / "index")
    assert {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()} == before
    with pytest.raises(sentcore.SentcoreError, match=r"sentences\[1\] is 3"):
        sentcore.SearchIndex.build(model, ["a", 3], tmp_path / "index")
    assert sentcore.SearchIndex.load(tmp_path / "index", model).search("dog") == built.search("dog")


def test_damage_is_refused(model, tmp_path):
    sentcore.SearchIndex.build(model, TEXTS, tmp_path / "index")
    features = next((tmp_path / "index").glob("features*"))
    whole = features.read_bytes()
    features.write_bytes(whole[:-4])
    with pytest.raises(IndexMismatchError, match="instead of 1408 bytes; build it again"):
        sentcore.SearchIndex.load(tmp_path / "index", model)
    features.write_bytes(b"?" * len(whole))
    with pytest.raises(IndexMismatchError, match="no npy file any more"):
        sentcore.SearchIndex.load(tmp_path / "index", model)
    features.unlink()
    with pytest.raises(IndexMismatchError, match="absent instead of 1408"):
        sentcore.SearchIndex.load(tmp_path / "index", model)
    manifest = tmp_path / "index" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    with pytest.raises(IndexMismatchError, match="format 99; this version reads 1"):
        sentcore.SearchIndex.load(tmp_path / "index", model)
    manifest.write_text("[]")
    with pytest.raises(IndexMismatchError, match="no manifest of an index"):
        sentcore.SearchIndex.load(tmp_path / "index", model)
    sentcore.SearchIndex.build(model, TEXTS, tmp_path / "index")  # and can be built over
    assert len(sentcore.SearchIndex.load(tmp_path / "index", model)) == 10
    with pytest.raises(FileNotFoundError, match="holds no index"):
        sentcore.SearchIndex.load(tmp_path / "none", model)


def test_bad_arguments(model, tmp_path):
    build = sentcore.SearchIndex.build
    (tmp_path / "file").write_text("")
    for arguments, options, message in [
        (([],), {}, "holds no text"),
        (("cat",), {}, "texts is the text 'cat'"),
        ((TEXTS, tmp_path / "file"), {}, "a file; accepted: a folder"),
        ((TEXTS,), {"index_type": "best"}, "index_type is 'best'; accepted: exact, faiss"),
        ((TEXTS,), {"faiss_factory": "Flat"}, "faiss_factory is 'Flat' and index_type 'exact'"),
        ((TEXTS,), {"prompt_name": "answer"}, "prompt_name is 'answer'"),
        ((TEXTS,), {"prompt_name": "query", "prompt": "a"}, "accepted: one of them"),
    ]:
        with pytest.raises(sentcore.SentcoreError, match=message):
            build(model, *arguments, **options)
    index = build(model, TEXTS)
    for k in (0, -1, 2.0, True, None):
        with pytest.raises(sentcore.SentcoreError, match=r"k is .*; accepted: "):
            index.search("cat", k=k)
    assert index.search([], k=1) == []


@pytest.mark.filterwarnings("ignore:.*NaN or infinite:RuntimeWarning")
def test_no_number_is_refused(model):
    with torch.no_grad():
        model.model.encoder.embeddings.word_embeddings.weight[7] = float("nan")  # "dog"
    with pytest.raises(ArithmeticError, match=r"texts\[1\] has a feature that is NaN"):
        sentcore.SearchIndex.build(model, TEXTS)
    index = sentcore.SearchIndex.build(model, ["the", "北京"])
    with pytest.raises(ArithmeticError, match=r"queries\[0\]"):
        index.search("dog")


def test_faiss(model, tmp_path):
    pytest.importorskip("faiss")
    build = sentcore.SearchIndex.build
    texts = [f"{a} {b}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghij"]
    exact_hits = build(model, texts).search(QUERIES, k=5)
    for factory in (None, "Flat"):
        index = build(model, texts, tmp_path / f"{factory}", index_type="faiss", faiss_factory=factory)
        found = index.search(QUERIES, k=5)
        for hits, wanted in zip(found, exact_hits, strict=True):
            np.testing.assert_allclose([hit["score"] for hit in hits], [hit["score"] for hit in wanted], atol=2e-5)
            assert [texts[hit["corpus_id"]] for hit in hits] == [hit["text"] for hit in hits]
        again = sentcore.SearchIndex.load(tmp_path / f"{factory}", model, options={"index_type": "faiss"})
        assert again.search(QUERIES, k=5) == found
        again.save(tmp_path / "copy")
        assert sentcore.SearchIndex.load(tmp_path / "copy", model).search(QUERIES, k=5) == found
    with pytest.raises(sentcore.SentcoreError, match="faiss_factory is 'Flut', which faiss cannot build for features"):
        build(model, texts, index_type="faiss", faiss_factory="Flut")
    with pytest.raises(sentcore.SentcoreError, match="which faiss cannot build over 10 features"):
        build(model, TEXTS, index_type="faiss", faiss_factory="IVF64,Flat")
    model.similarity_fn_name = "manhattan"
    with pytest.raises(sentcore.SentcoreError, match="accepted with faiss: cosine, dot"):
        build(model, texts, index_type="faiss")


def test_without_faiss_it_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match="pip install 'sentcore\\[faiss\\]'"):
        sentcore.SearchIndex.build(model, TEXTS, index_type="faiss")
