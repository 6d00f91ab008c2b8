"""The encoder against transformers' own BERT: packed, padded on either side, on every activation, and in training."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch
from transformers import AutoModel

from compare import SAME_FEATURES_FLOAT32
from folders import make_bert_folder
from sentcore import Encoder, EncoderConfig, PackedBatch
from sentcore.checkpoint import load_checkpoint
from sentcore.errors import ArgumentTypeError, ArgumentValueError, BackendError
from sentcore.layers.feed_forward import FeedForward

BACKENDS = ["auto", "reference"]


def pair(folder, backend="auto"):
    checkpoint = load_checkpoint(folder)
    encoder = Encoder(checkpoint.config, backend)
    encoder.load_state_dict(checkpoint.state_dict)
    return encoder.eval(), AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()


def padded(left=False):
    ids = torch.randint(5, 40, (4, 9))
    mask = torch.ones_like(ids)
    for row, length in enumerate((9, 1, 4, 6)):
        mask[row, length:] = 0
    return (ids, mask.flip(1)) if left else (ids, mask)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
@pytest.mark.parametrize("left", [False, True])
def test_padded_batches_equal_transformers(tmp_path, backend, act, left):
    ours, theirs = pair(make_bert_folder(tmp_path, generation=None, hidden_act=act), backend)
    ids, mask = padded(left)
    types = torch.randint(0, 2, ids.shape)
    with torch.no_grad():
        out = ours(ids, mask, types)
        expected = theirs(ids, mask, types).last_hidden_state
    assert out.shape == expected.shape
    assert (out - expected)[mask.bool()].abs().max() < 10 * SAME_FEATURES_FLOAT32  # features of size 10 here
    assert (out[~mask.bool()] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_equals_padded(tmp_path, backend):
    encoder, _ = pair(make_bert_folder(tmp_path, generation=None), backend)
    ids, mask = padded()
    lengths = mask.sum(1)
    batch = PackedBatch(
        token_ids=ids[mask.bool()],
        position_ids=torch.cat([torch.arange(n) for n in lengths]),
        token_type_ids=torch.zeros(int(lengths.sum()), dtype=torch.int64),
        cu_seqlens=torch.cat((torch.zeros(1), lengths.cumsum(0))).int(),
        max_seqlen=9,
    )
    with torch.no_grad():
        torch.testing.assert_close(encoder(batch), encoder(ids, mask)[mask.bool()])
        assert torch.equal(encoder(ids), encoder(ids, torch.ones_like(ids)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_equal_transformers(tmp_path, backend):
    ours, theirs = pair(make_bert_folder(tmp_path, generation=None), backend)
    ids, mask = padded()
    weights = torch.randn(4, 9, 32) * mask[..., None]
    (ours(ids, mask) * weights).sum().backward()
    (theirs(ids, mask).last_hidden_state * weights).sum().backward()
    for mine, theirs_name in (
        ("embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
        ("embeddings.layer_norm.bias", "embeddings.LayerNorm.bias"),
        ("layers.0.attention.query.weight", "encoder.layer.0.attention.self.query.weight"),
        ("layers.1.attention.value.bias", "encoder.layer.1.attention.self.value.bias"),
        ("layers.0.feed_forward.up.weight", "encoder.layer.0.intermediate.dense.weight"),
        ("layers.1.feed_forward.layer_norm.weight", "encoder.layer.1.output.LayerNorm.weight"),
    ):
        torch.testing.assert_close(
            ours.get_parameter(mine).grad, theirs.get_parameter(theirs_name).grad, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_drops_out_and_replays_with_the_seed(backend):
    config = EncoderConfig(60, 32, 2, 4, 48, max_position_embeddings=16, hidden_dropout_prob=0.2)
    encoder = Encoder(config, backend).train()
    ids, mask = padded()
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(encoder(ids, mask))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])
    outs[0].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())
    encoder.eval()
    assert torch.equal(encoder(ids, mask), encoder(ids, mask))


def test_learns():
    config = EncoderConfig(60, 32, 1, 4, 48, max_position_embeddings=16, hidden_dropout_prob=0.0)
    encoder = Encoder(config)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    ids, mask = padded()
    target = torch.randn(4, 32)
    losses = []
    for _ in range(40):
        loss = (encoder(ids, mask)[:, 0] - target).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_copies_and_pickles():
    encoder = Encoder(EncoderConfig(60, 32, 1, 4, 48, max_position_embeddings=16)).eval()
    ids, mask = padded()
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(other(ids, mask), encoder(ids, mask))


def test_no_tokens_and_no_token_types():
    config = EncoderConfig(60, 32, 1, 4, 48, max_position_embeddings=16, type_vocab_size=0)
    encoder = Encoder(config).eval()
    assert encoder(torch.empty(0, 5, dtype=torch.int64)).shape == (0, 5, 32)
    ids = torch.ones(2, 3, dtype=torch.int64)
    assert (encoder(ids, torch.zeros_like(ids)) == 0).all()


def test_wrong_arguments_are_named():
    encoder = Encoder(EncoderConfig(60, 32, 1, 4, 48, max_position_embeddings=16))
    ids, mask = padded()
    with pytest.raises(ArgumentValueError, match=r"attention_mask has shape \[4, 8\]"):
        encoder(ids, mask[:, :8])
    with pytest.raises(ArgumentTypeError, match=r"input_ids is of torch.float32"):
        encoder(ids.float())
    with pytest.raises(ArgumentValueError, match=r"input_ids has shape \[9\]"):
        encoder(ids[0])
    with pytest.raises(ArgumentValueError, match="token_ids holds 77; accepted: 0 to 59"):
        encoder(torch.full((1, 2), 77))
    with pytest.raises(ArgumentValueError, match="sentence of 17 tokens"):
        encoder(torch.ones(1, 17, dtype=torch.int64))
    with pytest.raises(ArgumentValueError, match="backend is 'fast'"):
        Encoder(encoder.config, backend="fast")


def test_native_without_a_build_is_refused(monkeypatch):
    monkeypatch.setattr("sentcore._extension._extension", None)
    monkeypatch.setattr("sentcore._extension.WHY_ABSENT", "the extension is not built; build it")
    with pytest.raises(BackendError, match="backend is 'native', but the extension is not built"):
        Encoder(EncoderConfig(60, 32, 1, 4, 48), backend="native")
    Encoder(EncoderConfig(60, 32, 1, 4, 48), backend="auto")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"hidden_act": "swish"}, "hidden_act is 'swish'"),
        ({"position_embedding_type": "sinusoidal"}, "position_embedding_type is 'sinusoidal'"),
        ({"hidden_size": 33}, "hidden_size 33 is not a multiple of num_attention_heads"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"vocab_size": "many"}, "vocab_size is 'many' of type str"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5"),
        ({"layer_norm_eps": 0}, "layer_norm_eps is 0"),
    ],
)
def test_configs_no_encoder_can_be_built_from(values, says):
    with pytest.raises((ArgumentValueError, ArgumentTypeError), match=says):
        EncoderConfig(**values)


@pytest.mark.parametrize("activation", ["gelu", "geglu"])
def test_training_on_a_cpu_keeps_one_tensor_of_a_feed_forward_network(activation):
    gated = activation == "geglu"
    config = EncoderConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    network = FeedForward(dataclasses.replace(config, gated=gated))
    x = torch.randn(5, 8, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        out = network(x)
    width = 48 if gated else 24
    assert [shape for shape in kept if shape[0] == 5 and shape != (5, 8)] == [(5, width)]
    with torch.no_grad():
        assert (out - network(x)).abs().max() < SAME_FEATURES_FLOAT32
