"""dtype="int8": close features, what moves and what stays, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sentcore
from sentcore import SentenceEncoder
from sentcore.errors import ArgumentValueError
from sentcore.layers.int8 import Int8Linear

TEXTS = ["a storage engine of a database", "我爱北京天安门", "ok", "", "the committee met again on Tuesday " * 40]


@pytest.fixture(scope="module")
def model():
    return SentenceEncoder("minilm", device="cpu", dtype="int8")


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_features_are_close_to_float32(backend):
    expected = SentenceEncoder("minilm", device="cpu").encode(TEXTS)
    model = SentenceEncoder("minilm", device="cpu", dtype="int8", backend=backend)
    found = model.encode(TEXTS)
    assert found.dtype == np.float32
    cosines = (found * expected).sum(axis=1)
    assert cosines.min() > 0.99 and cosines.mean() > 0.997
    assert model.dtype == torch.int8


def test_weights_are_a_byte_each(model):
    layers = model.model.encoder.layers
    assert sum(p.numel() for name, p in layers.named_parameters() if "layer_norm" not in name) == 0
    held = sum(b.numel() * b.element_size() for b in layers.buffers())
    weights = sum(module.values.numel() for module in layers.modules() if isinstance(module, Int8Linear))
    assert weights == 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert held < 1.02 * weights


def test_scales_stay_float32(model):
    layer = Int8Linear([torch.nn.Linear(8, 4)])
    expected = layer.scale.clone(), layer.bias.clone()
    layer.to(torch.bfloat16)
    assert torch.equal(layer.scale, expected[0]) and torch.equal(layer.bias, expected[1])


def test_what_cannot_be_done_is_refused(model, tmp_path):
    with pytest.raises(ArgumentValueError, match="save_pretrained of an int8 model"):
        model.save_pretrained(tmp_path)
    with pytest.raises(ArgumentValueError, match=r"train\(True\) on an int8 model"):
        model.train()
    with pytest.raises(ArgumentValueError, match="dtype is 'int8' on cuda"):
        sentcore.placement.pick_dtype("int8", torch.device("cuda"))
