"""The default model, every op of it by the CUDA kernels, against plain PyTorch."""

from __future__ import annotations

import pytest
import torch

import sentcore
from kernels.device import chosen
from sentcore.layers import all_layers, attention, feed_forward

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
COSINES = {"float32": 0.999999, "bfloat16": 0.9999, "float16": 0.9999}


@pytest.fixture(scope="module")
def expected():
    return sentcore.SentenceEncoder("minilm", device="cpu", backend="reference").encode(
        SENTENCES, convert_to_tensor=True
    )


@pytest.mark.filterwarnings("ignore:.*other operators may also be overridden")
@pytest.mark.parametrize(
    ("dtype", "kernels"), [("float32", "portable"), ("bfloat16", "portable"), ("bfloat16", "sm_90a")]
)
def test_minilm(ops, expected, dtype, kernels, monkeypatch):
    with chosen(ops, kernels):
        found = encoded(ops, dtype, monkeypatch)
    cosines = torch.nn.functional.cosine_similarity(found.cpu().float(), expected, dim=1)
    assert cosines.min() >= COSINES[dtype]


def encoded(ops, dtype, monkeypatch):
    """The features of SENTENCES by `ops`."""
    if ops.device == "cpu":
        # One model of the user's: nothing but the ops below its layers is another.
        for layers in (all_layers, attention, feed_forward):  # not through the CPU's packed weights
            monkeypatch.setattr(layers, "usable", lambda *_: False)
        used = {
            "embedding_layer_norm",
            "qkv_projection",
            "varlen_attention",
            "linear",
            "add_layer_norm",
            "segment_pooling",
        }
        calls = []
        with torch.library._scoped_library("sentcore", "IMPL") as library:
            for name in used:

                def run(*arguments, name=name):
                    calls.append(name)
                    return getattr(ops, name)(*arguments)

                library.impl(name, run, "CPU", allow_override=True)
            model = sentcore.SentenceEncoder("minilm", device="cpu", dtype=dtype)
            found = model.encode(SENTENCES, convert_to_tensor=True)
        assert used == set(calls)
        assert calls.count("linear") == 3 * 6
        return found
    return sentcore.SentenceEncoder("minilm", device=ops.device, dtype=dtype).encode(SENTENCES, convert_to_tensor=True)
