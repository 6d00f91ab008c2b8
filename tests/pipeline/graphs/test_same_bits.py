"""What stands in a batch beside a sentence, and fills it up for a graph, changes none of its bits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from families import FAMILIES, make_model, randomize, save
from folders import make_bert_folder
from sentcore import EncoderConfig, PackedBatch, SentenceEncoder, build_info
from sentcore.model import SentenceModel
from sentcore.outputs import NormalizeSpec, PoolingSpec
from sentcore.pipeline.graphs import EagerCapture, GraphRunner

COMPILED = build_info()["extension"]["cpu"]
BACKENDS = [
    pytest.param("native", marks=pytest.mark.skipif(not COMPILED, reason="needs the compiled kernels")),
    "reference",
]
POOLINGS = ["cls", "mean", "max", "lasttoken", "mean_sqrt_len_tokens", "weightedmean", "first_last_avg"]
BATCHES = [(5,), (3, 9, 1), (17, 16, 2, 2, 1)]


def of_lengths(lengths, vocabulary, longest):
    generator = torch.Generator().manual_seed(sum(lengths))
    rows = [torch.randint(5, vocabulary, (min(n, longest),), generator=generator) for n in lengths]
    return PackedBatch.from_sequences(rows)


@pytest.fixture(autouse=True)
def rows_by_themselves(monkeypatch):
    """Row by row a change of bits is a graph's fault alone.

    torch's own products, where these compute, choose their order of addition by size; its GELU and SiLU compute the ends of
    what a thread is given in another way than the rest.
    """

    def linear(x, weight, bias=None):
        out = (x.unsqueeze(1) * weight).sum(dim=-1)
        return out if bias is None else out + bias

    monkeypatch.setattr(F, "linear", linear)
    for name in ("gelu", "silu"):
        whole = getattr(F, name)
        monkeypatch.setattr(F, name, lambda x, whole=whole, **kw: torch.cat([whole(row, **kw) for row in x.split(1)]))


def assert_same_bits(model, batches, **options):
    graphs = GraphRunner(EagerCapture, seen_before=0)
    with torch.inference_mode():
        for batch in batches * 2:
            wanted = model(batch).sentence_embedding if options.get("every_row") else model.sentence_embedding(batch)
            found = graphs(model, batch, **options)
            assert found.shape == wanted.shape and found.dtype == wanted.dtype
            assert torch.equal(found, wanted), (found - wanted).abs().max()
    assert graphs.counts["captured"] == len(graphs) > 1
    assert graphs.counts["replayed"] >= len(batches)
    assert graphs.counts["eager"] == 0


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(family):
        if family not in made:
            made[family] = save(make_model(family), tmp_path_factory.mktemp(family), tokenizer=True)
        return made[family]

    return folder


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_by_mean_and_by_first_token(family, backend, folders):
    for pooling in (["mean", "cls"], "cls"):  # the second one computes no other rows in the last layer
        encoder = SentenceEncoder(folders(family), device="cpu", backend=backend, pooling=pooling)
        config = encoder.model.encoder.config
        batches = [of_lengths(lengths, config.vocab_size, config.max_length) for lengths in BATCHES]
        assert_same_bits(encoder.model, batches)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling(pooling, dtype, backend, tmp_path):
    folder = make_bert_folder(tmp_path, normalize=True)
    encoder = SentenceEncoder(folder, device="cpu", dtype=dtype, backend=backend, pooling=pooling)
    batches = [of_lengths(lengths, 60, 40) for lengths in BATCHES]
    assert_same_bits(encoder.model, batches)
    with_empty = [PackedBatch.from_sequences([[2, 5, 3], [], [2, 3], []]), PackedBatch.from_sequences([[], [4] * 30])]
    assert_same_bits(encoder.model, with_empty, every_row=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_alibi_in_windows(backend):
    config = EncoderConfig(
        vocab_size=60, hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=64,
        position_embedding_type="alibi", layer_types=("full", "sliding", "sliding"), sliding_window=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model = SentenceModel(config, [PoolingSpec(("mean", "cls")), NormalizeSpec()], backend).eval()
    randomize(model)
    assert_same_bits(model, [of_lengths(lengths, 60, 40) for lengths in BATCHES])


@pytest.mark.skipif(not COMPILED, reason="needs the compiled kernels")
def test_int8(tmp_path):
    encoder = SentenceEncoder(make_bert_folder(tmp_path, hidden_size=64), device="cpu", dtype="int8")
    assert_same_bits(encoder.model, [of_lengths(lengths, 60, 40) for lengths in BATCHES])
