"""Folders whose weights are not the whole model, or not in floating point."""

from __future__ import annotations

from pathlib import Path

from sentcore.checkpoint import files, layout
from sentcore.errors import CheckpointError


def refuse_adapter(*folders: Path) -> None:
    """Raises CheckpointError where one of the folders holds an adapter beside, or instead of, the weights."""
    for path in dict.fromkeys(folder / layout.ADAPTER_CONFIG for folder in folders):
        if files.has(path):
            values = files.read_json(path)
            raise CheckpointError(
                f"{path}: the folder holds an adapter ({files.shown(values.get('peft_type'))}, of "
                f"{files.shown(values.get('base_model_name_or_path'))}); accepted: whole weights, as without the adapter the features "
                "would be another model's. Merge it with peft's merge_and_unload and save the result with save_pretrained"
            )


def refuse_quantized(values: dict, path: Path) -> None:
    """Raises CheckpointError where config.json, read from `path`, speaks of quantized weights."""
    if values.get("quantization_config"):
        raise CheckpointError(
            f"{path}: quantization_config is set; accepted: unquantized weights. Use the original checkpoint"
        )
