"""Every family against transformers' own class with random weights: hidden states of every layer, gradients, saved folders."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from compare import SAME_FEATURES_FLOAT32
from devices import real_gpu
from families import FAMILIES, make_model, ragged, save
from sentcore import Encoder, PackedBatch
from sentcore.checkpoint import load_checkpoint
from sentcore.checkpoint.families import family_of

LENGTHS = (1, 2, 17, 200, 64, 3, 512)
LARGEST = 1e-5  # of features around 1, float32, accumulated over the layers of either
GRADIENTS = 1e-4  # relative to the largest of each parameter


def ours_of(folder, backend, device):
    checkpoint = load_checkpoint(folder)
    encoder = Encoder(checkpoint.config, backend)
    encoder.load_state_dict(checkpoint.state_dict)
    return encoder.to(device).eval()


def packed(ids, mask, device):
    rows = [row[real.bool()] for row, real in zip(ids, mask, strict=True)]
    return PackedBatch.from_sequences(rows, device=device)


def difference(ours, theirs, mask):
    """Relative to the features' own size where they are larger than 1."""
    expected = theirs[mask.bool()]
    return float((ours.cpu() - expected).abs().max()) / max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("size", ["small", "wide"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_hidden_state_is_that_of_transformers(tmp_path, name, size, backend, device):
    model = make_model(name, size)
    encoder = ours_of(save(model, tmp_path), backend, device)
    ids, mask = ragged(model, LENGTHS)
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        found = encoder.hidden_states(packed(ids, mask, device))
        last = encoder(packed(ids, mask, device))
    theirs = [*expected.hidden_states[:-1], expected.last_hidden_state]
    assert len(found) == len(theirs)
    for layer, (a, b) in enumerate(zip(found, theirs, strict=True)):
        assert difference(a, b, mask) <= LARGEST, f"hidden state {layer}"
    assert difference(last, expected.last_hidden_state, mask) <= LARGEST


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_those_of_transformers(tmp_path, name, backend, device):
    model = make_model(name)
    encoder = ours_of(save(model, tmp_path), backend, device)
    ids, mask = ragged(model, (1, 9, 70, 30))
    weights = torch.randn(4, 70, model.config.hidden_size) * mask[..., None]
    (model(input_ids=ids, attention_mask=mask).last_hidden_state * weights).sum().backward()
    (encoder(packed(ids, mask, device)) * weights[mask.bool()].to(device)).sum().backward()
    checkpoint = load_checkpoint(tmp_path)
    names = family_of(checkpoint.hf_config, tmp_path).NAMES
    theirs, unknown = names.to_ours({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    assert not [key for key in unknown if "position" not in key]
    compared = 0
    for key, parameter in encoder.named_parameters():
        expected = theirs[key]
        # Softmax does not feel what all keys have in common: a key bias has no gradient but rounding's.
        scale = theirs[key.replace("key.bias", "query.bias")].abs().max()
        error = (parameter.grad.cpu() - expected).abs().max() / scale
        assert error <= GRADIENTS, key
        compared += 1
    assert compared == len(encoder.state_dict())


@pytest.mark.parametrize("dtype", [torch.bfloat16, *([torch.float16] if real_gpu() else [])], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_is_as_exact_as_plain_pytorch(tmp_path, name, dtype, device):
    """Beside the same model in float64: at most twice the error that plain PyTorch has in this dtype on a CPU."""
    if (device, dtype) == ("cpu", torch.float16):
        pytest.skip("float16 is for GPUs")
    model = make_model(name)
    folder = save(model, tmp_path)
    ids, mask = ragged(model, LENGTHS[:-1])
    with torch.inference_mode():
        exact = ours_of(folder, "reference", "cpu").double()(packed(ids, mask, "cpu"))
        plain = ours_of(folder, "reference", "cpu").to(dtype)(packed(ids, mask, "cpu"))
        found = ours_of(folder, "auto", device).to(dtype)(packed(ids, mask, device)).cpu()
    error, allowed = ((x.double() - exact).square().mean().sqrt() for x in (found, plain))
    assert found.dtype == dtype and 0 < error <= 2 * allowed


@pytest.mark.parametrize("name", FAMILIES)
def test_padded_input_on_either_side(tmp_path, name, device):
    model = make_model(name)
    encoder = ours_of(save(model, tmp_path), "auto", device)
    ids, mask = ragged(model, (5, 1, 8))
    with torch.inference_mode():
        out = encoder(ids.to(device), mask.to(device)).cpu()
        assert (
            difference(out[mask.bool()], model(input_ids=ids, attention_mask=mask).last_hidden_state, mask) <= LARGEST
        )
        flipped, real = ids.flip(1), mask.flip(1)
        theirs = model(input_ids=flipped, attention_mask=real).last_hidden_state
        assert difference(encoder(flipped.to(device), real.to(device)).cpu()[real.bool()], theirs, real) <= LARGEST


@pytest.mark.parametrize("name", FAMILIES)
def test_one_row_of_each_sentence(tmp_path, name, device):
    model = make_model(name)
    encoder = ours_of(save(model, tmp_path), "auto", device)
    batch = packed(*ragged(model, (5, 1, 80, 33)), device)
    for rows in (batch.cu_seqlens[:-1].long(), batch.cu_seqlens[1:].long() - 1):
        with torch.inference_mode():
            expected = encoder(batch)[rows]
            torch.testing.assert_close(
                encoder.encode_rows(batch, rows), expected, rtol=0, atol=2 * SAME_FEATURES_FLOAT32
            )


@pytest.mark.parametrize("name", FAMILIES)
def test_names_go_there_and_back(tmp_path, name):
    model = make_model(name)
    checkpoint = load_checkpoint(save(model, tmp_path / "theirs"))
    names = family_of(checkpoint.hf_config, tmp_path).NAMES
    written = names.to_hf(checkpoint.state_dict)
    back, unknown = names.to_ours(written)
    assert not unknown and set(back) == set(checkpoint.state_dict)
    assert all(torch.equal(back[key], value) for key, value in checkpoint.state_dict.items())
    (tmp_path / "ours").mkdir()
    save_file(
        {key: value.contiguous() for key, value in written.items()},
        tmp_path / "ours" / "model.safetensors",
        {"format": "pt"},
    )
    (tmp_path / "ours" / "config.json").write_text((tmp_path / "theirs" / "config.json").read_text())
    read = AutoModel.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    ids, mask = ragged(model, (7, 3))
    with torch.inference_mode():
        a, b = (m(input_ids=ids, attention_mask=mask).last_hidden_state for m in (model, read))
    assert torch.equal(a, b)
    assert load_file(tmp_path / "ours" / "model.safetensors")
