"""`sentcore search`: what it prints, when it uses an index that is there, what it refuses."""

from __future__ import annotations

import json

import pytest
import torch

import sentcore
from folders import make_bert_folder
from sentcore.cli.choices import INDEX_TYPES
from sentcore.cli.snippets import LENGTH, snippet
from sentcore.search import index as search_index

TEXTS = ["the cat sat", "我爱北京", "dog on the cat", "x y z"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    return make_bert_folder(tmp_path_factory.mktemp("models") / "tiny", prompts={"query": "the "})


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def search(sentcore_command, folder):
    def run(*arguments, **options):
        return sentcore_command("search", "-m", folder, *arguments, **options)

    return run


def wanted(folder, query, k=5):
    hits = sentcore.SearchIndex.build(sentcore.SentenceEncoder(folder), TEXTS).search(query, k)
    return [{"query": query, "rank": rank, **hit} for rank, hit in enumerate(hits, 1)]


def test_blocks(search, folder, corpus):
    status, out, err = search("--corpus", corpus, "cat", "北京", "-k", 2)
    assert (status, err) == (0, "")
    lines = []
    for query in ("cat", "北京"):
        lines += [query, *(f"{hit['rank']:>4}  {hit['score']:.3f}  {hit['text']}" for hit in wanted(folder, query, 2))]
    assert out.splitlines() == lines


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_json_of_every_kind_of_file(search, folder, tmp_path, kind):
    path = tmp_path / f"corpus.{kind}"
    content = {
        "txt": "\n".join(TEXTS),
        "jsonl": "\n".join(json.dumps({"body": text}) for text in TEXTS),
        "csv": "id,body\n" + "\n".join(f"1,{text}" for text in TEXTS),
    }
    path.write_text(content[kind], encoding="utf-8")
    column = [] if kind == "txt" else ["--column", "body"]
    status, out, _ = search("--corpus", path, *column, "--json", "cat")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == wanted(folder, "cat")
    assert "我爱北京" in out


def test_queries_from_standard_input_and_from_a_prompt(search, corpus):
    status, out, _ = search("--corpus", corpus, "--json", stdin="cat\n\n北京\n".encode())
    assert status == 0
    assert [json.loads(line)["query"] for line in out.splitlines()] == ["cat"] * 4 + ["北京"] * 4
    status, typed, err = search("--corpus", corpus, "--json", stdin="cat\n\n北京\n".encode(), terminal=True)
    assert status == 0

    def rounded(lines):  # the order of additions differs between one query and two
        return [{**json.loads(line), "score": round(json.loads(line)["score"], 5)} for line in lines.splitlines()]

    assert rounded(typed) == rounded(out)
    assert err.count("query> ") == 4


def test_an_index_is_used_again(search, corpus, tmp_path, monkeypatch):
    ask = ("--index", tmp_path / "index", "--json", "cat")
    status, out, err = search("--corpus", corpus, *ask)
    assert status == 0 and f"wrote an index of 4 texts to {tmp_path / 'index'}" in err
    with monkeypatch.context() as patch:
        patch.setattr(search_index, "_encoded", None)  # nothing may be encoded again
        status, again, err = search("--corpus", corpus, *ask)
        assert (status, again) == (0, out) and "4 texts from the index" in err
        status, again, err = search(*ask, "--quiet")  # the corpus may be gone
        assert (status, again, err) == (0, out, "")
    assert search("--corpus", corpus, *ask, "--rebuild")[1] == out


def test_an_index_of_something_else_is_refused(search, sentcore_command, corpus, tmp_path):
    ask = ("--corpus", corpus, "--index", tmp_path / "index", "cat")
    assert search(*ask)[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}
    for more, said in [
        (["--dtype", "bfloat16"], "dtype ('float32' in the index, 'bfloat16' here)"),
        (["--max-length", 9], "max_length (24 in the index, 9 here)"),
        (["--chunk", "mean"], "chunk (None in the index, 'mean' here)"),
        (["--document-prompt", "cat"], "prompt ('' in the index, 'cat' here)"),
        (["--index-type", "faiss"], "index_type ('exact' in the index, 'faiss' here)"),
    ]:
        status, out, err = search(*ask, *more)
        assert (status, out) == (1, "") and said in err and "--rebuild" in err
    corpus.write_text("another\n")
    status, out, err = search(*ask)
    assert (status, out) == (1, "") and "the corpus differs in sha256" in err
    assert {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()} == before
    status, out, err = search(*ask, "--rebuild")
    assert status == 0 and "another" in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["cat"], 2, "give --corpus FILE"),
        (["--index", "{tmp}/none", "cat"], 2, "holds no index; give --corpus FILE"),
        (["--corpus", "{tmp}/none.txt", "cat"], 1, "--corpus is {tmp}/none.txt, and there is no such file"),
        (["--corpus", "{tmp}/a.doc", "cat"], 2, "accepted: a file name ending in"),
        (["--corpus", "{tmp}/corpus.txt", "--column", "a", "cat"], 2, "leave --column out"),
        (["--corpus", "{tmp}/corpus.txt", "--rebuild", "cat"], 2, "together with --corpus FILE and --index FOLDER"),
        (["--corpus", "{tmp}/corpus.txt", "--faiss-factory", "Flat", "cat"], 2, "together with --index-type faiss"),
        (["--corpus", "{tmp}/corpus.txt", "-k", "0", "cat"], 2, "'0'; accepted: a whole number of at least 1"),
        (["--corpus", "{tmp}/corpus.txt", "--query-prompt-name", "no", "cat"], 2, "prompt_name is 'no'"),
        (["--corpus", "{tmp}/corpus.txt", "a\udc80"], 2, "QUERY 1 holds a lone surrogate"),
        (["--corpus", "{tmp}/empty.txt", "cat"], 2, "holds no text"),
        (["--corpus", "{tmp}/bad.jsonl", "--index", "{tmp}/new", "cat"], 1, "bad.jsonl, line 2: not JSON"),
    ],
)
def test_bad_use(search, corpus, tmp_path, arguments, status, message):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\nno\n')
    found, out, err = search(*(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert (found, out) == (status, ""), err
    assert message.replace("{tmp}", str(tmp_path)) in err
    assert not list(tmp_path.glob("new/*"))


def test_snippets():
    assert snippet("a\x1b[31m b\n\tc", "") == "a [31m b c"
    long = "word " * 100 + "the refund is paid on Monday " + "word " * 100
    shown = snippet(long, "when is my REFUND paid")
    assert shown.startswith("… ") and shown.endswith(" …") and "the refund is paid" in shown
    assert len(shown) <= LENGTH + 4
    assert snippet("词" * 300 + "退货" + "词" * 300, "怎么退货").count("退货") == 1
    assert snippet(long, "nothing") == snippet(long, "") == (long[:LENGTH].strip() + " …")
    assert snippet("x" * 300 + " refund", "refund").endswith("refund")


def test_choices_are_the_librarys():
    assert INDEX_TYPES == search_index.INDEX_TYPES
