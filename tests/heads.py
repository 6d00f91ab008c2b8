"""Small folders with heads: an XLM-R with bge-m3's two files, and masked-LM models under SPLADE's pooling."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from families import FAMILIES, SMALL, make_model, randomize
from folders import write

WORDS = ["the", "cat", "dog", "sat", "on", "mat", "a", "red", "blue", "sun", "moon", "is", "in", "sky", "and", "far"]
TEXTS = [
    "the cat sat on the mat",
    "",
    "a dog",
    "the the the sun zebra",
    "the red sun and the blue moon far far in the sky",
    "moon",
    "zebra zebra",
] * 3
BGE = ("<s>", "<pad>", "</s>", "<unk>")
BERT = ("[CLS]", "[PAD]", "[SEP]", "[UNK]")


def write_tokenizer(folder: Path, special: tuple[str, ...] = BGE, named: bool = True) -> None:
    """tokenizer.json of whole words, ids 0 to 3 being cls, pad, sep, unk; `named`: the config tells of them."""
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    cls, pad, sep, unk = special
    rust = Tokenizer(models.WordLevel(vocabulary, unk_token=unk))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.post_processor = processors.TemplateProcessing(single=f"{cls} $A {sep}", special_tokens=[(cls, 0), (sep, 2)])
    rust.add_special_tokens(list(special))
    folder.mkdir(parents=True, exist_ok=True)
    rust.save(str(folder / "tokenizer.json"))
    names = {"cls_token": cls, "sep_token": sep, "eos_token": sep, "pad_token": pad, "unk_token": unk}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 30}
    write(folder / "tokenizer_config.json", settings | (names if named else {}))


def make_bge(folder: Path, width: int = 24) -> Path:
    """XLM-R with cls pooling, Normalize, sparse_linear.pt and colbert_linear.pt."""
    model = make_model("xlm-roberta")
    model.save_pretrained(folder)
    write_tokenizer(folder)
    kinds = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
        ],
    )
    write(folder / "1_Pooling" / "config.json", {"embedding_dimension": 48, "pooling_mode": "cls"})
    torch.manual_seed(3)
    for name, rows in (("sparse_linear.pt", 1), ("colbert_linear.pt", width)):
        torch.save({"weight": torch.randn(rows, 48) / 7, "bias": torch.randn(rows) / 9}, folder / name)
    return folder


def make_splade(folder: Path, family: str, pooling: dict | None = None, generation: str = "first", **config) -> Path:
    """A masked-LM model of transformers' own class, in the layout that SparseEncoder reads."""
    torch.manual_seed(0)
    made = FAMILIES[family](SMALL)
    for name, value in config.items():
        setattr(made, name, value)
    made.pad_token_id = 1
    made._attn_implementation = "eager"
    model = hf.AutoModelForMaskedLM.from_config(made, attn_implementation="eager").eval()
    randomize(model)
    model.tie_weights()
    model.save_pretrained(folder)
    write_tokenizer(folder, BERT)
    types = {
        "first": ("sparse_encoder.models.MLMTransformer", "sparse_encoder.models.SpladePooling"),
        "second": (
            "sparse_encoder.modules.mlm_transformer.MLMTransformer",
            "sparse_encoder.modules.splade_pooling.SpladePooling",
        ),
        "third": ("base.modules.transformer.Transformer", "sparse_encoder.modules.splade_pooling.SpladePooling"),
    }[generation]
    write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{types[i]}"}
            for i, path in enumerate(("", "1_SpladePooling"))
        ],
    )
    settings = {"max_seq_length": 30, "do_lower_case": False}
    if generation == "third":
        settings |= {
            "transformer_task": "fill-mask",
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": "token_embeddings",
        }
    write(folder / "sentence_bert_config.json", settings)
    write(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder", "prompts": {}})
    write(folder / "1_SpladePooling" / "config.json", pooling or {"pooling_strategy": "max"})
    return folder
