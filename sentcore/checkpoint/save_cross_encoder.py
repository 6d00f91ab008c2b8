"""Writing a cross-encoder's folder that sentence-transformers (4 to 6), transformers and sentcore read."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from sentcore.checkpoint import files, layout
from sentcore.checkpoint.classification_heads import head_of
from sentcore.checkpoint.cross_encoder import CrossEncoderCheckpoint
from sentcore.checkpoint.families import family_of
from sentcore.checkpoint.save import dtype_name, make_folder, write_json, write_tensors


def save_cross_encoder(
    folder: Path,
    checkpoint: CrossEncoderCheckpoint,
    encoder_state: dict[str, torch.Tensor],
    head_state: dict[str, torch.Tensor],
    *,
    max_length: int,
    activation: str,
) -> None:
    """Writes `folder`, each file under a temporary name first, so that a crash leaves no half file.

    Args:
        folder: made where it is absent; files of the same names are replaced.
        checkpoint: what the model was loaded from: its config.json and tokenizer are carried over.
        encoder_state: the encoder's tensors under our names; head_state the head's.
        max_length: tokens a pair is cut at.
        activation: the dotted name of what is applied to scores.
    """
    make_folder(folder)
    path = folder / layout.CONFIG
    family = family_of(checkpoint.hf_config, path)
    prefix = checkpoint.prefix
    # With the prefix, as transformers' own classes with a head keep them.
    tensors = {prefix + name: tensor for name, tensor in family.NAMES.to_hf(encoder_state).items()}
    stems = head_of(family, path).names(prefix)
    for ours, tensor in head_state.items():
        part, _, suffix = ours.partition(".")
        tensors[f"{stems[part]}.{suffix}"] = tensor
    write_tensors(folder / layout.SAFETENSORS, tensors)

    config = {**checkpoint.hf_config, "dtype": dtype_name(encoder_state)}
    for old in ("torch_dtype", "sbert_ce_default_activation_function", "num_labels"):
        config.pop(old, None)
    config["id2label"] = {str(label): name for label, name in checkpoint.id2label.items()}
    config["label2id"] = {name: label for label, name in checkpoint.id2label.items()}
    config["sentence_transformers"] = {**(config.get("sentence_transformers") or {}), "activation_fn": activation}
    write_json(path, config)

    source = checkpoint.tokenizer_folder
    for name in layout.TOKENIZER_FILES:
        if files.has(source / name) and (source / name).resolve() != (folder / name).resolve():
            shutil.copyfile(source / name, folder / name)
    tokenizer = source / layout.TOKENIZER_CONFIG
    settings = files.read_json(tokenizer) if files.has(tokenizer) else {}
    write_json(folder / layout.TOKENIZER_CONFIG, {**settings, "model_max_length": max_length})

    write_json(folder / layout.MODULES, [{"idx": 0, "name": "0", "path": "", "type": layout.TRANSFORMER_TYPE}])
    write_json(
        folder / layout.TRANSFORMER_CONFIGS[0],
        {
            "transformer_task": "sequence-classification",
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": "scores",
            "max_seq_length": max_length,
            "do_lower_case": checkpoint.do_lower_case,
        },
    )
    write_json(
        folder / layout.SENTENCE_CONFIG,
        {"model_type": "CrossEncoder", "activation_fn": activation, "prompts": {}, "default_prompt_name": None},
    )
