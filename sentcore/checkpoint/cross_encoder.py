"""A cross-encoder's folder, read and checked: an encoder, its classification head, and how pairs of texts go in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from sentcore.checkpoint import files, layout
from sentcore.checkpoint.classification_heads import Head, head_of
from sentcore.checkpoint.families import family_of
from sentcore.checkpoint.families.reading import only
from sentcore.checkpoint.load import text_limits
from sentcore.checkpoint.modules import module_kinds
from sentcore.checkpoint.naming import Names
from sentcore.checkpoint.refusals import refuse_adapter, refuse_quantized
from sentcore.checkpoint.weights import check_tensor, encoder_state, read_tensors
from sentcore.config import EncoderConfig
from sentcore.errors import CheckpointError, MissingFileError
from sentcore.outputs.specs import ClassificationHeadSpec

_CLASS = "ForSequenceClassification"
# What transformers' tokenizers tell a pair's two texts apart by token types; a folder that names none has its model's.
_TYPED_TOKENIZERS = ("BertTokenizer", "ElectraTokenizer")
_TYPED_MODELS = ("bert", "electra", "nomic_bert")


@dataclass(frozen=True)
class CrossEncoderCheckpoint:
    """What a cross-encoder's folder holds.

    Attributes:
        tokenizer_folder: where tokenizer.json or vocab.txt lies.
        config: the encoder's architecture; `hf_config` is config.json as it was read.
        state_dict: the encoder's tensors under our names, float32 on the CPU; head_state the head's.
        head: the head's form.
        prefix: what stands before the encoder's names in the file.
        id2label: [num_labels] number -> name.
        max_length: tokens a pair is cut at.
        do_lower_case: lower-case the texts first, whatever the tokenizer does.
        token_types: whether the second text's tokens have the type 1.
        activation: the dotted name of what is applied to scores, None where the folder names none.
        activation_source: the file that names it.
    """

    folder: Path
    tokenizer_folder: Path
    config: EncoderConfig
    hf_config: dict
    state_dict: dict[str, torch.Tensor] = field(repr=False)
    head_state: dict[str, torch.Tensor] = field(repr=False)
    head: ClassificationHeadSpec
    prefix: str
    id2label: dict[int, str]
    max_length: int
    do_lower_case: bool
    token_types: bool
    activation: str | None
    activation_source: Path


def load_cross_encoder(folder: str | Path) -> CrossEncoderCheckpoint:
    """Reads a ...ForSequenceClassification checkpoint, bare or as sentence-transformers 6 writes it.

    Raises:
        MissingFileError: the folder or a file of it is absent.
        CheckpointError: a file is damaged, contradicts another, or asks for something not supported; or there is no head.
        NonFiniteError: a weight is NaN or infinite.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"model folder {folder} does not exist; check the path")
    has_modules, transformer = _transformer(folder)
    refuse_adapter(folder, transformer)
    path = transformer / layout.CONFIG
    values = files.read_json(path)
    refuse_quantized(values, path)
    family = family_of(values, path)
    config = family.config_from_hf(values, path)
    head = head_of(family, path)
    tensors, source = read_tensors(transformer)
    id2label = _labels(values, path, tensors)
    spec = head.spec(values, path, config, len(id2label))
    head_state = _head_state(tensors, source, head, spec, family.NAMES)
    _check_class(values, path)
    max_length, do_lower_case = text_limits(transformer, config, settings=has_modules)
    activation, activation_source = _activation(folder, values, path, has_modules)
    return CrossEncoderCheckpoint(
        folder=folder,
        tokenizer_folder=transformer,
        config=config,
        hf_config=values,
        state_dict=encoder_state(tensors, source, config, family),
        head_state=head_state,
        head=spec,
        prefix=_prefix(tensors, family.NAMES),
        id2label=id2label,
        max_length=max_length,
        do_lower_case=do_lower_case,
        token_types=_token_types(transformer, values),
        activation=activation,
        activation_source=activation_source,
    )


def _transformer(folder: Path) -> tuple[bool, Path]:
    """(whether there is a modules.json, the Transformer's folder)."""
    path = folder / layout.MODULES
    if not files.has(path):
        return False, folder
    entries = files.read_json(path, list)
    kinds = module_kinds(entries, path)
    if kinds != ["Transformer"]:
        raise CheckpointError(
            f"{path} names the modules {files.shown(kinds)}; accepted for a cross-encoder: Transformer alone. With Pooling behind it "
            "the folder is a sentence encoder's: use SentenceEncoder"
        )
    transformer = files.inside(
        folder, entries[0].get("path"), f"{path}: path of module {files.shown(entries[0].get('idx'))}"
    )
    for name in layout.TRANSFORMER_CONFIGS:
        settings = transformer / name
        if files.has(settings):
            given = files.read_json(settings)
            only(given, settings, "transformer_task", "sequence-classification")
            for key in ("processing_kwargs", "query_expansion", "tokenizer_name_or_path"):
                only(given, settings, key, {}, "")
            break
    settings = folder / layout.SENTENCE_CONFIG
    if files.has(settings):
        given = files.read_json(settings)
        prompts = files.field(given, "prompts", (dict,), {}, settings)
        default = files.field(given, "default_prompt_name", (str,), None, settings)
        if default is not None and prompts.get(default) != "":
            raise CheckpointError(
                f"{settings}: default_prompt_name is {files.shown(default)}; accepted for a cross-encoder: null. Scores without the "
                "prompt would be wrong"
            )
    return True, transformer


def _labels(values: dict, path: Path, tensors: dict[str, torch.Tensor]) -> dict[int, str]:
    """id2label by transformers' rule: the field, or as many as num_labels says, or two."""
    given = files.field(values, "id2label", (dict,), None, path)
    if given is None:
        # Without a head of its own a model has one label in sentence-transformers, two in transformers.
        default = 2 if _is_classifier(values) else 1
        count = files.field(values, "num_labels", (int,), default, path)
        rows = max((tensor.shape[0] for tensor in tensors.values() if tensor.dim()), default=0)
        if count > rows:  # before a name is made for each
            raise CheckpointError(
                f"{path}: num_labels is {files.shown(count)}; accepted: at most {rows}, the rows of the largest tensor. Check "
                "that both files are of one model"
            )
        given = {str(label): f"LABEL_{label}" for label in range(count)}
    if not given or sorted(given) != sorted(map(str, range(len(given)))):
        raise CheckpointError(
            f"{path}: id2label has the keys {files.shown(sorted(given))}; accepted: 0, 1, ... with one name each, at least one"
        )
    return {label: str(given[str(label)]) for label in range(len(given))}


def _is_classifier(values: dict) -> bool:
    architectures = values.get("architectures")
    return isinstance(architectures, list) and any(str(name).endswith(_CLASS) for name in architectures)


def _check_class(values: dict, path: Path) -> None:
    """Token classification and multiple choice have the same tensors and another meaning."""
    if values.get("architectures") and not _is_classifier(values):
        raise CheckpointError(
            f"{path}: architectures is {files.shown(values['architectures'])}; accepted: a class ...{_CLASS}. The head of another "
            "class means something else"
        )


def _prefix(tensors: dict[str, torch.Tensor], names: Names) -> str:
    found = (prefix for prefix in names.prefixes if any(name.startswith(prefix) for name in tensors))
    return next(found, names.prefixes[0])


def _head_state(
    tensors: dict[str, torch.Tensor], source: Path, head: Head, spec: ClassificationHeadSpec, names: Names
) -> dict[str, torch.Tensor]:
    """The head's tensors under our names, complete, float32."""
    bare = {names.without_prefix(name): (name, tensor) for name, tensor in tensors.items()}
    hidden, labels = spec.hidden_size, spec.num_labels
    shapes = {
        "dense.weight": (hidden, hidden),
        "dense.bias": (hidden,) if spec.dense_bias else None,
        "norm.weight": (hidden,) if spec.norm else None,
        "norm.bias": (hidden,) if spec.norm and spec.norm_bias else None,
        "output.weight": (labels, hidden),
        "output.bias": (labels,),
    }
    stems, prefixed = head.names(""), head.names(_prefix(tensors, names))
    state, missing, unexpected = {}, [], []
    for ours, shape in shapes.items():
        part, _, suffix = ours.partition(".")
        if part not in stems:
            continue
        found = bare.get(f"{stems[part]}.{suffix}")
        if shape is None:
            unexpected += [found[0]] if found is not None else []
        elif found is None:
            missing.append(f"{prefixed[part]}.{suffix}")
        else:
            check_tensor(found[1], shape, f"{source}: {found[0]}")
            state[ours] = found[1].to(torch.float32)
    if missing:
        raise CheckpointError(
            f"{source} lacks {', '.join(missing)}, the classification head, so it is no cross-encoder; accepted: a "
            f"checkpoint of a class ...{_CLASS}. For sentence features use SentenceEncoder"
        )
    if unexpected:
        raise CheckpointError(
            f"{source} holds {', '.join(unexpected)}, which config.json says the head has not; accepted: the tensors it "
            "describes. Check that both files are of one model"
        )
    return state


def _token_types(folder: Path, values: dict) -> bool:
    path = folder / layout.TOKENIZER_CONFIG
    given = files.read_json(path) if files.has(path) else {}
    only(given, path, "truncation_side", "right")
    inputs = files.field(given, "model_input_names", (list,), None, path)
    if inputs is not None:
        return "token_type_ids" in inputs
    name = files.field(given, "tokenizer_class", (str,), None, path)
    if name is None:
        return values.get("model_type") in _TYPED_MODELS
    return name.removesuffix("Fast") in _TYPED_TOKENIZERS


def _activation(folder: Path, values: dict, path: Path, has_modules: bool) -> tuple[str | None, Path]:
    """The dotted name by sentence-transformers' order: its own file, its key in config.json, the key before version 4."""
    own = folder / layout.SENTENCE_CONFIG
    if has_modules and files.has(own):
        name = files.field(files.read_json(own), "activation_fn", (str,), None, own)
        if name is not None:
            return name, own
    section = files.field(values, "sentence_transformers", (dict,), {}, path)
    if "activation_fn" in section:
        return files.field(section, "activation_fn", (str,), None, path), path
    return files.field(values, "sbert_ce_default_activation_function", (str,), None, path), path
