"""Folders of small cross-encoders, and pairs for them."""

from __future__ import annotations

import torch
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from transformers import BertConfig, BertForSequenceClassification

from families import randomize
from folders import change, make_bert_folder

PAIRS = [
    ("the cat sat", "on the dogs"),
    ("cat", ""),
    ("", "我爱北京天安门"),
    ("a b c d e f g " * 9, "dog"),
    ("the", "x y z " * 30),
    ("a b c " * 20, "d e f " * 25),
    ("slowly", " the  cat "),
]
DOCUMENTS = [second for _, second in PAIRS]


def maker(tmp_path):
    """A function that makes a folder as transformers writes it; `st` has sentence-transformers write it once more."""

    def build(labels=1, st=False, **config):
        folder = make_bert_folder(tmp_path / "bare", generation=None)
        settings = BertConfig.from_pretrained(folder)
        settings.num_labels = labels
        torch.manual_seed(0)
        model = BertForSequenceClassification(settings)
        randomize(model)
        model.save_pretrained(folder)
        change(folder / "config.json", **config)
        if not st:
            return folder
        TheirCrossEncoder(str(folder), device="cpu").save_pretrained(str(tmp_path / "st"))
        return tmp_path / "st"

    return build
