"""Token ids exactly as transformers gets them, on nasty texts, long texts and short budgets."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from folders import make_bert_folder
from sentcore.inputs.texts import check_texts
from sentcore.inputs.tokenizer import Tokenizer

NASTY = st.text(
    st.one_of(
        st.characters(exclude_categories=("Cs",)),
        st.sampled_from(" \t\n\r\x00\u00a0\u200b\u3000\u0301\ufeff我爱北京。，![]#'-"),
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def pair(minilm_folder):
    theirs = AutoTokenizer.from_pretrained(minilm_folder)
    return Tokenizer.from_folder(minilm_folder, max_length=16), theirs


def rows(tokens):
    return [tokens.token_ids[a:b].tolist() for a, b in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)]


def test_real_texts(pair, texts):
    ours, theirs = pair
    expected = theirs(texts, truncation=True, max_length=16)["input_ids"]
    whole = theirs(texts)["input_ids"]
    tokens = ours.encode(texts)
    assert rows(tokens) == expected
    assert tokens.truncated.tolist() == [len(row) > 16 for row in whole]
    assert tokens.lengths.tolist() == [len(row) for row in expected]
    assert ours.vocab_size == len(theirs)


@given(st.lists(NASTY, max_size=4), st.integers(3, 30))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nasty_texts(pair, texts, limit):
    ours, theirs = pair
    expected = theirs(texts, truncation=True, max_length=limit)["input_ids"] if texts else []
    assert rows(ours.encode(texts, max_length=limit)) == expected


@given(st.lists(NASTY, min_size=1, max_size=4), st.integers(20, 60), st.integers(3, 12))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_long_texts_are_shortened_without_a_trace(pair, parts, times, limit):
    ours, theirs = pair
    text = "".join(part * times for part in parts)
    assert rows(ours.encode([text], max_length=limit)) == [theirs(text, truncation=True, max_length=limit)["input_ids"]]
    whole = len(theirs(text)["input_ids"])
    assert ours.encode([text], max_length=limit).truncated[0] == (whole > limit)


def test_a_megabyte_is_cut_before_it_is_tokenized(pair, monkeypatch):
    ours, _ = pair
    shortener, handed_over = ours._shortener, []

    def record(text, limit):
        handed_over.append(shortener(text, limit))
        return handed_over[-1]

    monkeypatch.setattr(ours, "_shortener", record)
    for text in ("word " * 200_000, "数据库" * 300_000, "a\n" * 500_000):
        assert ours.encode([text]).truncated.tolist() == [True]
        assert 0 < len(handed_over[-1]) < 2000


def test_one_endless_word_is_kept_whole(pair):
    ours, theirs = pair
    text = "x" * 100_000
    assert rows(ours.encode([text])) == theirs([text], truncation=True, max_length=16)["input_ids"]


def test_vocabulary_file_alone(tmp_path, texts):
    folder = make_bert_folder(tmp_path, generation=None)
    ours, theirs = Tokenizer.from_folder(folder, max_length=24), AutoTokenizer.from_pretrained(folder)
    assert rows(ours.encode(texts)) == theirs(texts, truncation=True, max_length=24)["input_ids"]


def test_lower_case_setting(tmp_path):
    folder = make_bert_folder(tmp_path, generation=None)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    kept = Tokenizer.from_folder(folder, 24)("The CAT")
    lowered = Tokenizer.from_folder(folder, 24, do_lower_case=True)("The CAT")
    assert (
        kept.token_ids.tolist()
        != lowered.token_ids.tolist()
        == Tokenizer.from_folder(folder, 24)("the cat").token_ids.tolist()
    )


def test_decode_and_tokens(pair):
    ours, _ = pair
    ids = ours("我天 cats").token_ids
    assert ours.tokens(ids) == ["[CLS]", "我", "天", "cats", "[SEP]"]
    assert ours.decode(ids) == "我 天 cats"


@pytest.mark.parametrize(
    ("given_texts", "says"),
    [
        (None, "sentences is of type NoneType"),
        (7, "sentences is of type int"),
        (b"bytes", "sentences is of type bytes; accepted: a text, or a sequence of texts; decode it"),
        ({"a": 1}, "sentences is of type dict"),
        (["a", None], r"sentences\[1\] is None"),
        (["a", "b", 3.5], r"sentences\[2\] is 3.5 of type float"),
        ([b"a"], r"sentences\[0\] is b'a' of type bytes"),
        ([["a", "b"]], r"sentences\[0\] is \['a', 'b'\] of type list"),
        (["fine", "bad \ud83d here"], r"sentences\[1\] holds the lone surrogate U\+D83D at character 4"),
    ],
)
def test_what_is_no_text_is_named_by_position(given_texts, says):
    with pytest.raises((TypeError, ValueError), match=says):
        check_texts(given_texts)


def test_what_is_text():
    assert check_texts("one") == (["one"], True)
    assert check_texts([]) == ([], False)
    assert check_texts(text for text in ("", " ")) == (["", " "], False)
