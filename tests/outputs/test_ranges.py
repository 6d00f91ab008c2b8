"""int8 and uint8 rows by calibrated ranges, against sentence-transformers' quantize_embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import quantize_embeddings

from folders import make_bert_folder
from sentcore import SentenceEncoder
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.outputs import calibration_ranges

CALIBRATION = [f"the cat sat on {letter} " * count for letter in "abcdefghijklmnopqrstuvwxyz" for count in (1, 2, 3, 4)]
SENTENCES = ["the cat sat on the dogs", "我爱北京天安门", "slowly", ""]


@pytest.fixture
def encoder(tmp_path):
    return SentenceEncoder(make_bert_folder(tmp_path / "model"), device="cpu")


@pytest.mark.parametrize("precision", ["int8", "uint8"])
@pytest.mark.parametrize("truncate_dim", [None, 9])
def test_equal_to_sentence_transformers(encoder, precision, truncate_dim):
    known = encoder.encode(CALIBRATION, truncate_dim=truncate_dim)
    ranges = calibration_ranges(known)
    assert ranges.dtype == np.float32 and ranges.shape == (2, truncate_dim or 32)
    rows = encoder.encode(SENTENCES, truncate_dim=truncate_dim)
    found = encoder.encode(SENTENCES, truncate_dim=truncate_dim, precision=precision, ranges=ranges)
    np.testing.assert_array_equal(found, quantize_embeddings(rows, precision, calibration_embeddings=known))
    np.testing.assert_array_equal(found, quantize_embeddings(rows, precision, ranges=ranges))
    assert found.dtype == np.dtype(precision)
    assert (found != encoder.encode(SENTENCES, truncate_dim=truncate_dim, precision=precision)).any()
    assert (found == np.iinfo(precision).max).any() or (found == np.iinfo(precision).min).any()  # outside: clipped


def test_a_text_has_the_same_bytes_in_any_call(encoder):
    ranges = torch.from_numpy(calibration_ranges(torch.from_numpy(encoder.encode(CALIBRATION))))
    together = encoder.encode(SENTENCES, precision="int8", ranges=ranges)
    alone = np.stack([encoder.encode(text, precision="int8", ranges=ranges) for text in SENTENCES])
    assert (np.abs(together.astype(int) - alone) <= 1).all() and (together == alone).mean() > 0.99
    assert encoder.encode([], precision="int8", ranges=ranges).shape == (0, 32)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ranges": np.zeros((2, 32), np.float32)}, "ranges are given with precision 'float32'"),
        ({"ranges": np.zeros((2, 31), np.float32), "precision": "int8"}, r"shape \[2, 31\]; accepted: \[2, 32\]"),
        ({"ranges": np.zeros((2, 32), np.float32), "precision": "int8", "truncate_dim": 8}, r"accepted: \[2, 8\]"),
        ({"ranges": np.zeros((2, 32), np.int64), "precision": "uint8"}, "ranges are of int64"),
        ({"ranges": np.full((2, 32), np.nan, np.float32), "precision": "int8"}, "ranges of column 0 are nan to nan"),
        (
            {"ranges": np.stack((np.ones(32), np.zeros(32))), "precision": "int8"},
            "ranges of column 0 are 1.0 to 0.0",
        ),
    ],
)
def test_wrong_ranges_are_named(encoder, options, says):
    with pytest.raises((ArgumentValueError, ArgumentTypeError), match=says):
        encoder.encode(SENTENCES, **options)


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (np.zeros((0, 4), np.float32), r"shape \[0, 4\]"),
        (np.zeros(4, np.float32), r"shape \[4\]"),
        (np.zeros((3, 4), np.int8), "features are of int8"),
        (np.array([[0.0], [np.inf]]), r"features\[1\] holds NaN or infinity"),
    ],
)
def test_wrong_calibration_is_named(features, says):
    with pytest.raises((ArgumentValueError, ArgumentTypeError), match=says):
        calibration_ranges(features)
