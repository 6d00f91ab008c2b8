"""Heads beside the pooling: bge-m3's two torch files, and the masked-LM head under SPLADE's pooling, as specs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import torch

from sentcore.checkpoint import layout
from sentcore.checkpoint.families.reading import activation
from sentcore.checkpoint.files import field, has, read_json, shown
from sentcore.checkpoint.naming import MaskedLMNames
from sentcore.checkpoint.torch_files import read_torch_file
from sentcore.checkpoint.weights import check_tensor
from sentcore.config import EncoderConfig
from sentcore.errors import CheckpointError
from sentcore.outputs.specs import SPLADE_ACTIVATIONS, SPLADE_POOLINGS, Heads, LinearSpec, SpladeSpec

_SPECIAL_ROLES = ("cls_token", "eos_token", "sep_token", "pad_token", "unk_token")


def read_heads(
    folder: Path,
    folders: list[tuple[str, Path]],
    family: ModuleType,
    values: dict,
    config: EncoderConfig,
    tensors: dict[str, torch.Tensor],
    source: Path,
) -> Heads:
    """The heads of a model folder.

    Args:
        folder: the model's; `folders` are its modules'.
        family, values, config: the encoder's family, its config.json as read, and the config made of it.
        tensors, source: all of the checkpoint's tensors under their own names, and the file they came from.

    Raises:
        CheckpointError: by file, field or tensor, value found and what is accepted.
        NonFiniteError: a weight is NaN or infinite.
    """
    transformer = folders[0][1]
    splade = folders[-1][1] if folders[-1][0] == "SpladePooling" else None
    _check_task(transformer, folders[0][0], splade)
    sparse = _linear(folder / layout.SPARSE_LINEAR, config.hidden_size, rows=1)
    colbert = _linear(folder / layout.COLBERT_LINEAR, config.hidden_size)
    names: tuple[str, ...] = ()
    if splade is not None:
        if sparse is not None:
            raise CheckpointError(
                f"{folder} holds {layout.SPARSE_LINEAR} beside a SpladePooling in {layout.MODULES}; accepted: one of the "
                "two, as both give sparse features. Remove the one that is not meant"
            )
        sparse = _splade(splade / layout.CONFIG, family, values, transformer / layout.CONFIG, config, tensors, source)
    elif sparse is not None:
        names = _special_tokens(transformer)
    return Heads(sparse, colbert, names)


def masked_lm_names(family: ModuleType, values: dict, path: Path) -> MaskedLMNames:
    """The names of a family's masked-LM head.

    Raises:
        CheckpointError: it is not known.
    """
    names = getattr(family, "MASKED_LM", None)
    if names is None:
        raise CheckpointError(
            f"{path}: model_type is {values.get('model_type')!r}; accepted under SpladePooling: bert, distilbert, roberta, "
            "xlm-roberta, camembert, mpnet, modernbert. The masked-LM head of others is not known here"
        )
    return names


def _check_task(transformer: Path, kind: str, splade: Path | None) -> None:
    """What the Transformer gives its next module: hidden states, or a masked-LM head's logits."""
    default = "fill-mask" if kind == "MLMTransformer" else "feature-extraction"
    wanted = "feature-extraction" if splade is None else "fill-mask"
    path = next((p for p in (transformer / name for name in layout.TRANSFORMER_CONFIGS) if has(p)), None)
    task = default if path is None else field(read_json(path), "transformer_task", (str,), default, path)
    if task != wanted:
        raise CheckpointError(
            f"{path or transformer}: transformer_task is {shown(task)}; accepted: {wanted!r} "
            f"{'without' if splade is None else 'with'} SpladePooling in {layout.MODULES}"
        )


def _linear(path: Path, hidden_size: int, rows: int | None = None) -> LinearSpec | None:
    if not has(path):
        return None
    tensors = read_torch_file(path)
    if set(tensors) != {"weight", "bias"}:
        raise CheckpointError(f"{path} holds {shown(sorted(tensors))}; accepted: weight and bias of one linear layer")
    weight, bias = tensors["weight"], tensors["bias"]
    if rows is None:
        rows = weight.shape[0] if weight.dim() == 2 and weight.shape[0] else 1
    check_tensor(weight, (rows, hidden_size), f"{path}: weight")
    check_tensor(bias, (rows,), f"{path}: bias")
    return LinearSpec(weight.float(), bias.float())


def _special_tokens(folder: Path) -> tuple[str, ...]:
    """The names of cls, eos, sep, pad and unk that the tokenizer's files give."""
    names = []
    for file in (layout.TOKENIZER_CONFIG, layout.SPECIAL_TOKENS):
        path = folder / file
        values = read_json(path) if has(path) else {}
        for role in _SPECIAL_ROLES:
            value = field(values, role, (str, dict), None, path)
            value = field(value, "content", (str,), None, path) if isinstance(value, dict) else value
            if value is not None:
                names.append(value)
    return tuple(dict.fromkeys(names))


def _splade(
    path: Path,
    family: ModuleType,
    values: dict,
    config_path: Path,
    config: EncoderConfig,
    tensors: dict[str, torch.Tensor],
    source: Path,
) -> SpladeSpec:
    settings = read_json(path)
    strategy = _choice(settings, "pooling_strategy", "max", SPLADE_POOLINGS, path)
    function = _choice(settings, "activation_function", "relu", SPLADE_ACTIVATIONS, path)
    for name in ("embedding_dimension", "word_embedding_dimension"):
        width = field(settings, name, (int,), config.vocab_size, path)
        if width != config.vocab_size:
            raise CheckpointError(
                f"{path}: {name} is {shown(width)}; accepted: {config.vocab_size}, the vocabulary, or null"
            )
    names = masked_lm_names(family, values, config_path)
    hidden, vocabulary = config.hidden_size, config.vocab_size

    def present(flag: tuple[str, bool] | None) -> bool:
        return flag is None or field(values, flag[0], (bool,), flag[1], config_path)

    def tensor(*accepted: str, shape: tuple[int, ...]) -> torch.Tensor:
        found = next((name for name in accepted if name in tensors), None)
        if found is None:
            raise CheckpointError(
                f"{source} lacks {accepted[0]}; accepted under SpladePooling: a checkpoint with its masked-LM head. Save "
                "the model with it (AutoModelForMaskedLM)"
            )
        check_tensor(tensors[found], shape, f"{source}: {found}")
        return tensors[found].float()

    def pair(stem: str, shape: tuple[int, ...], bias: tuple[str, bool] | None) -> LinearSpec:
        # The first TensorFlow checkpoints call LayerNorm's two gamma and beta.
        weights, biases = (
            [f"{stem}.{suffix}" for suffix in suffixes] for suffixes in (("weight", "gamma"), ("bias", "beta"))
        )
        return LinearSpec(tensor(*weights, shape=shape), tensor(*biases, shape=shape[:1]) if present(bias) else None)

    return SpladeSpec(
        pooling_strategy=strategy,
        activation_function=function,
        activation="gelu" if names.activation is None else activation(values, config_path, *names.activation),
        dense=pair(names.dense, (hidden, hidden), names.dense_bias),
        norm=pair(names.norm, (hidden,), names.norm_bias),
        eps=config.layer_norm_eps,
        decoder=_own_decoder(names, family, values, config_path, tensors, tensor, (vocabulary, hidden)),
        decoder_bias=tensor(*names.bias, shape=(vocabulary,)) if present(names.decoder_bias) else None,
    )


def _own_decoder(names, family, values, path, tensors, tensor, shape) -> torch.Tensor | None:
    """The decoder's weight where it is another than the word embeddings; transformers' rule when a file holds both."""
    name = f"{names.decoder}.weight"
    tied = field(values, "tie_word_embeddings", (bool,), True, path)
    if tied and name not in tensors:
        return None
    decoder = tensor(name, shape=shape)
    state, _ = family.NAMES.to_ours(tensors)
    return None if tied and torch.equal(decoder, state["embeddings.word_embeddings.weight"].float()) else decoder


def _choice(values: dict, name: str, default: str, accepted: tuple[str, ...], path: Path) -> str:
    value = field(values, name, (str,), default, path)
    if value not in accepted:
        raise CheckpointError(f"{path}: {name} is {shown(value)}; accepted: {', '.join(accepted)}")
    return value
