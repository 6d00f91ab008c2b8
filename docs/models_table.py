"""Writes docs/models.md from the code: `python -m docs.models_table`."""

from __future__ import annotations

from pathlib import Path

from sentcore.checkpoint import layout
from sentcore.checkpoint.classification_heads import HEADS
from sentcore.checkpoint.families import FAMILIES, family_of
from sentcore.checkpoint.load import SIMILARITY_FNS
from sentcore.config import EncoderConfig
from sentcore.encode_options import OUTPUT_VALUES
from sentcore.inputs.chunks import CHUNK_MODES
from sentcore.integrations.transformers_reference import custom_code
from sentcore.outputs.quantize import PRECISIONS
from sentcore.outputs.specs import LAYER_POOLING_MODES, POOLING_MODES, SPLADE_ACTIVATIONS, SPLADE_POOLINGS
from sentcore.placement import DTYPES

PAGE = Path(__file__).with_name("models.md")
COMMAND = "python -m docs.models_table"

# Forms of config.json that a model_type alone does not tell: what is said of it, and the least that such a file holds.
OTHER_FORMS = (
    (
        "nomic_bert, nomic-ai's own form",
        {"model_type": "nomic_bert", "n_embd": 768, "activation_function": "swiglu", "rotary_emb_fraction": 1.0},
    ),
    (
        "bert with ALiBi (jina-bert-v2)",
        {"model_type": "bert", "position_embedding_type": "alibi", "feed_forward_type": "geglu"},
    ),
)


def page() -> str:
    """The whole of docs/models.md."""
    return f"""# Models

Written from the code by `{COMMAND}`; change the code, not this page.

## Families

What a `config.json` says decides the family; a value that would compute something else is refused by name. The words below
are of the family's defaults; a file may set every size, and of activations those named.

{_table(("config.json", "family", "embeddings", "positions", "LayerNorms", "feed-forward", "names of tensors", "heads", "`sentcore parity`"), _families())}

Refused by name, with the remedy: other architectures, decoders, adapters (merge them first), quantized weights, pruned heads,
and rotary scalings other than {_code("ntk")} of the model_type {_code("new")}.

## Features

{_table(("what", "accepted"), _features())}
"""


def forms() -> list[tuple[str, dict]]:
    """(what is said of it, config.json) of every form that is read."""
    return [*((name, {"model_type": name}) for name in FAMILIES), *OTHER_FORMS]


def _families() -> list[tuple[str, ...]]:
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, values in forms():
        family = family_of(values, PAGE)
        config = family.config_from_hf(values, PAGE)
        row = (
            f"[{family.__name__.rpartition('.')[2]}](../{_file_of(family)})",
            _embeddings(config),
            _positions(config),
            _norms(config),
            _feed_forward(config),
            _names(family.NAMES),
            _heads(family),
            "no class in transformers" if custom_code(values) else "every layer",
        )
        rows.setdefault(row, []).append(name)
    return [(", ".join(map(_said, names)), *row) for row, names in rows.items()]


def _said(name: str) -> str:
    return (
        _code(name)
        if name in FAMILIES
        else f"{_code(name.split(maxsplit=1)[0].rstrip(','))} {name.split(maxsplit=1)[1]}"
    )


def _file_of(family) -> str:
    return f"{family.__name__.replace('.', '/')}.py"


def _embeddings(config: EncoderConfig) -> str:
    parts = ["words"]
    if config.position_embedding_type == "absolute":
        parts.append("positions")
    if config.type_vocab_size:
        parts.append("token types")
    projected = ", projected to H" if config.embedding_size else ""
    return " + ".join(parts) + projected


def _positions(config: EncoderConfig) -> str:
    if config.position_embedding_type == "alibi":
        return "ALiBi on both sides"
    if config.position_embedding_type == "rotary":
        kinds = f", window of {config.sliding_window} on either side in sliding layers" if config.layer_types else ""
        return f"rotary{kinds}"
    offset = f" from row {config.position_offset}" if config.position_offset else ""
    shared = (
        f", {config.relative_attention_num_buckets} learned distances" if config.relative_attention_num_buckets else ""
    )
    return f"table{offset}{shared}"


def _norms(config: EncoderConfig) -> str:
    return "before, and one at the end" if config.norm_first else "behind the residual"


def _feed_forward(config: EncoderConfig) -> str:
    what = config.activation
    parts = [f"gated ({what})" if config.gated else what]
    without = [name for name, bias in (("up", config.up_bias), ("down", config.down_bias)) if not bias]
    if without:
        parts.append(f"no bias in {' and '.join(without)}")
    if config.num_hidden_groups:
        parts.append("layers share weights")
    return ", ".join(parts)


def _names(names) -> str:
    layers = " or ".join(_code(form.format("N") + "…") for form in (names.layer, *names.other_layers))
    return f"{layers}; {' or '.join(map(_code, names.prefixes))} before them or not"


def _heads(family) -> str:
    known = {"`CrossEncoder`": family in HEADS, "SPLADE": hasattr(family, "MASKED_LM")}
    return ", ".join(name for name, there in known.items() if there) or "none"


def _features() -> list[tuple[str, str]]:
    weights = (layout.SAFETENSORS, layout.SAFETENSORS_INDEX, layout.TORCH_WEIGHTS)
    return [
        ("modules of `modules.json`", _codes(layout.LEGACY_MODULE_TYPE) + ", under the names of three generations"),
        ("pooling modes, alone or concatenated", _codes(POOLING_MODES)),
        ("pooling modes of `pooling=` alone, over two layers", _codes(LAYER_POOLING_MODES)),
        ("texts longer than the model reads", f"cut, with one note; in windows with `chunk=` {_codes(CHUNK_MODES)}"),
        (
            "heads beside the pooling, in one pass",
            f"{_code(layout.SPARSE_LINEAR)}, {_code(layout.COLBERT_LINEAR)} (bge-m3's)",
        ),
        ("SPLADE's pooling and activations", f"{_codes(SPLADE_POOLINGS)}; {_codes(SPLADE_ACTIVATIONS)}"),
        ("Dense activations", _codes(layout.ACTIVATIONS.values())),
        ("without `modules.json`", "mean pooling"),
        ("prompts", "`prompts`, `default_prompt_name`; `include_prompt` of the pooling"),
        ("similarity", _codes(SIMILARITY_FNS)),
        ("shorter features", "`truncate_dim`, of the folder or of a call"),
        ("`precision` of rows", _codes(PRECISIONS)),
        ("`output_value`", _codes(OUTPUT_VALUES)),
        ("`dtype`", _codes(DTYPES)),
        ("weights", _codes(weights)),
        ("tokenizers", f"{_code(layout.TOKENIZER)}, or BERT's {_code(layout.VOCABULARY)}"),
    ]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: object) -> str:
    return f"`{text}`"


def _codes(texts) -> str:
    return ", ".join(map(_code, texts))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
