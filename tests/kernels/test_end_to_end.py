"""The default model, every op of it by the CUDA kernels, against plain PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sentcore
from kernels.device import chosen
from sentcore import encode_options, placement
from sentcore.layers import all_layers, attention, feed_forward
from sentcore.outputs import calibration_ranges, normalize

SENTENCES = [
    "How do I return an item?",
    "我爱北京天安门。",
    "Refunds are paid within five working days.",
    "A",
    "图书馆早上九点开门。",
    "The quick brown fox jumps over the lazy dog.",
    "Where can I find the opening hours of the library?",
    "Naïve café, déjà vu!",
]
# dtype -> least cosine to plain float32
COSINES = {"float32": 0.999999, "bfloat16": 0.9999, "float16": 0.9999, "fp8": 0.99}


@pytest.fixture(scope="module")
def expected():
    return sentcore.SentenceEncoder("minilm", device="cpu", backend="reference").encode(
        SENTENCES, convert_to_tensor=True
    )


# The ops of every model, and those of its linear layers: how often each of a layer's is called.
COMMON = {"embedding_layer_norm", "varlen_attention", "add_layer_norm", "segment_pooling"}
LINEAR = {"qkv_projection": 1, "linear": 3}
LINEAR_OF = {"float32": LINEAR, "bfloat16": LINEAR, "fp8": {"fp8_linear": 4}}


@pytest.mark.filterwarnings("ignore:.*other operators may also be overridden")
@pytest.mark.parametrize(
    ("dtype", "kernels"),
    [("float32", "portable"), ("bfloat16", "portable"), ("bfloat16", "sm_90a"), ("fp8", "portable"), ("fp8", "sm_90a")],
)
def test_minilm(ops, expected, dtype, kernels, monkeypatch):
    if dtype == "fp8" and ops.device != "cpu" and torch.cuda.get_device_capability(ops.device) < (8, 9):
        pytest.skip("this GPU has no 8-bit floating-point products")
    with chosen(ops, kernels):
        found = encoded(ops, dtype, monkeypatch)
    cosines = torch.nn.functional.cosine_similarity(found.cpu().float(), expected, dim=1)
    assert cosines.min() >= COSINES[dtype]


@pytest.mark.filterwarnings("ignore:.*other operators may also be overridden")
@pytest.mark.parametrize(("dtype", "kernels"), [("float32", "portable"), ("bfloat16", "sm_90a"), ("fp8", "sm_90a")])
def test_a_sentence_has_the_same_bits_alone(ops, dtype, kernels, monkeypatch):
    if dtype == "fp8" and ops.device != "cpu" and torch.cuda.get_device_capability(ops.device) < (8, 9):
        pytest.skip("this GPU has no 8-bit floating-point products")
    with chosen(ops, kernels):
        together = encoded(ops, dtype, monkeypatch, SENTENCES[:3])
        assert torch.equal(encoded(ops, dtype, monkeypatch, SENTENCES[:3], batch_tokens=1), together)


def encoded(ops, dtype, monkeypatch, sentences=SENTENCES, batch_tokens=None):
    """The features of sentences by `ops`, in one batch, or with batch_tokens=1 each alone."""
    batches = 1 if batch_tokens is None else len(sentences)
    if ops.device == "cpu":
        # One model of the user's: nothing but the ops below its layers is another.
        for layers in (all_layers, attention, feed_forward):  # not through the CPU's packed weights
            monkeypatch.setattr(layers, "usable", lambda *_: False)
        monkeypatch.setattr(placement, "_check_fp8", lambda _: None)  # which a CPU is refused by
        used = COMMON | set(LINEAR_OF[dtype])
        calls = []
        with torch.library._scoped_library("sentcore", "IMPL") as library:
            for name in used:

                def run(*arguments, name=name):
                    calls.append(name)
                    return getattr(ops, name)(*arguments)

                library.impl(name, run, "CPU", allow_override=True)
            model = sentcore.SentenceEncoder("minilm", device="cpu", dtype=dtype)
            found = model.encode(sentences, convert_to_tensor=True, batch_tokens=batch_tokens)
        assert used == set(calls)
        assert {name: calls.count(name) for name in LINEAR_OF[dtype]} == {
            name: 6 * batches * count for name, count in LINEAR_OF[dtype].items()
        }
        return found
    model = sentcore.SentenceEncoder("minilm", device=ops.device, dtype=dtype)
    return model.encode(sentences, convert_to_tensor=True, batch_tokens=batch_tokens)


@pytest.mark.filterwarnings("ignore:.*other operators may also be overridden")
def test_rows_quantized_on_the_device_are_those_of_float32(ops, monkeypatch):
    """Bit for bit, by one launch and stage by stage."""
    device = ops.device
    model = sentcore.SentenceEncoder("minilm", device=device)

    def compare():
        for cut, unit in ((None, False), (100, True), (101, False)):
            given = {"truncate_dim": cut, "normalize_embeddings": unit}
            with monkeypatch.context() as patched:
                patched.setattr(encode_options.EncodeOptions, "row_form", lambda self, device: None)
                rows = model.encode(SENTENCES, **given)
                ranges = calibration_ranges(rows[:5])
                expected = {
                    precision: model.encode(SENTENCES, precision=precision, **given, ranges=ends)
                    for precision, ends in (("int8", ranges), ("uint8", ranges), ("binary", None), ("ubinary", None))
                }
            for precision, want in expected.items():
                ends = ranges if precision in ("int8", "uint8") else None
                found = model.encode(SENTENCES, precision=precision, **given, ranges=ends)
                assert found.dtype == want.dtype
                np.testing.assert_array_equal(found, want)
            if device != "cpu":
                np.testing.assert_array_equal(model.encode(SENTENCES, **given), rows)

    if device != "cpu":
        compare()
        return
    calls = []

    def run(name):
        return lambda *arguments: calls.append(name) or getattr(ops, name)(*arguments)

    def unit_rows(x):
        each = torch.arange(len(x) + 1, dtype=torch.int32)
        return ops.segment_pooling_quantized(x, each, "cls", 0, False, x.shape[1], True, "float32", None)[0]

    for module in (normalize, encode_options):
        monkeypatch.setattr(module, "unit_rows", unit_rows)
    with torch.library._scoped_library("sentcore", "IMPL") as library:
        library.impl("segment_pooling", run("segment_pooling"), "CPU", allow_override=True)
        library.impl("segment_pooling_quantized", run("segment_pooling_quantized"), "CPU", allow_override=True)
        compare()
    assert calls.count("segment_pooling_quantized") == 3 * 4
