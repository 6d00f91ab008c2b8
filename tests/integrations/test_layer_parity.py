"""parity(layers=True): agrees on every family, and names the place of a fault that was planted."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from families import FAMILIES, make_model, save
from folders import change
from sentcore import SentenceEncoder
from sentcore.errors import CheckpointError
from sentcore.integrations.parity import parity


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """name -> a folder of the family with random weights and a tokenizer, without pooling."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = save(make_model(name), tmp_path_factory.mktemp("family") / name, tokenizer=True)
        return made[name]

    return folder


@pytest.fixture
def encoder_of(folder_of):
    return lambda name, **chosen: SentenceEncoder(folder_of(name), device="cpu", **chosen)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_of_every_family_agrees(encoder_of, name):
    model = encoder_of(name)
    report = parity(model, layers=True)
    assert report.passed, str(report)
    assert report.other_tokens == () and report.first_departure is None
    names = [layer.name for layer in report.layers]
    wanted = ["embeddings", *(f"layer {layer}" for layer in range(3))]
    wanted += ["final norm"] if name.startswith("modernbert") else []
    assert names == [*wanted, "token embeddings", "pooling"]
    assert all(layer.accepted > 0 for layer in report.layers)


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_the_reference_backend_and_bfloat16(encoder_of, name):
    assert parity(encoder_of(name, backend="reference"), layers=True).passed
    report = parity(encoder_of(name, dtype="bfloat16"), layers=True)
    assert report.layers[0].max_abs_diff > 1e-5 and report.layers[0].accepted > 1e-2


def test_without_layers_nothing_is_said_of_them(encoder_of):
    report = parity(encoder_of("bert"))
    assert report.layers == () and report.first_departure is None
    assert "layers" not in report.as_dict() and "layer 0" not in str(report)


def departs_at(model, place):
    report = parity(model, layers=True)
    assert not report.passed
    assert report.first_departure == place, str(report)
    assert f"the first to depart: {place}" in report.verdict
    before = [layer.name for layer in report.layers].index(place)
    assert all(layer.passed for layer in report.layers[:before])
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["first_departure"] == place
    assert f"{place:<18}" in str(report) and "departs" in str(report)
    return report


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "mpnet"])
@pytest.mark.parametrize("offset", [-1, 1])
def test_positions_off_by_one(encoder_of, name, offset):
    model = encoder_of(name)
    model.model.encoder.embeddings.position_offset += offset
    departs_at(model, "embeddings")


@pytest.mark.parametrize("name", ["modernbert", "nomic_bert", "gte"])
@pytest.mark.parametrize("layer", [0, 1])
def test_swapped_halves_of_a_gated_layer(encoder_of, name, layer):
    model = encoder_of(name)
    up = model.model.encoder.layers[layer].feed_forward.up
    with torch.no_grad():
        up.weight.copy_(up.weight.roll(len(up.weight) // 2, dims=0))
    departs_at(model, f"layer {layer}")


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_wrong_epsilon_in_one_place(encoder_of, name, backend):
    model = encoder_of(name, backend=backend)
    model.model.encoder.layers[1].attention.layer_norm.eps = 1e-2
    departs_at(model, "layer 1")


def test_a_wrong_epsilon_behind_the_embeddings_and_at_the_end(encoder_of):
    model = encoder_of("modernbert")
    model.model.encoder.final_norm.eps = 1.0
    departs_at(model, "final norm")
    model = encoder_of("modernbert")
    model.model.encoder.embeddings.layer_norm.eps = 1e-2
    departs_at(model, "embeddings")


def test_a_wrong_epsilon_everywhere_starts_where_it_is_first_used(folder_of, tmp_path):
    folder = save(make_model("bert"), tmp_path / "model", tokenizer=True)
    model = SentenceEncoder(folder, device="cpu")
    change(folder / "config.json", layer_norm_eps=1e-2)
    departs_at(model, "embeddings")


@pytest.mark.parametrize("layer", [0, 2])
def test_tanh_gelu_for_erf(encoder_of, layer):
    model = encoder_of("bert")
    feed_forward = model.model.encoder.layers[layer].feed_forward
    assert feed_forward.activation == feed_forward.hidden_act == "gelu"
    feed_forward.activation = feed_forward.hidden_act = "gelu_tanh"
    departs_at(model, f"layer {layer}")


@pytest.mark.parametrize("off", [-1, 1])
def test_a_window_off_by_one(encoder_of, off):
    model = encoder_of("modernbert")
    encoder = model.model.encoder
    config = dataclasses.replace(encoder.config, sliding_window=encoder.config.sliding_window + off)
    encoder.config = encoder.positions.config = config
    departs_at(model, "layer 1")  # the first sliding one


def test_another_distance_bias(encoder_of):
    model = encoder_of("mpnet")
    with torch.no_grad():
        model.model.encoder.positions.relative_attention_bias.weight[5] += 0.5
    departs_at(model, "layer 0")


def test_shared_layers_depart_at_the_first_that_uses_them(encoder_of):
    model = encoder_of("albert-groups")
    assert model.model.encoder.order() == [0, 0, 1]
    with torch.no_grad():
        model.model.encoder.layers[1].feed_forward.down.bias[3] += 0.5
    departs_at(model, "layer 2")


def test_pooling_alone(encoder_of):
    model = encoder_of("bert")
    real = model.model.outputs[0].forward
    model.model.outputs[0].forward = lambda *args: real(*args) + 1e-3
    report = departs_at(model, "pooling")
    assert report.token_max_abs_diff < 1e-5


def test_all_layers_in_one_call_are_told_from_each(encoder_of):
    model = encoder_of("bert")
    real = model.model.encoder.encode_packed
    model.model.encoder.encode_packed = lambda batch: real(batch) + 1e-3
    departs_at(model, "token embeddings")


def test_nan_departs(encoder_of):
    model = encoder_of("roberta")
    with torch.no_grad():
        model.model.encoder.layers[1].feed_forward.down.bias[3] = float("nan")
    departs_at(model, "layer 1")


def test_training_mode_comes_back(encoder_of):
    model = encoder_of("bert")
    model.train()
    assert parity(model, layers=True).passed
    assert model.model.encoder.layers[0].training


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "new"}, "Alibaba-NLP"),
        ({"model_type": "bert", "position_embedding_type": "alibi"}, "Jina"),
        ({"model_type": "nomic_bert", "n_embd": 48}, "nomic-ai"),
    ],
)
@pytest.mark.parametrize("layers", [False, True])
def test_what_transformers_has_no_class_for(encoder_of, values, said, layers):
    model = encoder_of("bert")
    model.checkpoint.hf_config.clear()
    model.checkpoint.hf_config.update(values)
    with pytest.raises(CheckpointError, match=f"{said}.*nothing to compare with"):
        parity(model, layers=layers)


def test_weights_that_transformers_does_not_find(tmp_path):
    folder = save(make_model("bert"), tmp_path, tokenizer=True)
    model = SentenceEncoder(folder, device="cpu")
    change(folder / "config.json", num_hidden_layers=4)  # of which transformers would make up the last
    with pytest.raises(CheckpointError, match=r"no weights for encoder\.layer\.3.*nothing to compare with"):
        parity(model, layers=True)
