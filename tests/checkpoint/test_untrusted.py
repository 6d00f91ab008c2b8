"""Model folders of strangers: what leaves the folder, runs, or is larger than its file is refused by name."""

from __future__ import annotations

import os
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from folders import change, make_bert_folder, write
from sentcore import SentenceEncoder
from sentcore.checkpoint import load_checkpoint
from sentcore.errors import CheckpointError
from sentcore.model_files import MAX_JSON_BYTES, MAX_JSON_DEPTH, has


@pytest.fixture
def folder(tmp_path):
    return make_bert_folder(tmp_path / "model", dense=(8, "torch.nn.modules.activation.Tanh"))


def refused(folder, *said):
    with pytest.raises(CheckpointError) as caught:
        SentenceEncoder(folder, device="cpu")
    assert all(part in str(caught.value) for part in said), caught.value
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    "name", ["config.json", "modules.json", "model.safetensors", "vocab.txt", "1_Pooling/config.json"]
)
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, name):
    outside = tmp_path / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    refused(folder, name, str(outside), "cp -rL")


def test_a_module_folder_that_is_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    (folder / "1_Pooling").rename(tmp_path / "elsewhere")
    (folder / "1_Pooling").symlink_to("../elsewhere")
    refused(folder, "1_Pooling", str(tmp_path / "elsewhere"))


def test_links_within_the_folder_are_read(folder):
    (folder / "weights.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("weights.safetensors")
    assert load_checkpoint(folder).max_length == 24


def test_blobs_are_those_of_the_hub_cache_alone(folder, tmp_path):
    """A snapshot's link may lead into its repository's blobs, not past them, and not where blobs is itself a link."""
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (tmp_path / "secret").write_bytes((snapshot / "config.json").read_bytes())
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../../secret")
    refused(snapshot, "outside the model folder")
    (tmp_path / "models--a--b" / "blobs").symlink_to(tmp_path)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../blobs/secret")
    refused(snapshot, "outside the model folder")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "is a folder"),
        (os.mkfifo, "is a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "device"),
        (lambda path: path.symlink_to(path.name), "cannot be reached"),
        (lambda path: path.symlink_to("nowhere"), "does not exist"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "sentence_bert_config.json", "vocab.txt", "model.safetensors"])
def test_what_is_no_file_is_refused_also_where_a_file_may_be_absent(folder, make, said, name):
    (folder / name).unlink()
    make(folder / name)
    refused(folder, name, said)


def test_a_name_that_no_file_system_takes(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be reached"):
        has(tmp_path / ("x" * 5000))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 10_000 + "]" * 10_000, "is not JSON"),
        ('{"a":' + "[" * 900 + "]" * 900 + "}", f"deeper than {MAX_JSON_DEPTH}"),
        ('{"hidden_size": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"model_type": "\\ud800"}', "lone surrogate"),
        ('{"model_type": ["bert"]}', "model_type is ['bert']"),
        ('{"a": "' + "x" * MAX_JSON_BYTES + '"}', f"at most {MAX_JSON_BYTES}"),
    ],
)
def test_json_that_is_too_deep_too_large_or_no_text(folder, text, said):
    (folder / "config.json").write_text(text)
    refused(folder, "config.json", said)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 500},
        {"vocab_size": 2**60},
        {"hidden_size": 2**40},
        {"layer_norm_eps": 10**400},
        {"layer_norm_eps": float("nan")},
        {"initializer_range": -1.0},
        {"pad_token_id": 2**63},
    ],
)
def test_sizes_that_no_model_has(folder, fields):
    change(folder / "config.json", **fields)
    refused(folder, str(folder))


def test_names_are_bounded_by_the_weights(tmp_path):
    from sentcore.checkpoint import load_cross_encoder

    folder = make_bert_folder(tmp_path, generation=None)
    change(folder / "config.json", architectures=["BertForSequenceClassification"], num_labels=10**12)
    with pytest.raises(CheckpointError, match="num_labels is 1000000000000; accepted: at most"):
        load_cross_encoder(folder)


def test_two_tensors_for_one_are_refused(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "bert.embeddings.LayerNorm.weight": tensors["embeddings.LayerNorm.weight"].clone()}, path)
    refused(folder, "both", "bert.embeddings.LayerNorm.weight", "names of one tensor")


def test_two_shards_with_the_same_tensor_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    for name in "ab":
        save_file(tensors, folder / f"{name}.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"{'ab'[place % 2]}.safetensors" for place, name in enumerate(tensors)}
    write(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    refused(folder, "b.safetensors", "each tensor once")


@pytest.mark.parametrize("header", [0, 2**24 + 1, 2**63, 2**64 - 1])
def test_a_safetensors_header_that_cannot_be(folder, header):
    path = folder / "model.safetensors"
    path.write_bytes(header.to_bytes(8, "little") + path.read_bytes()[8:])
    refused(folder, "model.safetensors", "no whole safetensors file")


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.zeros(1).expand(2**40), "would have"),
        (torch.zeros(4, 4).to_sparse(), "torch.sparse_coo"),
        (torch.empty(4, device="meta"), "on meta"),
    ],
)
def test_tensors_that_are_more_than_the_bytes_of_their_file(folder, tensor, said):
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.LayerNorm.weight": tensor}, folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin", said)


def test_weights_that_share_their_memory_are_read(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(
        {**tensors, "cls.predictions.decoder.weight": tensors["embeddings.word_embeddings.weight"]},
        folder / "pytorch_model.bin",
    )
    assert load_checkpoint(folder).max_length == 24


def test_a_compressed_archive_is_refused_before_it_is_unpacked(folder):
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**7))
    refused(folder, "pytorch_model.bin", "'x/data.pkl' compressed")


def test_a_tokenizer_of_another_model_is_named(folder):
    change(folder / "config.json", vocab_size=10)
    tensors = load_file(folder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file({**tensors, name: tensors[name][:10].clone()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"vocab.txt gives the token id \d+; accepted: 0 to 9"):
        SentenceEncoder(folder, device="cpu").encode("x y z")


def test_a_template_that_repeats_the_text_is_refused(folder):
    text = {"Sequence": {"id": "A", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [text, text], "pair": [text], "special_tokens": {}}
    model = {"type": "WordLevel", "vocab": {"a": 3, "[UNK]": 1}, "unk_token": "[UNK]"}
    write(folder / "tokenizer.json", {"version": "1.0", "added_tokens": [], "post_processor": template, "model": model})
    refused(folder, "tokenizer.json", "holds text A 2 times")


def test_a_tokenizer_that_panics_or_fails_is_named(folder):
    write(folder / "tokenizer.json", {"version": "1.0", "model": {"type": "Unigram", "vocab": [], "unk_id": 5}})
    refused(folder, "tokenizer.json", "reading it failed")


@pytest.mark.parametrize("largest", [2**24, 2**31 + 5])
def test_an_id_that_the_library_would_count_up_to_is_refused(folder, largest):
    model = {"type": "WordLevel", "vocab": {"a": 3, "[UNK]": 1, "the": largest}, "unk_token": "[UNK]"}
    write(folder / "tokenizer.json", {"version": "1.0", "added_tokens": [], "model": model})
    refused(folder, "tokenizer.json", f"'the' has the id {largest}")
