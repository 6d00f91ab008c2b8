"""Values and names that break parsers, and what is done with them in a tree of JSON."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

DEEP = 200  # deeper ones are made as text


def nested(depth: int, inner: Any = None) -> Any:
    """[[[...inner...]]]."""
    for _ in range(depth):
        inner = [inner]
    return inner


ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 2**31 - 1, 2**31, 2**32, 2**60, 2**63, 2**64, 10**30, 10**400, -(10**400)),
    *(0.5, 1.0, -0.0, -1.5, 1e-320, 1e39, 1e308, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "x",
        "x" * 100_000,
        "../outside",
        "/etc/passwd",
        "1_Pooling/../../outside",
        "a\0b",
        "\ud800",
        "C:\\x",
        "~",
        ".",
    ),
    *("os.system", "__import__('os').system('true')", "٣", "é" * 300, "[UNK]", "[CLS]", "the", "mean", "gelu", "bert"),
    *([], {}, [None], [[]], {"": None}, ["mean"] * 1000, ["cls", "max"], list(range(1000)), [0, 2**60], [2**60, 2**60]),
    *(nested(40), nested(DEEP), {"a": nested(40, {})}, {"0": "a", "2": "b"}, {str(i): "x" for i in range(300)}),
]

_NAMES = """
hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size max_position_embeddings type_vocab_size
pad_token_id layer_norm_eps norm_eps hidden_dropout_prob attention_probs_dropout_prob initializer_range hidden_act
hidden_activation activation position_embedding_type model_type is_decoder pruned_heads quantization_config head_dim
num_labels id2label architectures classifier_dropout classifier_pooling classifier_bias classifier_activation
layer_types global_attn_every_n_layers local_attention global_rope_theta local_rope_theta rope_parameters rope_scaling
rope_theta partial_rotary_factor n_embd n_inner n_layer n_head n_positions rotary_emb_base rotary_emb_fraction
embedding_size num_hidden_groups inner_group_num relative_attention_num_buckets dim n_layers n_heads hidden_dim
tie_word_embeddings decoder_bias norm_bias mlp_bias attention_bias sentence_transformers
sbert_ce_default_activation_function activation_fn max_seq_length do_lower_case transformer_task model_max_length
tokenizer_class model_input_names truncation_side cls_token sep_token unk_token pad_token eos_token
tokenize_chinese_chars strip_accents prompts default_prompt_name similarity_fn_name truncate_dim pooling_mode
pooling_mode_cls_token pooling_mode_max_tokens pooling_mode_foreign include_prompt embedding_dimension
word_embedding_dimension in_features out_features bias activation_function module_input_name pooling_strategy
weight_map metadata type path idx name
"""
NAMES = _NAMES.split()


def _copied(tree: Any) -> Any:
    """A copy; of a tree too deep for one, another deep tree."""
    try:
        return copy.deepcopy(tree)
    except RecursionError:
        return nested(DEEP)


def places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in the tree."""
    found, level = [], [tree]
    while level:
        item = level.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            found.append((item, key))
            level.append(item[key])
    return found


def odd(rng: Random, tree: Any = None) -> Any:
    """A value that breaks things, or one from elsewhere in the tree."""
    everywhere = places(tree)
    if everywhere and rng.random() < 0.15:
        container, key = rng.choice(everywhere)
        return _copied(container[key])
    return copy.deepcopy(rng.choice(ODD))


def disturb(tree: Any, rng: Random) -> str:
    """Changes one place of a JSON tree; what was done."""
    everywhere = places(tree)
    how = rng.random()
    if isinstance(tree, dict) and (how < 0.35 or not everywhere):
        name = rng.choice(NAMES)
        tree[name] = odd(rng, tree)
        return f"{name} = {tree[name]!r:.80}"
    if not everywhere:
        tree.append(odd(rng))
        return "an entry"
    container, key = rng.choice(everywhere)
    if how < 0.45:
        del container[key]
        return f"without {key!r:.80}"
    if how < 0.55 and isinstance(container, dict):
        new = rng.choice([*NAMES, "", "\0", "00", "9" * 5000, str(key) + "x"])
        container[new] = container.pop(key)
        return f"{key!r:.80} is now {new!r:.80}"
    if how < 0.6 and isinstance(container, list):
        container.append(_copied(container[key]))
        return f"{key!r} once more"
    container[key] = odd(rng, tree)
    return f"{key!r:.80} = {container[key]!r:.80}"


def dump(tree: Any, rng: Random) -> bytes:
    """JSON as its writers would not: NaN, keys twice, other encodings, now and then."""
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.7)
    how = rng.random()
    if how < 0.05 and text.startswith("{"):
        text = f'{{"{rng.choice(NAMES)}": 0, {text[1:]}' if len(text) > 2 else text
    elif how < 0.08:
        return text.encode("utf-16", "surrogatepass")
    return text.encode("utf-8", "surrogatepass")
