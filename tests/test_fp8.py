"""dtype="fp8": close features by its definition, what moves and what stays, where it is refused."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

import sentcore
from sentcore import SentenceEncoder, _extension
from sentcore.errors import ArgumentValueError, BackendError
from sentcore.layers.fp8 import Fp8Linear
from sentcore.placement import pick_dtype

TEXTS = [
    "How do I return an item?",
    "Refunds are paid within five working days.",
    "a storage engine of a database",
    "The quick brown fox jumps over the lazy dog.",
    "Where can I find the opening hours of the library?",
    "我爱北京天安门",
    "Der Mietvertrag läuft am 31. Dezember aus.",
    "Naïve café, déjà vu!",
    "ok",
    "",
    "the committee met again on Tuesday " * 40,
]
E4M3 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def model():
    return SentenceEncoder("minilm", device="cpu", dtype="fp8", backend="reference")


def test_features_are_close_to_float32(model):
    expected = SentenceEncoder("minilm", device="cpu").encode(TEXTS)
    found = model.encode(TEXTS)
    assert found.dtype == np.float32 and model.dtype == E4M3
    cosines = (found * expected).sum(axis=1)
    assert cosines.min() > 0.99 and cosines.mean() > 0.995
    assert cosines.max() < 0.9999  # 8 bits were really used


def test_every_linear_layer_is_a_byte_a_weight(model):
    layers = model.model.encoder.layers
    assert sum(p.numel() for name, p in layers.named_parameters() if "layer_norm" not in name) == 0
    weights = [module.values for module in layers.modules() if isinstance(module, Fp8Linear)]
    assert {w.dtype for w in weights} == {torch.uint8} and len(weights) == 6 * 4
    assert sum(w.numel() for w in weights) == 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert sum(b.numel() * b.element_size() for b in layers.buffers()) < 1.02 * sum(w.numel() for w in weights)


def test_values_and_scales_stay_as_they_are_whatever_the_module_is_converted_to():
    layer = Fp8Linear([torch.nn.Linear(24, 4), torch.nn.Linear(24, 3, bias=False)])
    expected, x = {name: tensor.clone() for name, tensor in layer.named_buffers()}, torch.randn(5, 24)
    for changed in (
        layer.to(torch.bfloat16),
        layer.half().float(),
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
    ):
        for name, tensor in changed.named_buffers():
            assert tensor.dtype == expected[name].dtype and torch.equal(tensor, expected[name])
        assert torch.equal(changed(x), layer(x))


@pytest.mark.parametrize("activation", ["relu", "geglu", "swiglu"])
def test_other_architectures(activation):
    gated = activation != "relu"
    config = sentcore.EncoderConfig(
        vocab_size=30, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
        hidden_act={"geglu": "gelu", "swiglu": "silu"}.get(activation, activation), gated=gated,
        position_embedding_type="rotary" if gated else "absolute",
    )  # fmt: skip
    torch.manual_seed(0)
    encoder = sentcore.Encoder(config, backend="reference").eval()
    batch = sentcore.PackedBatch.from_sequences([[1, 2, 3, 4, 5], [6, 7]])
    with torch.no_grad():
        expected = encoder(batch)
        found = encoder.to_fp8()(batch)
    assert encoder.layers[0].feed_forward.activation == activation and encoder.dtype == E4M3
    assert torch.nn.functional.cosine_similarity(found.float(), expected).min() > 0.99


def test_processes_compute_the_same(model):
    expected = model.encode(TEXTS)
    assert np.array_equal(model.encode(TEXTS, devices=["cpu"]), expected)


def test_where_it_is_refused(model, tmp_path, monkeypatch):
    with pytest.raises(ArgumentValueError, match="save_pretrained of an fp8 model"):
        model.save_pretrained(tmp_path)
    with pytest.raises(ArgumentValueError, match=r"train\(True\) on an fp8 model"):
        model.train()
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    for backend in ("auto", "native"):
        with pytest.raises(ArgumentValueError, match=r"dtype is 'fp8' on cpu; .* use dtype='int8' or 'bfloat16'"):
            pick_dtype("fp8", cpu, backend)
    assert pick_dtype("fp8", cpu, "reference") == pick_dtype(E4M3, cpu, "reference") == E4M3
    monkeypatch.setattr(_extension, "_fp8_reasons", {0: "this card is too old"})
    with pytest.raises(
        BackendError, match=r"dtype is 'fp8' on cuda:0, but this card is too old\. Use dtype='bfloat16'"
    ):
        pick_dtype("fp8", gpu)
    assert pick_dtype("fp8", gpu, "reference") == E4M3
    monkeypatch.setattr(_extension, "_fp8_reasons", {0: None})
    assert pick_dtype(E4M3, gpu) == E4M3
    with pytest.raises(ArgumentValueError, match="batch_invariant is True"):
        SentenceEncoder("minilm", device="cpu", dtype="fp8", backend="reference", batch_invariant=True)
