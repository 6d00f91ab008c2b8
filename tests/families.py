"""Every family as a random, non-trivial model of transformers' own class, saved to a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SMALL = {
    "vocab_size": 100,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 80,
}
WIDE = {
    "vocab_size": 150,
    "hidden_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 5,
    "intermediate_size": 200,
}
SIZES = {"small": SMALL, "wide": WIDE}


def gte_config(**values: Any) -> Any:
    """transformers' GteConfig; the test is skipped where this version of it does not know the family."""
    if not hasattr(hf, "GteConfig"):
        pytest.skip(f"transformers {hf.__version__} has no GteConfig")
    return hf.GteConfig(**values)


def _distilbert(size: dict) -> Any:
    names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
    size = {names.get(key, key): value for key, value in size.items() if key != "intermediate_size"}
    return hf.DistilBertConfig(**size, hidden_dim=112, max_position_embeddings=512)


def _pad(name: str, table: int = 514) -> Callable[[dict], Any]:
    return lambda size: getattr(hf, name)(
        **size, max_position_embeddings=table, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2
    )


# family, or a variant of one -> a config of transformers for a size
FAMILIES: dict[str, Callable[[dict], Any]] = {
    "bert": lambda size: hf.BertConfig(**size, layer_norm_eps=1e-7),
    "bert-tanh": lambda size: hf.BertConfig(**size, hidden_act="gelu_new", layer_norm_eps=3e-3),
    "roberta": _pad("RobertaConfig"),
    "xlm-roberta": _pad("XLMRobertaConfig"),
    "camembert": _pad("CamembertConfig"),
    "distilbert": _distilbert,
    "electra": lambda size: hf.ElectraConfig(**size, embedding_size=32),
    "electra-same-width": lambda size: hf.ElectraConfig(**size, embedding_size=size["hidden_size"]),
    "albert": lambda size: hf.AlbertConfig(**size, embedding_size=32, layer_norm_eps=1e-6),
    "albert-groups": lambda size: hf.AlbertConfig(**size, embedding_size=32, num_hidden_groups=2, hidden_act="gelu"),
    "mpnet": _pad("MPNetConfig"),
    "modernbert": lambda size: hf.ModernBertConfig(
        **size, pad_token_id=0, norm_eps=3e-4, local_attention=32, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
    ),
    "modernbert-biases": lambda size: hf.ModernBertConfig(
        **size, pad_token_id=0, attention_bias=True, mlp_bias=True, norm_bias=True, local_attention=64,
        bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
    ),
    "nomic_bert": lambda size: hf.NomicBertConfig(**size),
    "gte": lambda size: gte_config(**size, pad_token_id=0),
    "gte-without-types": lambda size: gte_config(**size, pad_token_id=0, type_vocab_size=0),
}  # fmt: skip


def make_model(name: str, size: str = "small", seed: int = 0) -> hf.PreTrainedModel:
    """A model of the family in eval mode, eager attention, its LayerNorms and biases random too."""
    torch.manual_seed(seed)
    config = FAMILIES[name](SIZES[size])
    config._attn_implementation = "eager"
    model = hf.AutoModel.from_config(config, attn_implementation="eager").eval()
    randomize(model)
    return model


def randomize(model: torch.nn.Module) -> None:
    """Weights of a size that keeps features near 1, norms around 1, biases around 0."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            norm = "norm" in key.lower() or "_ln" in key
            if parameter.dim() == 1:
                parameter.copy_((1.0 if norm and key.endswith("weight") else 0.0) + 0.2 * torch.randn_like(parameter))
            elif "embedding" in key:
                parameter.normal_(0.0, 0.7)
            else:
                parameter.normal_(0.0, 1.2 / parameter.shape[1] ** 0.5)


def save(model: hf.PreTrainedModel, folder: Path, tokenizer: bool = False) -> Path:
    """The model's folder, with a tokenizer of words and letters within its vocabulary where one is asked for."""
    model.save_pretrained(folder)
    if tokenizer:
        save_tokenizer(folder, model.config.vocab_size, model.config.pad_token_id or 0, max_length=96)
    return folder


def save_tokenizer(folder: Path, vocab_size: int, pad_token_id: int, max_length: int) -> None:
    """tokenizer.json and tokenizer_config.json that AutoTokenizer reads: [CLS] letters [SEP], rest unknown."""
    special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    special.insert(pad_token_id, "[PAD]")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*special, *letters, *(f"##{letter}" for letter in letters), *"0123456789.,;:-()=/我爱北京天", "the"]
    vocabulary = {word: index for index, word in enumerate(words)}
    assert len(vocabulary) == len(words) <= vocab_size
    rust = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    rust.normalizer = normalizers.BertNormalizer(lowercase=True)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    rust.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    hf.PreTrainedTokenizerFast(
        tokenizer_object=rust,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def ragged(model: hf.PreTrainedModel, lengths: tuple[int, ...], seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids and attention_mask [B, S], padded on the right with the model's padding id."""
    generator = torch.Generator().manual_seed(seed)
    pad = model.config.pad_token_id or 0
    ids = torch.full((len(lengths), max(lengths)), pad)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, model.config.vocab_size, (length,), generator=generator)
        mask[row, :length] = 1
    return ids, mask
