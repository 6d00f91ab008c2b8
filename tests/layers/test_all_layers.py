"""All layers in one call: the same as one by one, never stale, and out of the way where something stands between."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from compare import assert_as_accurate
from sentcore import Encoder, EncoderConfig, PackedBatch
from sentcore.layers.all_layers import AllLayers
from sentcore.ops.inference_linear import engine


@pytest.fixture(autouse=True)
def _without_gradients():
    if engine(torch.float32) != "kernels":
        pytest.skip("the compiled kernels are not here")
    with torch.no_grad():
        yield


def make(dtype=torch.float32, **options) -> Encoder:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 80, "num_hidden_layers": 3}
    encoder = Encoder(EncoderConfig(vocab_size=50, max_position_embeddings=64, **sizes | options)).eval()
    for parameter in encoder.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder.to(dtype)


def batch(lengths=(3, 1, 17, 40, 2)) -> PackedBatch:
    drawn = torch.Generator().manual_seed(1)
    return PackedBatch.from_sequences([torch.randint(0, 50, (n,), generator=drawn).tolist() for n in lengths])


def one_by_one(encoder: Encoder, given: PackedBatch) -> torch.Tensor:
    x = encoder.embeddings(given)
    for layer in encoder.layers:
        x = layer(x, given)
    return x


def at_once(encoder: Encoder, given: PackedBatch) -> torch.Tensor | None:
    return encoder._all_layers(encoder, encoder.embeddings(given), given)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("lengths", [(3, 1, 17, 40, 2), (1,), (), (0, 2, 0)], ids=str)
def test_the_same_bits_as_one_by_one(kind, hidden_act, lengths):
    encoder = make(hidden_act=hidden_act)
    encoder = encoder.to_int8() if kind == "int8" else encoder.to(getattr(torch, kind))
    given = batch(lengths)
    found = at_once(encoder, given)
    assert found is not None
    assert torch.equal(found, one_by_one(encoder, given))
    assert torch.equal(encoder(given), found)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "lengths",
    [
        [1 + 7 * i % 40 for i in range(40)],  # each thread takes several parts, of several sentences
        [0, 0, *[64] * 12, 0, 9, 0],
        [1] * 600,
        [64] * 3,  # too few for parts that threads would end together
        [0] * 50 + [3],
    ],
    ids=["ragged", "empty ones", "single tokens", "unbalanced", "nearly all empty"],
)
def test_the_same_bits_whatever_the_threads_share_out(kind, count, lengths, threads):
    encoder = make()
    encoder = encoder.to_int8() if kind == "int8" else encoder.to(getattr(torch, kind))
    given = batch(lengths)
    threads(1)
    expected = one_by_one(encoder, given)
    threads(count)
    for _ in range(5):
        assert torch.equal(at_once(encoder, given), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_accurate_as_plain_pytorch(dtype):
    encoder, given = make(), batch()
    results = []
    for kind in (dtype, torch.float64):
        plain = Encoder(encoder.config, backend="reference").eval()
        plain.load_state_dict(copy.deepcopy(encoder).to(dtype).state_dict())
        results.append(plain.to(kind)(given))
    assert_as_accurate(encoder.to(dtype)(given), *results)


def test_opcheck_and_the_definition():
    encoder, given = make(num_hidden_layers=2), batch()
    x = encoder.embeddings(given)
    at_once(encoder, given)
    gathered = encoder._all_layers._gathered
    args = (x, given.cu_seqlens, given.max_seqlen, 3, 80, gathered.weights, "gelu", gathered.eps)
    torch.library.opcheck(torch.ops.sentcore.encoder_layers.default, args)
    from sentcore.ops.encoder_layers.reference import encoder_layers

    plain = encoder_layers(*args[:3], gathered.weights, num_heads=3, intermediate_size=80, activation="gelu", eps=1e-12)
    torch.testing.assert_close(torch.ops.sentcore.encoder_layers.default(*args), plain, rtol=1e-4, atol=1e-5)


CHANGES = {
    "in place": lambda e: e.layers[1].feed_forward.up.weight.mul_(2),
    "norm": lambda e: e.layers[2].attention.layer_norm.bias.add_(1),
    "data": lambda e: setattr(e.layers[0].attention.key.bias, "data", torch.ones(48)),
    "module": lambda e: setattr(e.layers[0].attention, "output", nn.Linear(48, 48)),
    "no bias": lambda e: e.layers[0].attention.output.register_parameter("bias", None),
    "layer less": lambda e: e.layers.__delitem__(2),
    "dtype": lambda e: e.to(torch.bfloat16),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed(name):
    encoder, given = make(), batch()
    before = encoder(given)
    CHANGES[name](encoder)
    after = encoder(given)
    assert not torch.equal(before, after)
    assert torch.equal(after, one_by_one(encoder, given))


def test_what_stands_between_is_respected():
    encoder, given = make(), batch()
    expected = encoder(given)
    seen = []
    handle = encoder.layers[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert at_once(encoder, given) is None
    assert torch.equal(encoder(given), expected) and len(seen) == 1
    handle.remove()
    assert at_once(encoder, given) is not None

    class Adapted(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    encoder.layers[0].attention.value.__class__ = Adapted
    encoder._all_layers = AllLayers()
    assert at_once(encoder, given) is None


def test_training_gradients_and_the_reference_go_one_by_one():
    encoder, given = make(), batch()
    assert at_once(encoder.train(), given) is None
    assert at_once(encoder.eval(), given) is not None
    with torch.enable_grad():
        assert at_once(encoder, given) is None
    plain = Encoder(encoder.config, backend="reference").eval()
    assert at_once(plain, given) is None


def test_copies_and_pickles_gather_anew():
    encoder, given = make(), batch()
    expected = encoder(given)
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(twin(given), expected)
        twin.layers[0].attention.query.weight.mul_(3)
        assert not torch.equal(twin(given), expected)
    assert torch.equal(encoder(given), expected)


def test_wrong_arguments_are_named():
    encoder, given = make(num_hidden_layers=1), batch()
    x = encoder.embeddings(given)
    at_once(encoder, given)
    weights = encoder._all_layers._gathered.weights
    run = torch.ops.sentcore.encoder_layers.default
    with pytest.raises(RuntimeError, match="weights holds 15 tensors; accepted: 16 for each layer"):
        run(x, given.cu_seqlens, given.max_seqlen, 3, 80, weights[:15], "gelu", 1e-12)
    with pytest.raises(RuntimeError, match=r"up has shape .*; accepted: \[3, 48, 32\]"):
        run(x, given.cu_seqlens, given.max_seqlen, 3, 96, [*weights[:8], weights[0], *weights[9:]], "gelu", 1e-12)
    with pytest.raises(RuntimeError, match="activation is 'silu'"):
        run(x, given.cu_seqlens, given.max_seqlen, 3, 80, weights, "silu", 1e-12)
    with pytest.raises(RuntimeError, match="cu_seqlens does not run from 0 to the 63 tokens"):
        run(x, given.cu_seqlens[:-1], given.max_seqlen, 3, 80, weights, "gelu", 1e-12)
    with pytest.raises(RuntimeError, match="gives sentence 3 40 tokens; accepted: 0 to max_seqlen = 20"):
        run(x, given.cu_seqlens, 20, 3, 80, weights, "gelu", 1e-12)
