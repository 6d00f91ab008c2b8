"""Writing a model folder that sentence-transformers 2 to 6, transformers and sentcore read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from sentcore.checkpoint import layout
from sentcore.checkpoint.families import family_of
from sentcore.checkpoint.heads import masked_lm_names
from sentcore.checkpoint.load import Checkpoint
from sentcore.errors import ArgumentValueError
from sentcore.model import SentenceModel
from sentcore.model_files import has
from sentcore.outputs import Colbert, Dense, Pooling, SparseLinear, Splade
from sentcore.outputs.specs import LAYER_POOLING_MODES, POOLING_MODES

_ACTIVATION_PATHS = {ours: path for path, ours in layout.ACTIVATIONS.items()}


def save_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    model: SentenceModel,
    *,
    max_length: int,
    prompts: dict[str, str],
    default_prompt_name: str | None,
    similarity_fn_name: str | None,
    truncate_dim: int | None,
) -> None:
    """Writes `folder`, each file under a temporary name first, so that a crash leaves no half file.

    Args:
        folder: made where it is absent; files of the same names are replaced.
        checkpoint: what the model was loaded from: its config.json and tokenizer are carried over.
        model: the encoder, the modules behind it and the heads.
        The rest is what the folder's settings files hold.
    """
    for stage in model.outputs:
        if isinstance(stage, Pooling):
            _pooling_config(stage, checkpoint.config.hidden_size)  # refused before anything is written
    make_folder(folder)
    encoder_state = model.encoder.state_dict()
    splade = model.sparse if isinstance(model.sparse, Splade) else None
    write_tensors(folder / layout.SAFETENSORS, _checkpoint_tensors(checkpoint, encoder_state, splade, folder))
    config = {**checkpoint.hf_config, "dtype": dtype_name(encoder_state)}
    config.pop("torch_dtype", None)
    write_json(folder / layout.CONFIG, config)
    for name in layout.TOKENIZER_FILES:
        source = checkpoint.tokenizer_folder / name
        if has(source) and source.resolve() != (folder / name).resolve():
            shutil.copyfile(source, folder / name)
    first = "MLMTransformer" if splade is not None else "Transformer"
    entries = [{"idx": 0, "name": "0", "path": "", "type": layout.LEGACY_MODULE_TYPE[first]}]
    stages = {Splade: "SpladePooling"}
    for index, stage in enumerate([splade] if splade is not None else model.outputs, start=1):
        kind = stages.get(type(stage), type(stage).__name__)
        path = f"{index}_{kind}"
        entries.append({"idx": index, "name": str(index), "path": path, "type": layout.LEGACY_MODULE_TYPE[kind]})
        (folder / path).mkdir(exist_ok=True)
        if isinstance(stage, Pooling):
            write_json(folder / path / layout.CONFIG, _pooling_config(stage, checkpoint.config.hidden_size))
        elif isinstance(stage, Dense):
            _dense(folder / path, stage)
        elif isinstance(stage, Splade):
            write_json(folder / path / layout.CONFIG, _splade_config(stage))
    for name, head, kind in (
        (layout.SPARSE_LINEAR, model.sparse, SparseLinear),
        (layout.COLBERT_LINEAR, model.colbert, Colbert),
    ):
        if isinstance(head, kind):
            _torch_file(folder / name, head.linear.state_dict())
    write_json(folder / layout.MODULES, entries)
    write_json(
        folder / layout.TRANSFORMER_CONFIGS[0],
        {"max_seq_length": max_length, "do_lower_case": checkpoint.do_lower_case},
    )
    write_json(
        folder / layout.SENTENCE_CONFIG,
        {
            "prompts": prompts,
            "default_prompt_name": default_prompt_name,
            "similarity_fn_name": similarity_fn_name,
            "truncate_dim": truncate_dim,
            **({} if splade is None else {"model_type": "SparseEncoder"}),
        },
    )


def refuse_rounded(dtype: torch.dtype) -> None:
    """Raises ArgumentValueError for a model whose weights are rounded to 8 bits."""
    name = {torch.int8: "int8", torch.float8_e4m3fn: "fp8"}.get(dtype)
    if name is not None:
        raise ArgumentValueError(
            f"save_pretrained of an {name} model; accepted: float32, bfloat16, float16. Folders hold the weights unrounded: "
            f"save it from a model loaded with dtype='float32', and load that with dtype={name!r}"
        )


def make_folder(folder: Path) -> None:
    """The folder, and those above it."""
    if folder.exists() and not folder.is_dir():
        raise ArgumentValueError(f"folder is {folder}, a file; accepted: a folder, or a path where none is yet")
    folder.mkdir(parents=True, exist_ok=True)


def _checkpoint_tensors(
    checkpoint: Checkpoint, encoder_state: dict[str, torch.Tensor], splade: Splade | None, folder: Path
) -> dict[str, torch.Tensor]:
    """The weights under the family's names; with a masked-LM head under those of transformers' ForMaskedLM class."""
    family = family_of(checkpoint.hf_config, folder / layout.CONFIG)
    tensors = family.NAMES.to_hf(encoder_state)
    if splade is None:
        return tensors
    names = masked_lm_names(family, checkpoint.hf_config, folder / layout.CONFIG)
    tensors = {family.NAMES.prefixes[0] + name: tensor for name, tensor in tensors.items()}
    for stem, module in ((names.dense, splade.dense), (names.norm, splade.norm)):
        tensors |= {f"{stem}.{name}": tensor for name, tensor in module.state_dict().items()}
    if not splade.tied:
        tensors[f"{names.decoder}.weight"] = splade.decoder.weight
    if splade.decoder.bias is not None:
        tensors[names.bias[0]] = splade.decoder.bias
    return tensors


def _splade_config(stage: Splade) -> dict:
    return {
        "pooling_strategy": stage.spec.pooling_strategy,
        "activation_function": stage.spec.activation_function,
        "word_embedding_dimension": stage.decoder.out_features,
    }


def _pooling_config(stage: Pooling, hidden_size: int) -> dict:
    """The legacy keys, which every version reads; they concatenate in one fixed order, so another one is refused."""
    modes = stage.spec.modes
    unnamed = [mode for mode in modes if mode in LAYER_POOLING_MODES]
    if unnamed:
        raise ArgumentValueError(
            f"pooling modes {list(modes)} cannot be saved: no pooling config of a folder has a name for {unnamed[0]!r}, so "
            f"every reader would pool otherwise; accepted: {', '.join(POOLING_MODES)}. Save with one of these, and load "
            f"with SentenceEncoder(folder, pooling={list(modes)})"
        )
    ordered = tuple(mode for mode in layout.POOLING_FLAGS.values() if mode in modes)
    if ordered != modes:
        raise ArgumentValueError(
            f"pooling modes {list(modes)} cannot be saved in this order; accepted: the order {list(ordered)}, in which "
            "every reader concatenates them"
        )
    flags = {flag: mode in modes for flag, mode in layout.POOLING_FLAGS.items()}
    return {"word_embedding_dimension": hidden_size, **flags, "include_prompt": stage.spec.include_prompt}


def _dense(folder: Path, stage: Dense) -> None:
    if stage.activation not in _ACTIVATION_PATHS:
        raise ArgumentValueError(
            f"activation {stage.activation!r} cannot be saved; accepted: {', '.join(_ACTIVATION_PATHS)}"
        )
    linear = stage.linear
    write_json(
        folder / layout.CONFIG,
        {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": linear.bias is not None,
            "activation_function": _ACTIVATION_PATHS[stage.activation],
        },
    )
    write_tensors(folder / layout.SAFETENSORS, stage.state_dict())


def dtype_name(state: dict[str, torch.Tensor]) -> str:
    """config.json's name of the tensors' dtype."""
    return str(next(iter(state.values())).dtype).removeprefix("torch.")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A safetensors file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(cpu, temporary, metadata={"format": "pt"})
    os.replace(temporary, path)


def _torch_file(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    torch.save({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, temporary)
    os.replace(temporary, path)


def write_json(path: Path, value: dict | list) -> None:
    """A JSON file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
