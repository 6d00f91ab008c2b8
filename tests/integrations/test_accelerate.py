"""accelerate: the outputs and gradients of transformers' own models, copies, refusals, and back again."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
import transformers as hf
from torch import nn

import sentcore
from accelerated import BACKENDS, LARGEST, classifier, pair, ragged, same, to
from families import FAMILIES, SMALL, make_model, save_tokenizer
from sentcore.errors import ArgumentTypeError, ArgumentValueError, CheckpointError


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


# ---- the same outputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_hidden_states_and_pooled_outputs(name, backend, device):
    ours, theirs = pair(name, backend, device)
    batch = to(device, ragged(pad=theirs.config.pad_token_id or 0))
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        found = ours(**batch, output_hidden_states=True)
        expected = theirs(**batch, output_hidden_states=True)
        last = ours(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    for mine, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        same(mine[real], other[real])
        assert not mine[~real].any()
    same(last[real], expected[0][real])
    assert (found.get("pooler_output") is None) == (expected.get("pooler_output") is None)
    if found.get("pooler_output") is not None:
        same(found.pooler_output, expected.pooler_output)
    assert type(ours(**batch, return_dict=False)) is tuple


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_of_every_parameter(name, device):
    ours, theirs = pair(name, device=device)
    batch = to(device, ragged(pad=theirs.config.pad_token_id or 0))
    real = batch["attention_mask"][..., None]
    weights = torch.randn(*batch["input_ids"].shape, theirs.config.hidden_size).to(device) * real
    for model in (ours, theirs):
        (model(**batch)[0] * weights).sum().backward()
    scale = max(p.grad.norm() for p in theirs.parameters() if p.grad is not None)
    for (key, mine), (other_key, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert key == other_key
        if other.grad is None:
            assert mine.grad is None or not mine.grad.any(), key
        else:
            # A key's bias has no gradient but rounding: what is small beside the others is measured beside them.
            assert (mine.grad - other.grad).norm() <= 1e-4 * other.grad.norm() + 1e-6 * scale, key


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert"])
def test_padding_on_the_left(name):
    ours, theirs = pair(name)
    batch = ragged(pad=theirs.config.pad_token_id, left=True)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        same(ours(**batch)[0][real], theirs(**batch)[0][real])


def test_positions_types_and_no_mask():
    ours, theirs = pair("bert")
    ids = torch.randint(5, 90, (3, 9))
    types = torch.randint(0, 2, ids.shape)
    for given in (
        {},
        {"token_type_ids": types},
        {"token_type_ids": types, "position_ids": torch.arange(2, 11)[None]},
    ):
        with torch.no_grad():
            same(ours(ids, **given)[0], theirs(ids, **given)[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_vectors_in_the_place_of_ids(name):
    ours, theirs = pair(name)
    batch = ragged()
    mask, real = batch["attention_mask"], batch["attention_mask"].bool()
    width = theirs.get_input_embeddings().weight.shape[1]
    found = []
    given = torch.randn(*mask.shape, width)
    weights = torch.randn(*mask.shape, theirs.config.hidden_size) * mask[..., None]
    for model in (ours, theirs):
        vectors = given.clone().requires_grad_()
        out = model(inputs_embeds=vectors, attention_mask=mask)[0]
        (out * weights).sum().backward()
        found.append((out.detach(), vectors.grad))
    (mine, gradient), (other, other_gradient) = found
    same(mine[real], other[real])
    assert not mine[~real].any()
    assert (gradient - other_gradient).norm() <= 1e-4 * other_gradient.norm()


# ---- the model's own code, where packing is not what was asked for ----------------------------------------------------


def test_attentions_are_the_models_own():
    ours, theirs = pair("bert")
    batch = ragged()
    with torch.no_grad():
        mine, other = ours(**batch, output_attentions=True), theirs(**batch, output_attentions=True)
    assert all(map(torch.equal, mine.attentions, other.attentions))


def test_a_mask_of_four_dimensions_is_left_to_the_model_with_a_warning():
    ours, theirs = pair("bert")
    ids = torch.randint(5, 90, (2, 6))
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    with torch.no_grad():
        with pytest.warns(RuntimeWarning, match="attention_mask has shape"):
            found = ours(ids, attention_mask=mask)
        assert torch.equal(found[0], theirs(ids, attention_mask=mask)[0])


def test_a_cache_is_left_to_the_model_with_a_warning():
    ours, theirs = pair("bert")
    batch = ragged()
    with torch.no_grad():
        with pytest.warns(RuntimeWarning, match="the argument past_key_values is given"):
            found = ours(**batch, past_key_values=hf.DynamicCache())
        assert torch.equal(found[0], theirs(**batch, past_key_values=hf.DynamicCache())[0])


def test_ids_and_vectors_at_once_are_the_models_own_error():
    ours, _ = pair("bert")
    with (
        pytest.warns(RuntimeWarning, match="both given"),
        pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"),
    ):
        ours(torch.ones(1, 3, dtype=torch.int64), inputs_embeds=torch.ones(1, 3, 48))


def test_a_container_replaced_later_is_left_to_the_model_with_a_warning():
    class Louder(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, hidden_states, input_tensor):
            return 2 * self.inner(hidden_states, input_tensor)

    ours, theirs = pair("bert")
    for model in (ours, theirs):
        model.encoder.layer[1].output = Louder(model.encoder.layer[1].output)
    batch = ragged()
    with torch.no_grad():
        with pytest.warns(RuntimeWarning, match=r"encoder\.layer\.1\.output is of class Louder"):
            found = ours(**batch)
        assert torch.equal(found[0], theirs(**batch)[0])
    restored = sentcore.restore(ours)
    with pytest.raises(
        ArgumentValueError, match=r"BertModel cannot be run packed: encoder\.layer\.1\.output is of class"
    ):
        sentcore.accelerate(restored)


def test_attentions_once_and_packed_again():
    # transformers leaves hooks that collect outputs; a warning, an error here, would say that packing was given up.
    ours, theirs = pair("bert")
    batch = ragged()
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        ours(**batch, output_attentions=True)
        found = ours(**batch)[0]
        same(found[real], theirs(**batch)[0][real])
    assert not found[~real].any()


@pytest.mark.parametrize("path", ["embeddings", "encoder"])
def test_a_hook_on_what_is_passed_by_leaves_the_call_to_the_model(path):
    ours, theirs = pair("bert")

    def doubled(module, args, out):
        if isinstance(out, torch.Tensor):
            return 2 * out
        out.last_hidden_state = 2 * out.last_hidden_state
        return out

    for model in (ours, theirs):
        model.get_submodule(path).register_forward_hook(doubled)
    batch = ragged()
    with torch.no_grad():
        with pytest.warns(RuntimeWarning, match=f"{path} has a hook"):
            found = ours(**batch)[0]
        assert torch.equal(found, theirs(**batch)[0])


@pytest.mark.parametrize("count", [2, 4])
def test_layers_taken_away_or_added_are_never_passed_by(count):
    model = make_model("bert")
    ours = sentcore.accelerate(copy.deepcopy(model))
    for changed in (model, ours):
        layers = changed.encoder.layer
        kept = [*layers, copy.deepcopy(layers[0])][:count]
        changed.encoder.layer = nn.ModuleList(kept)
    batch = ragged()
    with torch.no_grad():
        with pytest.warns(RuntimeWarning, match="num_hidden_layers"):
            found = ours(**batch)[0]
        assert torch.equal(found, model(**batch)[0])
    with pytest.raises(ArgumentValueError, match="num_hidden_layers"):
        sentcore.accelerate(copy.deepcopy(model))
    model.config.num_hidden_layers = count
    again = sentcore.accelerate(copy.deepcopy(model))
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        same(again(**batch)[0][real], model(**batch)[0][real])


def test_a_cross_encoder(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    classifier("BertForSequenceClassification").save_pretrained(tmp_path)
    save_tokenizer(tmp_path, SMALL["vocab_size"], 0, max_length=64)
    model = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    pairs = [("the a", "b c d"), ("abc", "e f")]
    expected = model.predict(pairs)
    assert abs(sentcore.accelerate(model).predict(pairs) - expected).max() < LARGEST
    assert (sentcore.restore(model).predict(pairs) == expected).all()


# ---- copies, and back -----------------------------------------------------------------------------------------------


def test_names_copies_pickles_and_the_way_back():
    ours, theirs = pair("bert")
    batch = ragged()
    assert list(ours.state_dict()) == list(theirs.state_dict()) and type(ours).__name__ == "BertModel"
    assert isinstance(ours, hf.BertModel)
    with torch.no_grad():
        expected = ours(**batch)[0]
        for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert torch.equal(copied(**batch)[0], expected)
            copied.encoder.layer[0].output.dense.weight.zero_()
            assert not torch.equal(copied(**batch)[0], expected)  # it stands on its own weights
        assert torch.equal(ours(**batch)[0], expected)
        sentcore.restore(ours)
        assert type(ours) is type(theirs) and ours.__dict__.keys() == theirs.__dict__.keys()
        assert torch.equal(ours(**batch)[0], theirs(**batch)[0])


def test_twice_is_once(tmp_path):
    ours, _ = pair("bert")
    assert sentcore.accelerate(ours) is ours
    ours.save_pretrained(tmp_path)
    again = hf.AutoModel.from_pretrained(tmp_path)
    assert again.config.architectures == ["BertModel"]


def test_a_sentence_transformer(minilm_folder, texts):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(minilm_folder), device="cpu")
    expected = model.encode(texts)
    sentcore.accelerate(model)
    assert abs(model.encode(texts) - expected).max() < 2e-6
    sentcore.restore(model)
    assert (model.encode(texts) == expected).all()


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_what_is_refused_leaves_the_model_untouched():
    with pytest.raises(ArgumentTypeError, match="model is of class Linear and holds no encoder"):
        sentcore.accelerate(nn.Linear(2, 2))
    with pytest.raises(ArgumentTypeError, match="model is of type str"):
        sentcore.accelerate("bert")
    with pytest.raises(ArgumentValueError, match="nothing accelerated"):
        sentcore.restore(nn.Linear(2, 2))
    decoder = hf.BertModel(hf.BertConfig(**SMALL, is_decoder=True))
    with pytest.raises(ArgumentValueError, match="BertModel is set up as a decoder"):
        sentcore.accelerate(decoder)
    odd = hf.BertModel(hf.BertConfig(**SMALL, hidden_act="silu"))
    good = make_model("bert")
    with pytest.raises(CheckpointError, match="hidden_act is 'silu'"):
        sentcore.accelerate(nn.ModuleList([good, odd]))
    assert type(good) is hf.BertModel and "_sentcore" not in good.__dict__
    good.encoder.layer[0].output.dropout.p = 0.5
    with pytest.raises(ArgumentValueError, match=r"encoder\.layer\.0\.output\.dropout drops with 0\.5"):
        sentcore.accelerate(good)
