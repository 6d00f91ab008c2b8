"""The packer: what a packed batch is, the compiled packer against NumPy, and bad input."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.inputs.packing import pack_batch, pack_batch_numpy
from sentcore.packed import TokenizedTexts

PACKERS = [pack_batch, pack_batch_numpy]


def texts(*sentences, types=None):
    """TokenizedTexts of lists of token ids; `types` are lists of token type ids."""
    return TokenizedTexts(
        token_ids=np.array([t for s in sentences for t in s], dtype=np.int32),
        offsets=np.cumsum([0, *map(len, sentences)], dtype=np.int64),
        token_type_ids=None if types is None else np.array([t for s in types for t in s], np.int32),
        truncated=np.zeros(len(sentences), dtype=np.bool_),
    )


def int64(values):
    return np.asarray(values, dtype=np.int64)


HELLO = texts([101, 7632, 102], [101, 102], [], [5, 6, 7, 8])


@pytest.mark.parametrize("pack", PACKERS)
def test_five_tokens_by_hand(native, pack):
    batch = pack(HELLO, int64([0, 1]), device="cpu")
    assert batch.token_ids.tolist() == [101, 7632, 102, 101, 102]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1]
    assert batch.token_type_ids.tolist() == [0, 0, 0, 0, 0]
    assert batch.cu_seqlens.tolist() == [0, 3, 5]
    assert batch.max_seqlen == 3
    for ids in (batch.token_ids, batch.position_ids, batch.token_type_ids):
        assert ids.dtype == torch.int64
        assert ids.is_contiguous()
    assert batch.cu_seqlens.dtype == torch.int32


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize(
    ("indices", "token_ids", "cu_seqlens", "max_seqlen"),
    [
        ([], [], [0], 0),
        ([2], [], [0, 0], 0),
        ([3], [5, 6, 7, 8], [0, 4], 4),
        ([2, 3, 2], [5, 6, 7, 8], [0, 0, 4, 4], 4),
        ([1, 0, 1], [101, 102, 101, 7632, 102, 101, 102], [0, 2, 5, 7], 3),
    ],
)
def test_order_repeats_and_empty_texts(native, pack, indices, token_ids, cu_seqlens, max_seqlen):
    batch = pack(HELLO, int64(indices), device="cpu")
    assert batch.token_ids.tolist() == token_ids
    assert batch.cu_seqlens.tolist() == cu_seqlens
    assert batch.max_seqlen == max_seqlen


@pytest.mark.parametrize("pack", PACKERS)
def test_token_types_follow_their_tokens(native, pack):
    pairs = texts([1, 2, 3], [4, 5], types=[[0, 0, 1], [0, 1]])
    assert pack(pairs, int64([1, 0]), device="cpu").token_type_ids.tolist() == [0, 1, 0, 0, 1]


sentence = st.lists(st.integers(0, 2**31 - 1), max_size=9)


@given(data=st.data(), sentences=st.lists(sentence, max_size=12), typed=st.booleans())
def test_both_packers_gather_what_was_chosen(native, data, sentences, typed):
    types = [[token % 3 for token in s] for s in sentences] if typed else None
    tokens = texts(*sentences, types=types)
    chosen = st.lists(st.integers(0, len(sentences) - 1), max_size=20) if sentences else st.just([])
    indices = data.draw(chosen)
    for pack in PACKERS:
        batch = pack(tokens, int64(indices), device="cpu")
        cuts = batch.cu_seqlens.tolist()
        assert cuts[0] == 0
        assert len(cuts) == len(indices) + 1
        assert batch.max_seqlen == max((len(sentences[i]) for i in indices), default=0)
        for k, i in enumerate(indices):
            part = slice(cuts[k], cuts[k + 1])
            assert batch.token_ids[part].tolist() == sentences[i]
            assert batch.position_ids[part].tolist() == list(range(len(sentences[i])))
            expected_types = types[i] if typed else [0] * len(sentences[i])
            assert batch.token_type_ids[part].tolist() == expected_types


@pytest.mark.parametrize("pack", PACKERS)
def test_views_that_are_not_contiguous(native, pack):
    wide = np.array([1, 9, 2, 9, 3, 9], dtype=np.int32)
    tokens = TokenizedTexts(wide[::2], int64([0, 9, 1, 9, 3, 9])[::2], wide[::2], np.zeros(2, bool))
    batch = pack(tokens, int64([1, 9, 0, 9])[::2], device="cpu")
    assert batch.token_ids.tolist() == batch.token_type_ids.tolist() == [2, 3, 1]


def changed(**fields):
    return dataclasses.replace(HELLO, **fields)


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize(
    ("tokens", "indices", "error", "words"),
    [
        ([[1, 2]], int64([0]), ArgumentTypeError, ["tokens", "list", "TokenizedTexts"]),
        (HELLO, [0], ArgumentTypeError, ["indices", "list", "int64"]),
        (HELLO, np.array([0], np.int32), ArgumentTypeError, ["indices", "int32", "int64"]),
        (HELLO, int64([[0]]), ArgumentValueError, ["indices", "(1, 1)"]),
        (HELLO, int64([0, 4]), ArgumentValueError, ["indices[1]", "4", "0 to 3"]),
        (HELLO, int64([-1]), ArgumentValueError, ["indices[0]", "-1", "0 to 3"]),
        (
            changed(token_ids=HELLO.token_ids.astype(np.int64)),
            int64([0]),
            ArgumentTypeError,
            ["tokens.token_ids", "int64", "int32"],
        ),
        (
            changed(token_type_ids=np.zeros(3, np.int32)),
            int64([0]),
            ArgumentValueError,
            ["tokens.token_type_ids", "3", "9"],
        ),
        (
            changed(offsets=int64([0, 3, 2, 5, 9])),
            int64([1]),
            ArgumentValueError,
            ["tokens.offsets", "text 1", "3 to 2"],
        ),
        (
            changed(offsets=int64([0, 3, 5, 5, 10])),
            int64([3]),
            ArgumentValueError,
            ["tokens.offsets", "text 3", "5 to 10", "9 token ids"],
        ),
        (
            changed(offsets=int64([])),
            int64([]),
            ArgumentValueError,
            ["tokens.offsets", "no element"],
        ),
    ],
)
def test_bad_arguments_are_named(native, pack, tokens, indices, error, words):
    with pytest.raises(error) as caught:
        pack(tokens, indices, device="cpu")
    for word in words:
        assert word in str(caught.value)


def native_arguments(**changes):
    arguments = {
        "token_ids": HELLO.token_ids,
        "offsets": HELLO.offsets,
        "token_type_ids": None,
        "indices": int64([0, 1]),
        "out": np.full((3, 5), -1, dtype=np.int64),
        "cu_seqlens": np.full(3, -1, dtype=np.int32),
    }
    return arguments | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": int64([0, 7])}, r"indices\[1\] is 7"),
        ({"indices": int64([0, -1])}, r"indices\[1\] is -1"),
        ({"offsets": int64([0, 3, 99])}, "places text 1 at 3 to 99"),
        ({"offsets": int64([-1, 3, 5])}, "places text 0 at -1 to 3"),
        ({"offsets": int64([])}, "offsets has no element"),
        ({"out": np.zeros((3, 4), np.int64)}, "hold 4 tokens but indices select 5"),
        ({"out": np.zeros((2, 5), np.int64)}, "shape"),
        ({"cu_seqlens": np.zeros(2, np.int32)}, "cu_seqlens has 2 elements"),
        ({"token_type_ids": np.zeros(1, np.int32)}, "token_type_ids has 1 elements"),
    ],
)
def test_the_extension_checks_on_its_own(native, changes, message):
    """Its callers check first, but nothing may make it read or write outside its arrays."""
    arguments = native_arguments(**changes)
    untouched = arguments["out"].copy()
    with pytest.raises(ValueError, match=message):
        native.pack_batch(**arguments)
    np.testing.assert_array_equal(arguments["out"], untouched)


@pytest.mark.parametrize(
    "changes",
    [
        {"out": np.zeros((5, 3), np.int64).T},  # a copy would be filled in its place
        {"out": np.zeros((3, 5), np.int32)},
        {"cu_seqlens": np.zeros(3, np.int64)},
    ],
)
def test_the_extension_never_fills_a_copy(native, changes):
    with pytest.raises(TypeError):
        native.pack_batch(**native_arguments(**changes))


def test_a_read_only_output_is_refused(native):
    arguments = native_arguments()
    arguments["out"].flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        native.pack_batch(**arguments)
