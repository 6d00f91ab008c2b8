"""encode() with rows pooled, scaled, cut and quantized in one op, against the same stage by stage: equal to the bit."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from folders import make_bert_folder
from sentcore import SentenceEncoder
from sentcore.encode_options import EncodeOptions
from sentcore.outputs import RowForm, calibration_ranges

TEXTS = [
    "the cat sat on the dogs",
    "cat",
    "",
    "我爱北京天安门 the dog",
    *(f"{letter} dog " * 4 for letter in "abcdefgh"),
]
POOLINGS = {
    "mean": {"pooling_mode_mean_tokens": True},
    "cls": {"pooling_mode_cls_token": True},
    "max": {"pooling_mode_max_tokens": True},
    "lasttoken": {"pooling_mode_lasttoken": True},
    "weightedmean": {"pooling_mode_weightedmean_tokens": True},
    "without the prompt": {"pooling_mode_mean_tokens": True, "include_prompt": False},
}
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


def folder(path, mode="mean", **options):
    return make_bert_folder(path, pooling={"word_embedding_dimension": 32} | POOLINGS[mode], **options)


@pytest.fixture
def used(monkeypatch):
    """The precisions in which rows were made of token features in one op, in order."""
    calls, features = [], []
    tokens, of_features = RowForm.of_tokens, RowForm.of_features
    monkeypatch.setattr(RowForm, "of_features", lambda self, x: features.append(x) or of_features(self, x))

    def of_tokens(self, x, *args):
        if not any(x is other for other in features):
            calls.append(self.precision)
        return tokens(self, x, *args)

    monkeypatch.setattr(RowForm, "of_tokens", of_tokens)
    return calls


def on_a_gpu(monkeypatch):
    """Forms are chosen as on a GPU, though all is computed here."""
    choose = EncodeOptions.row_form

    def chosen(self, device):
        form = choose(self, torch.device("cuda"))
        return form and RowForm(form.truncate_dim, form.normalize, form.precision, form.ranges)

    monkeypatch.setattr(EncodeOptions, "row_form", chosen)
    move = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **kw: self if args[:1] == (torch.device("cuda"),) else move(self, *args, **kw))  # fmt: skip


@pytest.mark.parametrize(("mode", "backend"), [*((mode, "auto") for mode in POOLINGS), ("mean", "reference")])
@pytest.mark.parametrize("normalize", [False, True])
def test_every_precision_stage_by_stage(tmp_path, monkeypatch, used, mode, normalize, backend):
    model = SentenceEncoder(folder(tmp_path, mode, normalize=normalize), device="cpu", backend=backend)
    known = calibration_ranges(model.encode([f"the {a} {b}" for a in "abcdef" for b in ("cat", "dog sat", "on")]))
    calls = [
        {
            "precision": precision,
            "truncate_dim": cut,
            "normalize_embeddings": unit,
            "prompt": prompt,
            "batch_tokens": 40,
        }
        | ({"ranges": known[:, :cut]} if calibrated else {})
        for precision in PRECISIONS
        for cut, unit, prompt in ((None, False, None), (13, True, "dog "), (13, False, None), (None, True, "dog "))
        for calibrated in ((False, True) if precision in ("int8", "uint8") else (False,))
    ]
    with monkeypatch.context() as patched:
        patched.setattr(EncodeOptions, "row_form", lambda self, device: None)
        expected = [model.encode(TEXTS, **call) for call in calls]
    assert not used
    on_cpu = [model.encode(TEXTS, **call) for call in calls]
    assert set(used) == {"int8", "uint8", "binary", "ubinary"}
    on_a_gpu(monkeypatch)
    used.clear()
    forced = [model.encode(TEXTS, **call) for call in calls]
    assert set(used) == set(PRECISIONS)
    for call, *found in zip(calls, expected, on_cpu, forced, strict=True):
        for other in found[1:]:
            assert other.dtype == found[0].dtype
            np.testing.assert_array_equal(other, found[0], err_msg=str(call))


def test_without_an_empty_text_one_row_is_computed(tmp_path, used):
    model = SentenceEncoder(folder(tmp_path, "cls", normalize=True), device="cpu")
    found = model.encode(TEXTS[:2], precision="ubinary", convert_to_numpy=False)
    assert used and isinstance(found, list) and found[0].dtype == torch.uint8
    tensor = model.encode(TEXTS[:2], precision="ubinary", convert_to_tensor=True)
    assert torch.equal(tensor, torch.stack(found))
    assert np.array_equal(model.encode(TEXTS[0], precision="ubinary"), found[0].numpy())
    assert model.encode([], precision="ubinary").shape == (0, 4)


def test_what_one_op_does_not_pool_is_quantized_by_it(tmp_path, used, monkeypatch):
    def bits(model, **options):
        return model.encode(TEXTS, precision="ubinary", **options)

    dense = SentenceEncoder(folder(tmp_path / "dense", dense=(16, "torch.nn.modules.linear.Identity")), device="cpu")
    two = SentenceEncoder(folder(tmp_path / "two"), device="cpu", pooling=["mean", "max"])
    layers = SentenceEncoder(tmp_path / "two", device="cpu", pooling="first_last_avg")
    for model in (dense, two, layers):
        ranges = calibration_ranges(model.encode(TEXTS[:7], truncate_dim=11))
        given = {"truncate_dim": 11, "normalize_embeddings": True}
        with monkeypatch.context() as patched:
            patched.setattr(EncodeOptions, "row_form", lambda self, device: None)
            expected = [model.encode(TEXTS, precision="int8", ranges=ranges, **given), bits(model)]
        assert np.array_equal(model.encode(TEXTS, precision="int8", ranges=ranges, **given), expected[0])
        assert np.array_equal(bits(model), expected[1])
        assert np.array_equal(bits(model)[:2], model.encode(TEXTS[:2], precision="ubinary"))  # without the empty text
    plain = SentenceEncoder(folder(tmp_path / "plain", normalize=True), device="cpu")
    expected = plain.encode(TEXTS)
    assert np.array_equal(bits(plain, chunk="mean"), bits(plain, chunk="max"))
    assert bits(plain, output_value=["sentence_embedding", "token_embeddings"])["sentence_embedding"].dtype == np.uint8
    plain.encode(TEXTS, precision="int8")
    assert not used
    plain.model.outputs[1].register_forward_hook(lambda module, given, out: -out)
    assert np.array_equal(bits(plain), np.packbits(-expected > 0, axis=-1))
    assert not used
    plain.model.outputs[1] = nn.Identity()
    bits(plain)
    assert not used


@pytest.mark.parametrize("precision", ["int8", "ubinary"])
def test_rows_that_are_no_numbers_are_reported_and_tried_again(tmp_path, used, precision):
    model = SentenceEncoder(folder(tmp_path, normalize=True), device="cpu", dtype="bfloat16")
    given = {"precision": precision}
    if precision == "int8":
        given["ranges"] = np.stack((np.full(32, -0.3), np.full(32, 0.3))).astype(np.float32)

    def encode():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = model.encode(TEXTS, **given)
        return found, [str(warning.message) for warning in said if issubclass(warning.category, RuntimeWarning)]

    word = model.model.encoder.embeddings.word_embeddings
    broken = model.tokenizer(["cat"]).token_ids[1]
    armed = []

    def in_half(module, given, out):
        """NaN as of what overflows in half precision alone."""
        return (
            torch.where((given[0] == broken)[:, None], torch.nan, out) if armed and out.dtype == torch.bfloat16 else out
        )

    word.register_forward_hook(in_half)
    right, said = encode()
    assert used and not said
    armed.append(True)
    found, said = encode()
    assert len(said) == 1 and "2 of 12 features were NaN or infinite in bfloat16" in said[0]
    assert np.array_equal(found[2:], right[2:])
    # They are those of the model in float32 and not of NaN.
    assert np.array_equal(found[:2], SentenceEncoder.float(copy.deepcopy(model)).encode(TEXTS[:2], **given))
    with torch.no_grad():
        word.weight[broken] = torch.nan
    _, said = encode()
    assert len(said) == 1 and "2 of 12 features are NaN or infinite (sentences 0, 1)" in said[0]


def test_workers_give_the_same_bytes(tmp_path):
    model = SentenceEncoder(folder(tmp_path, normalize=True), device="cpu")
    ranges = calibration_ranges(model.encode(TEXTS))
    with model.start_workers(["cpu"]) as pool:
        for options in ({"precision": "binary"}, {"precision": "int8", "ranges": ranges}):
            assert np.array_equal(model.encode(TEXTS, devices=pool, **options), model.encode(TEXTS, **options))
