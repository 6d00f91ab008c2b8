"""Folders and arguments that CrossEncoder refuses, by name."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from cross_encoders import DOCUMENTS, PAIRS, maker
from folders import change, make_bert_folder, write
from sentcore import CrossEncoder
from sentcore.errors import ArgumentTypeError, ArgumentValueError, CheckpointError


@pytest.fixture
def make(tmp_path):
    return maker(tmp_path)


@pytest.mark.parametrize(
    ("file", "values", "says"),
    [
        ("sentence_bert_config.json", {"transformer_task": "feature-extraction"}, "transformer_task is 'feature-extraction'"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 3}}}, "processing_kwargs is"),
        ("config_sentence_transformers.json", {"prompts": {"a": "b"}, "default_prompt_name": "a"}, "default_prompt_name is 'a'"),
        ("tokenizer_config.json", {"truncation_side": "left"}, "truncation_side is 'left'; accepted: 'right'"),
        ("config.json", {"model_type": "qwen3"}, "model_type is 'qwen3'"),
    ],
)  # fmt: skip
def test_folders_that_ask_for_more_are_refused(make, file, values, says):
    folder = make(st=True)
    change(folder / file, **values)
    with pytest.raises(CheckpointError, match=says):
        CrossEncoder(folder, device="cpu")


def test_sentence_encoders_are_refused(make, tmp_path):
    with pytest.raises(CheckpointError, match=r"Pooling.*use SentenceEncoder"):
        CrossEncoder(make_bert_folder(tmp_path / "st"), device="cpu")
    with pytest.raises(CheckpointError, match=r"lacks pooler\.dense\.weight|lacks bert\.pooler\.dense\.weight"):
        CrossEncoder(make_bert_folder(tmp_path / "bare-encoder", generation=None), device="cpu")
    folder = make(st=True)
    logit_score = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
    modules = json.loads((folder / "modules.json").read_text())
    write(folder / "modules.json", [*modules, {"idx": 1, "name": "1", "path": "1_LogitScore", "type": logit_score}])
    with pytest.raises(CheckpointError, match="LogitScore"):
        CrossEncoder(folder, device="cpu")


def test_bad_arguments_are_named(make, tmp_path):
    model = CrossEncoder(make(), device="cpu")
    for call, error, says in (
        (lambda: model.predict([PAIRS[0], None]), ArgumentTypeError, r"sentences\[1\] is None"),
        (lambda: model.predict(PAIRS, batch_tokens=0), ArgumentValueError, "batch_tokens is 0"),
        (lambda: model.predict(PAIRS, activation_fn="sigmoid"), ArgumentTypeError, "activation_fn is 'sigmoid'"),
        (lambda: model.rank("q", DOCUMENTS, top_k=0), ArgumentValueError, "top_k is 0"),
        (lambda: model.rank("q", ["a", 1]), ArgumentTypeError, r"documents\[1\] is 1"),
        (lambda: setattr(model, "activation_fn", 3), ArgumentTypeError, "activation_fn is 3"),
        (lambda: setattr(model, "max_seq_length", 41), ArgumentValueError, "max_length is 41; accepted: 3 to 40"),
        (lambda: CrossEncoder(tmp_path / "bare", max_length="5"), ArgumentTypeError, "max_length is '5'"),
    ):
        with pytest.raises(error, match=says):
            call()
    model.activation_fn = nn.GELU(approximate="tanh")
    with pytest.raises(ArgumentValueError, match=r"activation_fn is GELU.*accepted for saving"):
        model.save_pretrained(tmp_path / "out")
    several = CrossEncoder(make(3), device="cpu")
    with pytest.raises(ArgumentValueError, match="rank of a model with 3 labels"):
        several.rank("q", DOCUMENTS)


def test_scores_that_are_no_numbers_are_reported(make):
    model = CrossEncoder(make(), device="cpu")
    with torch.no_grad():
        model.model.head.output.bias.fill_(float("nan"))
    with pytest.warns(RuntimeWarning, match="2 of 2 features are NaN"):
        model.predict(PAIRS[:2])
