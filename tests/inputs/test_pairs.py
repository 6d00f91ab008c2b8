"""Pairs of texts: checked by position, and tokenized together exactly as transformers does it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import RobertaProcessing
from transformers import AutoTokenizer

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.inputs.pairs import check_documents, check_pairs
from sentcore.inputs.tokenizer import Tokenizer

WORDS = st.sampled_from(
    ["the cat", "我爱北京", "unaffordable", "x", "", " ", "naïve\tcafé", "[SEP]", "a-b.c", "Ştrasse 한국어"]
)
TEXT = st.builds(
    lambda words, times: " ".join(words) * times, st.lists(WORDS, max_size=5), st.sampled_from([1, 1, 3, 60])
)


@pytest.fixture(scope="module")
def both(minilm_folder):
    return Tokenizer.from_folder(minilm_folder, max_length=16), AutoTokenizer.from_pretrained(minilm_folder)


def rows(tokens, values):
    return [values[a:b].tolist() for a, b in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)]


def assert_same(ours, theirs, pairs, limit):
    firsts, seconds = map(list, zip(*pairs, strict=True))
    expected = theirs(firsts, seconds, truncation=True, max_length=limit)
    tokens = ours.encode_pairs(pairs, limit, token_types=True)
    assert rows(tokens, tokens.token_ids) == expected["input_ids"]
    if "token_type_ids" in expected:
        assert rows(tokens, tokens.token_type_ids) == expected["token_type_ids"]
    whole = theirs(firsts, seconds)["input_ids"]
    assert tokens.truncated.tolist() == [len(row) > limit for row in whole]


def test_texts_of_every_kind_beside_each_other(both, texts):
    pairs = [(first, second) for first in texts[:12] for second in texts[:12]]
    for limit in (16, 33):
        assert_same(*both, pairs, limit)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.integers(4, 21))
@settings(max_examples=60, deadline=None)
def test_truncation_of_the_longer_text_first(both, pairs, limit):
    assert_same(*both, pairs, limit)


@pytest.mark.parametrize("limit", [20, 21])  # an odd token goes to the longer text
def test_two_very_long_texts_share_the_room(both, limit):
    long, longer = "the cat sat " * 400, "a dog on it " * 500
    assert_same(*both, [(long, longer), (longer, long), (long, long), ("cat", longer), (longer, "cat")], limit)


def test_one_very_long_text_is_shortened_first(both, monkeypatch):
    ours = both[0]
    seen = []
    inner = ours._shortener.pair
    monkeypatch.setattr(ours._shortener, "pair", lambda *a: seen.append(inner(*a)) or seen[-1])
    ours.encode_pairs([("cat", "the dog " * 10_000)], 16)
    assert seen[0][0] == "cat" and len(seen[0][1]) < 1000


def test_a_tokenizer_with_four_special_tokens_and_no_types(tmp_path):
    vocabulary = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", *sorted(ByteLevel.alphabet())])}
    rust = RustTokenizer(BPE(vocabulary, []))
    rust.pre_tokenizer = ByteLevel(add_prefix_space=False)
    rust.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    rust.add_special_tokens(["<s>", "<pad>", "</s>"])
    rust.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    ours, theirs = Tokenizer.from_folder(tmp_path, 64), AutoTokenizer.from_pretrained(tmp_path)
    pairs = [("the cat", "sat"), ("", "x"), ("a" * 30, "b" * 50), ("c" * 50, "d" * 3)]
    for limit in (8, 11, 20, 64):
        assert_same(ours, theirs, pairs, limit)
    assert ours.encode_pairs(pairs, token_types=False).token_type_ids is None
    with pytest.raises(ArgumentValueError, match="max_length is 4; accepted for pairs: more than 4"):
        ours.encode_pairs(pairs, 4)


def test_no_pairs(both):
    tokens = both[0].encode_pairs([])
    assert len(tokens) == 0 and tokens.token_type_ids.size == 0


def test_what_is_a_pair_and_what_several():
    assert (
        check_pairs(("a", "b")) == check_pairs(["a", "b"]) == check_pairs(np.array(["a", "b"])) == ([("a", "b")], True)
    )
    several = ([("a", "b"), ("c", "d")], False)
    assert check_pairs([("a", "b"), ["c", "d"]]) == check_pairs(np.array([["a", "b"], ["c", "d"]])) == several
    assert check_pairs(zip("ac", "bd", strict=True)) == several
    assert check_pairs([("a", "b")]) == ([("a", "b")], False) and check_pairs([]) == ([], False)


@pytest.mark.parametrize(
    ("given_", "error", "says"),
    [
        ("text", ArgumentTypeError, "sentences is of type str; accepted: a pair"),
        (None, ArgumentTypeError, "sentences is of type NoneType"),
        ({"a": "b"}, ArgumentTypeError, "sentences is of type dict"),
        (["a", "b", "c"], ArgumentValueError, "sentences holds 3 texts; accepted: the two of one pair"),
        (["a", None], ArgumentTypeError, r"sentences\[1\] is None of type NoneType; accepted: a text"),
        ([("a", "b"), None], ArgumentTypeError, r"sentences\[1\] is None of type NoneType; accepted: a pair"),
        ([("a", "b"), 7], ArgumentTypeError, r"sentences\[1\] is 7 of type int; accepted: a pair"),
        ([("a", "b"), "ab"], ArgumentTypeError, r"sentences\[1\] is 'ab' of type str; accepted: a pair"),
        ([("a", "b"), ("a",)], ArgumentValueError, r"sentences\[1\] has 1 entries"),
        ([("a", "b"), ("a", "b", "c")], ArgumentValueError, r"sentences\[1\] has 3 entries"),
        ([("a", "b"), ("a", 3.5)], ArgumentTypeError, r"sentences\[1\]\[1\] is 3.5 of type float; accepted: a text"),
        ([("a\ud800", "b")], ArgumentValueError, r"sentences\[0\]\[0\] holds the lone surrogate U\+D800"),
    ],
)
def test_bad_pairs_are_named_by_position(given_, error, says):
    with pytest.raises(error, match=says):
        check_pairs(given_)


def test_bad_documents_are_named_by_position():
    assert check_documents("q", ("a", "b")) == [("q", "a"), ("q", "b")]
    for query, documents, says in (
        (None, ["a"], "query is None"),
        ("q", "text", "documents is of type str"),
        ("q", ["a", None], r"documents\[1\] is None"),
    ):
        with pytest.raises(ArgumentTypeError, match=says):
            check_documents(query, documents)
