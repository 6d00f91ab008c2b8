"""Writing a model folder that sentence-transformers 2 to 6, transformers and sentcore read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from sentcore.checkpoint import layout
from sentcore.checkpoint.families import family_of
from sentcore.checkpoint.load import Checkpoint
from sentcore.errors import ArgumentValueError
from sentcore.outputs import Dense, Pooling
from sentcore.outputs.specs import LAYER_POOLING_MODES, POOLING_MODES

_ACTIVATION_PATHS = {ours: path for path, ours in layout.ACTIVATIONS.items()}


def save_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    encoder_state: dict[str, torch.Tensor],
    stages: Sequence[nn.Module],
    *,
    max_length: int,
    prompts: dict[str, str],
    default_prompt_name: str | None,
    similarity_fn_name: str,
    truncate_dim: int | None,
) -> None:
    """Writes `folder`, each file under a temporary name first, so that a crash leaves no half file.

    Args:
        folder: made where it is absent; files of the same names are replaced.
        checkpoint: what the model was loaded from: its config.json and tokenizer are carried over.
        encoder_state: the encoder's tensors under our names.
        stages: the modules behind the encoder.
        The rest is what the folder's settings files hold.
    """
    if folder.exists() and not folder.is_dir():
        raise ArgumentValueError(f"folder is {folder}, a file; accepted: a folder, or a path where none is yet")
    for stage in stages:
        if isinstance(stage, Pooling):
            _pooling_config(stage, checkpoint.config.hidden_size)  # refused before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    names = family_of(checkpoint.hf_config, folder / layout.CONFIG).NAMES
    _tensors(folder / layout.SAFETENSORS, names.to_hf(encoder_state))
    config = {**checkpoint.hf_config, "dtype": _dtype_name(encoder_state)}
    config.pop("torch_dtype", None)
    _json(folder / layout.CONFIG, config)
    for name in layout.TOKENIZER_FILES:
        source = checkpoint.tokenizer_folder / name
        if source.is_file() and source.resolve() != (folder / name).resolve():
            shutil.copyfile(source, folder / name)
    entries = [{"idx": 0, "name": "0", "path": "", "type": layout.LEGACY_MODULE_TYPE["Transformer"]}]
    for index, stage in enumerate(stages, start=1):
        kind = type(stage).__name__
        path = f"{index}_{kind}"
        entries.append({"idx": index, "name": str(index), "path": path, "type": layout.LEGACY_MODULE_TYPE[kind]})
        (folder / path).mkdir(exist_ok=True)
        if isinstance(stage, Pooling):
            _json(folder / path / layout.CONFIG, _pooling_config(stage, checkpoint.config.hidden_size))
        elif isinstance(stage, Dense):
            _dense(folder / path, stage)
    _json(folder / layout.MODULES, entries)
    _json(
        folder / layout.TRANSFORMER_CONFIGS[0],
        {"max_seq_length": max_length, "do_lower_case": checkpoint.do_lower_case},
    )
    _json(
        folder / layout.SENTENCE_CONFIG,
        {
            "prompts": prompts,
            "default_prompt_name": default_prompt_name,
            "similarity_fn_name": similarity_fn_name,
            "truncate_dim": truncate_dim,
        },
    )


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
    _json(
        folder / layout.CONFIG,
        {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": linear.bias is not None,
            "activation_function": _ACTIVATION_PATHS[stage.activation],
        },
    )
    _tensors(folder / layout.SAFETENSORS, stage.state_dict())


def _dtype_name(state: dict[str, torch.Tensor]) -> str:
    return str(next(iter(state.values())).dtype).removeprefix("torch.")


def _tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(cpu, temporary, metadata={"format": "pt"})
    os.replace(temporary, path)


def _json(path: Path, value: dict | list) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
