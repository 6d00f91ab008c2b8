"""Damaged, foreign and contradictory model folders, each refused by file, field and value."""

from __future__ import annotations

import json

import pytest

from folders import change, make_bert_folder, write
from sentcore import SentenceEncoder
from sentcore.checkpoint import load_checkpoint
from sentcore.errors import CheckpointError, MissingFileError


@pytest.fixture
def folder(tmp_path):
    return make_bert_folder(tmp_path / "model", dense=(8, "torch.nn.modules.activation.Tanh"))


BROKEN = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), MissingFileError, "holds no weights"),
    "no config": (lambda f: (f / "config.json").unlink(), MissingFileError, "config.json does not exist"),
    "no tokenizer": (lambda f: (f / "vocab.txt").unlink(), MissingFileError, "holds no tokenizer"),
    "config no JSON": (lambda f: (f / "config.json").write_text("{oops"), CheckpointError, "is not JSON"),
    "config a list": (lambda f: write(f / "config.json", [1]), CheckpointError, "JSON list; accepted: an object"),
    "config deep": (lambda f: (f / "config.json").write_text("[" * 100000), CheckpointError, "is not JSON"),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        CheckpointError,
        "no whole safetensors file",
    ),
    "empty file": (lambda f: (f / "model.safetensors").write_bytes(b""), CheckpointError, "no whole safetensors"),
    "other shape": (
        lambda f: change(f / "config.json", intermediate_size=64),
        CheckpointError,
        r"intermediate.dense.weight has shape \[48, 32\]; accepted: \[64, 32\]",
    ),
    "fewer layers": (lambda f: change(f / "config.json", num_hidden_layers=1), CheckpointError, "not known"),
    "more layers": (lambda f: change(f / "config.json", num_hidden_layers=3), CheckpointError, "missing"),
    "act": (lambda f: change(f / "config.json", hidden_act="gelu_fast"), CheckpointError, "hidden_act is 'gelu_fast'"),
    "positions": (
        lambda f: change(f / "config.json", position_embedding_type="relative_key"),
        CheckpointError,
        "position_embedding_type is 'relative_key'",
    ),
    "decoder": (lambda f: change(f / "config.json", is_decoder=True), CheckpointError, "is_decoder is true"),
    "family": (lambda f: change(f / "config.json", model_type="mamba"), CheckpointError, "model_type is 'mamba'"),
    "no family": (lambda f: change(f / "config.json", model_type=None), CheckpointError, "model_type is None"),
    "quantized": (
        lambda f: change(f / "config.json", quantization_config={"bits": 4}),
        CheckpointError,
        "quantization_config is set",
    ),
    "size a text": (lambda f: change(f / "config.json", hidden_size="32"), CheckpointError, "hidden_size is '32'"),
    "pooling foreign": (
        lambda f: write(f / "1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": "attention"}),
        CheckpointError,
        "pooling_mode is 'attention'",
    ),
    "pooling width": (
        lambda f: change(f / "1_Pooling/config.json", word_embedding_dimension=64),
        CheckpointError,
        "embedding dimension is 64",
    ),
    "pooling absent": (lambda f: (f / "1_Pooling/config.json").unlink(), MissingFileError, "1_Pooling"),
    "activation": (
        lambda f: change(f / "2_Dense/config.json", activation_function="os.system"),
        CheckpointError,
        "activation_function is 'os.system'",
    ),
    "dense width": (lambda f: change(f / "2_Dense/config.json", in_features=7), CheckpointError, "in_features is 7"),
    "dense shape": (
        lambda f: change(f / "2_Dense/config.json", out_features=7),
        CheckpointError,
        r"linear.weight has shape \[8, 32\]; accepted: \[7, 32\]",
    ),
    "default prompt": (
        lambda f: change(f / "config_sentence_transformers.json", default_prompt_name="x"),
        CheckpointError,
        "default_prompt_name is 'x'",
    ),
    "similarity": (
        lambda f: change(f / "config_sentence_transformers.json", similarity_fn_name="tanimoto"),
        CheckpointError,
        "similarity_fn_name is 'tanimoto'",
    ),
    "tokenizer no JSON": (
        lambda f: (f / "tokenizer.json").write_text("{"),
        CheckpointError,
        "tokenizer.json: reading it failed",
    ),
    "vocabulary without specials": (
        lambda f: (f / "vocab.txt").write_text("a\nb\n"),
        CheckpointError,
        r"lacks \[UNK\], \[CLS\], \[SEP\]",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_are_refused_by_file_field_and_value(folder, name):
    edit, error, says = BROKEN[name]
    edit(folder)
    with pytest.raises(error, match=says):
        SentenceEncoder(folder)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("type", "sentence_transformers.models.CNN", "type of module 1 is 'sentence_transformers.models.CNN'"),
        ("type", "evil.module.Thing", "type of module 1 is 'evil.module.Thing'"),
        ("path", "../elsewhere", "'../elsewhere', which leaves the model folder"),
        ("path", "/etc", "'/etc', which leaves the model folder"),
        ("path", "a/../../b", "which leaves the model folder"),
        ("path", 7, "is 7; accepted: a path relative"),
    ],
)
def test_foreign_modules_and_paths_are_refused(folder, field, value, says):
    modules = json.loads((folder / "modules.json").read_text())
    modules[1][field] = value
    write(folder / "modules.json", modules)
    with pytest.raises(CheckpointError, match=says):
        load_checkpoint(folder)
