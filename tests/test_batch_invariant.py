"""batch_invariant=True: the same sentence, the same bits."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

import sentcore
from devices import real_gpu
from families import make_model, save
from heads import WORDS as HEAD_WORDS
from heads import make_bge, make_splade
from sentcore import Encoder, EncoderConfig, PackedBatch, _extension, placement
from sentcore.errors import ArgumentValueError, SentcoreError

WORDS = [
    "the",
    "storage",
    "engine",
    "of",
    "a",
    "database",
    "keeps",
    "pages",
    "图书馆",
    "早上",
    "九点",
    "开门",
    "退款",
    "in",
    "memory",
    "and",
    "writes",
    "them",
    "back",
]


def texts(count: int) -> list[str]:
    chosen = random.Random(0)
    return [" ".join(chosen.choices(WORDS, k=chosen.choice([1, 2, 3, 7, 20, 60, 200]))) for _ in range(count)]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=["float32", "bfloat16", "int8"])
def model(request):
    if _extension.extension() is None:
        pytest.skip(_extension.WHY_ABSENT)
    try:
        return sentcore.SentenceEncoder("minilm", device="cpu", dtype=request.param, batch_invariant=True)
    except ArgumentValueError as refused:
        pytest.skip(str(refused))


def test_a_sentence_has_the_same_bits_in_any_batch_order_and_number_of_threads(model, threads):
    sentences, shuffled = texts(60), random.Random(1)
    expected = model.encode(sentences)
    for trial, batch_tokens in enumerate((1, 50, 333, 2000, 50000)):
        threads(1 + trial % 2)
        order = shuffled.sample(range(len(sentences)), len(sentences))
        found = model.encode([sentences[i] for i in order], batch_tokens=batch_tokens)
        assert np.array_equal(found, expected[order])
    for i in range(0, len(sentences), 7):
        assert np.array_equal(model.encode(sentences[i]), expected[i])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", *(["float16", "fp8"] if real_gpu() else [])])
@pytest.mark.parametrize("gated", [False, True])
def test_a_sentence_has_the_same_bits_on_every_device(tmp_path, dtype, gated, device):
    """Random weights of two architectures, whose heads and widths fill no tile."""
    try:
        folder = save(make_model("modernbert" if gated else "bert", "wide"), tmp_path, tokenizer=True)
        model = sentcore.SentenceEncoder(folder, device=device, dtype=dtype, batch_invariant=True)
    except SentcoreError as refused:
        pytest.skip(str(refused))
    sentences, shuffled = texts(60), random.Random(1)
    expected = model.encode(sentences)
    assert np.isfinite(expected).all() and np.ptp(expected, axis=0).min() > 0
    for batch_tokens in (1, 50, 333, 2000, 50000):
        order = shuffled.sample(range(len(sentences)), len(sentences))
        assert np.array_equal(model.encode([sentences[i] for i in order], batch_tokens=batch_tokens), expected[order])


def bits(value):
    if isinstance(value, dict):
        return sorted((key, np.float32(weight).tobytes()) for key, weight in value.items())
    return (value.float().cpu().numpy() if isinstance(value, torch.Tensor) else value).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("make", [lambda folder: make_bge(folder, 333), lambda folder: make_splade(folder, "bert")])
def test_every_output_has_the_same_bits(tmp_path, make, dtype, device):
    try:
        model = sentcore.SentenceEncoder(make(tmp_path / "m"), device=device, dtype=dtype, batch_invariant=True)
    except SentcoreError as refused:
        pytest.skip(str(refused))
    names = ["sparse", "colbert", "token_embeddings"] if model.model.colbert is not None else ["sparse"]
    shuffled = random.Random(1)
    sentences = [" ".join(shuffled.choices(HEAD_WORDS, k=shuffled.choice([1, 2, 3, 5, 8, 13, 25]))) for _ in range(60)]
    expected = model.encode(sentences, output_value=names)
    for batch_tokens in (1, 40, 200):
        order = shuffled.sample(range(len(sentences)), len(sentences))
        found = model.encode([sentences[i] for i in order], output_value=names, batch_tokens=batch_tokens)
        for name in names:
            assert [bits(v) for v in found[name]] == [bits(expected[name][i]) for i in order], name


def test_where_it_does_not_hold_it_is_refused(monkeypatch):
    with pytest.raises(ArgumentValueError, match=r"accepted with compiled kernels, .* backend is 'reference'"):
        sentcore.SentenceEncoder("minilm", device="cpu", backend="reference", batch_invariant=True)
    if _extension.extension() is not None:
        with pytest.raises(ArgumentValueError, match="but the device is mps"):
            placement.check_batch_invariant(torch.device("mps"), torch.float32, "auto")
        monkeypatch.setattr(placement, "why_plain_on", lambda device: "sentcore holds no code for it")
        with pytest.raises(ArgumentValueError, match="but sentcore holds no code for it"):
            placement.check_batch_invariant(torch.device("cuda"), torch.float32, "auto")
        monkeypatch.setattr(placement, "why_plain_on", lambda device: None)
        placement.check_batch_invariant(torch.device("cuda"), torch.float32, "auto")
    monkeypatch.setattr(placement, "usable", lambda *_: False)
    if _extension.extension() is not None:
        with pytest.raises(ArgumentValueError, match=r"has no oneDNN for torch\.float32"):
            sentcore.SentenceEncoder("minilm", device="cpu", batch_invariant=True)
    monkeypatch.setattr(placement, "extension", lambda: None)
    monkeypatch.setattr(placement, "WHY_ABSENT", "the extension is not built")
    with pytest.raises(ArgumentValueError, match="but the extension is not built"):
        sentcore.SentenceEncoder("minilm", device="cpu", batch_invariant=True)


GATED = {
    "geglu, norm first": {"hidden_act": "gelu", "norm_first": True, "up_bias": False, "norm_bias": False},
    "swiglu": {"hidden_act": "silu"},
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("form", GATED)
def test_gated_feed_forwards_of_odd_sizes_have_the_same_bits(form, dtype, threads):
    """Batches beyond the elements that torch hands to one thread, cut at other places by each."""
    computed = torch.float32 if dtype == "int8" else getattr(torch, dtype)
    try:
        placement.check_batch_invariant(torch.device("cpu"), computed, "auto")
    except ArgumentValueError as refused:
        pytest.skip(str(refused))
    torch.manual_seed(0)
    config = EncoderConfig(
        vocab_size=60, hidden_size=32, num_attention_heads=2, num_hidden_layers=2, intermediate_size=33, gated=True,
        position_embedding_type="rotary", **GATED[form],
    )  # fmt: skip
    encoder = Encoder(config).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if dtype == "int8":
        encoder.to_int8()
    encoder.to(computed)
    chosen = random.Random(0)
    sentences = [[chosen.randrange(5, 60) for _ in range(chosen.choice([1, 2, 3, 7, 20, 61, 200]))] for _ in range(70)]
    with torch.inference_mode():
        threads(1)
        expected = [encoder(PackedBatch.from_sequences([sentence])) for sentence in sentences]
        for trial, count in enumerate((3, 41, 53, 66, 70, 70)):
            threads(1 + trial % 2)
            order = chosen.sample(range(len(sentences)), count)
            found = encoder(PackedBatch.from_sequences([sentences[i] for i in order]))
            assert torch.equal(found, torch.cat([expected[i] for i in order]))
