"""Small model folders for tests: a BERT with random, non-trivial weights in sentence-transformers' layouts."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

WORDS = (
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sat", "on", "##s", "##ly"]
    + [chr(code) for code in range(ord("a"), ord("z") + 1)]
    + ["我", "爱", "北", "京", "天", "安", "门"]
    + [f"##{chr(code)}" for code in range(ord("a"), ord("z") + 1)]
)

GENERATIONS = {
    "first": "sentence_transformers.models.{kind}",
    "second": {
        "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
        "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "Normalize": "sentence_transformers.sentence_transformer.modules.normalize.Normalize",
        "Dense": "sentence_transformers.base.modules.dense.Dense",
    },
    "third": {
        "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
        "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
        "Dense": "sentence_transformers.base.modules.dense.Dense",
    },
}


def make_bert_folder(
    path: Path,
    *,
    generation: str | None = "first",
    pooling: dict | None = None,
    dense: tuple[int, str] | None = None,
    normalize: bool = False,
    prompts: dict[str, str] | None = None,
    **overrides,
) -> Path:
    """Writes a folder; generation None gives a bare checkpoint without modules.json. Returns `path`."""
    path.mkdir(parents=True, exist_ok=True)
    config = BertConfig(
        **{
            "vocab_size": len(WORDS),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 40,
        }
        | overrides
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if name.endswith("LayerNorm.weight") else 0.0, 0.2)
    model.save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    write(path / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    if generation is None:
        return path
    stages = [("Transformer", ""), ("Pooling", "1_Pooling")]
    width = config.hidden_size
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True} if pooling is None else pooling
    write(path / "1_Pooling" / "config.json", pooling)
    if dense:
        out_features, activation = dense
        modes = pooling.get("pooling_mode", sum(value is True for value in pooling.values()))
        modes = modes if isinstance(modes, int) else len(modes) if isinstance(modes, list) else 1
        stages.append(("Dense", "2_Dense"))
        write(
            path / "2_Dense" / "config.json",
            {
                "in_features": width * modes,
                "out_features": out_features,
                "bias": True,
                "activation_function": activation,
            },
        )
        from safetensors.torch import save_file

        save_file(
            {
                "linear.weight": torch.randn(out_features, width * modes) / 5,
                "linear.bias": torch.randn(out_features),
            },
            path / "2_Dense" / "model.safetensors",
        )
    if normalize:
        stages.append(("Normalize", f"{len(stages)}_Normalize"))
    names = GENERATIONS[generation]
    write(
        path / "modules.json",
        [
            {
                "idx": index,
                "name": str(index),
                "path": folder,
                "type": names.format(kind=kind) if isinstance(names, str) else names[kind],
            }
            for index, (kind, folder) in enumerate(stages)
        ],
    )
    write(path / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    write(path / "config_sentence_transformers.json", {"prompts": prompts or {}})
    return path


def write(path: Path, value: object) -> None:
    """JSON into `path`, its folder made where absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def change(path: Path, **values) -> None:
    """Changes fields of a JSON object in a file."""
    write(path, json.loads(path.read_text()) | values)
