"""Linear layers with packed weights: the same values, never old ones, the same bits in any batch."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compare import assert_as_accurate
from sentcore import Encoder, EncoderConfig, PackedBatch
from sentcore.ops import inference_linear
from sentcore.ops.inference_linear import InferenceLinear, usable

ACTIVATIONS = {None: lambda x: x, "relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}


@pytest.fixture(autouse=True, params=["kernels", "onednn"])
def _without_gradients(request, monkeypatch):
    if request.param == "onednn":
        monkeypatch.setattr(inference_linear, "extension", lambda: None)
    inference_linear.engine.cache_clear()
    if inference_linear.engine(torch.float32) != request.param:
        pytest.skip(f"{request.param} is not here")
    with torch.no_grad():
        if not usable(torch.zeros(1, 1), "auto"):
            pytest.skip("neither compiled kernels nor oneDNN are here")
        yield
    inference_linear.engine.cache_clear()


def linears(*sizes: tuple[int, int], dtype=torch.float32, bias=True) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(k, n, bias=bias).to(dtype) for k, n in sizes]


def plain(x, modules, activation=None):
    function = ACTIVATIONS[activation]
    return torch.cat([function(F.linear(x, m.weight, m.bias)) for m in modules], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [0, 1, 2, 17, 65])
@pytest.mark.parametrize("bias", [True, False])
def test_as_accurate_as_torch(dtype, activation, rows, bias):
    x = torch.randn(rows, 33).to(dtype)
    if not usable(x, "auto"):
        pytest.skip(f"no engine for {dtype} on this CPU")
    modules = linears((33, 40), (33, 7), (33, 40), dtype=dtype, bias=bias)
    exact = plain(x.double(), [copy.deepcopy(m).double() for m in modules], activation)
    ours = InferenceLinear()(x, modules, activation)
    assert ours.dtype == dtype
    assert_as_accurate(ours, plain(x, modules, activation), exact, f"{activation} {rows}")


def test_one_of_several_without_a_bias():
    modules = [*linears((8, 4)), *linears((8, 4), bias=False)]
    x = torch.randn(3, 8)
    torch.testing.assert_close(InferenceLinear()(x, modules), plain(x, modules))


def test_strided_rows():
    modules, x = linears((16, 24)), torch.randn(6, 32)[:, ::2]
    torch.testing.assert_close(InferenceLinear()(x, modules), plain(x, modules))


def fused_step(module: nn.Module) -> None:
    """Writes to the weights without torch's version counter noticing."""
    for parameter in module.parameters():
        parameter.requires_grad_().grad = torch.ones_like(parameter)
    versions = [parameter._version for parameter in module.parameters()]
    torch.optim.AdamW(module.parameters(), lr=0.1, fused=True).step()
    assert versions == [parameter._version for parameter in module.parameters()]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.weight.mul_(2),
        lambda m: m.bias.add_(1),
        lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
        lambda m: setattr(m, "weight", nn.Parameter(torch.randn(4, 8))),
        lambda m: setattr(m.weight, "data", torch.randn(4, 8)),
        lambda m: m.register_parameter("bias", None),
        lambda m: fused_step(m),
    ],
)
def test_a_changed_weight_is_packed_anew(change):
    modules, x, packed = linears((8, 4)), torch.randn(5, 8), InferenceLinear()
    before = packed(x, modules)
    change(modules[0])
    after = packed(x, modules)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, plain(x, modules))


def test_a_row_has_the_same_bits_in_any_batch_on_any_number_of_threads():
    threads = torch.get_num_threads()
    try:
        for dtype in (torch.float32, torch.bfloat16):
            for k, n in ((384, 1152), (384, 1536), (1536, 384), (40, 8)):
                x, modules, packed = torch.randn(300, k).to(dtype), linears((k, n), dtype=dtype), InferenceLinear()
                if not usable(x, "auto"):
                    continue
                whole = packed(x, modules, "gelu")
                for count in (1, 2):
                    torch.set_num_threads(count)
                    for rows in (*range(1, 20), 63, 64, 65, 129, 255):
                        assert torch.equal(packed(x[:rows], modules, "gelu"), whole[:rows]), (dtype, k, n, rows)
                    assert torch.equal(packed(x[100:107], modules, "gelu"), whole[100:107])
    finally:
        torch.set_num_threads(threads)


def test_an_encoder_keeps_its_state_dict_and_can_be_copied_and_pickled():
    config = EncoderConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    encoder = Encoder(config).eval()
    names = set(encoder.state_dict())
    batch = PackedBatch.from_sequences([[1, 2, 3], [4]])
    expected = encoder(batch)
    assert set(encoder.state_dict()) == names
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(twin(batch), expected)
        twin.layers[0].attention.query.weight.mul_(3)
        assert not torch.equal(twin(batch), expected)
    assert torch.equal(encoder(batch), expected)
    reference = Encoder(config, backend="reference").eval()
    reference.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(reference(batch), expected, rtol=1e-5, atol=1e-6)


def test_with_gradients_the_plain_way_is_taken():
    with torch.enable_grad():
        assert not usable(torch.zeros(1, 1), "auto")
    assert not usable(torch.zeros(1, 1), "reference")
    assert not usable(torch.zeros(1, 1, dtype=torch.float64), "auto")


@pytest.mark.parametrize(
    "tiles, isa, lowered, ours",
    [
        (True, "amx", "", True),
        (True, "avx512_bf16", "", False),  # compiled without them, or refused by the system
        (True, "avx512_bf16", "avx512_bf16", True),
        (False, "avx512_bf16", "", True),
    ],
)
def test_bfloat16_goes_to_onednn_where_the_kernels_miss_the_cpus_tiles(monkeypatch, tiles, isa, lowered, ours):
    kernels = SimpleNamespace(build_info=lambda: {"cpu_isa": isa})
    monkeypatch.setattr(inference_linear, "extension", lambda: kernels)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles, raising=False)
    monkeypatch.setenv("SENTCORE_CPU_ISA", lowered)
    inference_linear.engine.cache_clear()
    assert (inference_linear.engine(torch.bfloat16) == "kernels") == ours
    assert inference_linear.engine(torch.float32) == "kernels"
