"""A model folder, read and checked: everything SentenceEncoder is built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from sentcore.checkpoint import files, layout
from sentcore.checkpoint.families import family_of
from sentcore.checkpoint.heads import read_heads
from sentcore.checkpoint.modules import module_folders, read_modules
from sentcore.checkpoint.refusals import refuse_adapter, refuse_quantized
from sentcore.checkpoint.weights import encoder_state, read_tensors
from sentcore.config import EncoderConfig
from sentcore.errors import CheckpointError, MissingFileError
from sentcore.outputs.specs import Heads, OutputSpec

SIMILARITY_FNS = ("cosine", "dot", "euclidean", "manhattan")


@dataclass(frozen=True)
class Checkpoint:
    """What a model folder holds.

    Attributes:
        folder: where it lies.
        config: the encoder's architecture; `hf_config` is config.json as it was read.
        state_dict: the encoder's tensors under our names, float32 on the CPU.
        modules: the stages behind the encoder, in order; none for SPLADE, which gives sparse rows alone.
        sentence_embedding_dimension: E, what they end in.
        max_length: tokens a text is cut at.
        do_lower_case: lower-case the text first, whatever the tokenizer does.
        heads: sparse and ColBERT heads beside them.
        prompts, default_prompt_name, similarity_fn_name, truncate_dim: from config_sentence_transformers.json.
    """

    folder: Path
    tokenizer_folder: Path
    config: EncoderConfig
    hf_config: dict
    state_dict: dict[str, torch.Tensor] = field(repr=False)
    modules: tuple[OutputSpec, ...]
    sentence_embedding_dimension: int
    max_length: int
    do_lower_case: bool
    heads: Heads = field(repr=False)
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str | None
    truncate_dim: int | None


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Reads a folder in sentence-transformers' layout (any of its three generations) or a bare checkpoint.

    Raises:
        MissingFileError: the folder or a file of it is absent.
        CheckpointError: a file is damaged, contradicts another, or asks for something not supported.
        NonFiniteError: a weight is NaN or infinite.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"model folder {folder} does not exist; check the path")
    folders = module_folders(folder)
    transformer = folders[0][1]
    refuse_adapter(folder, transformer)
    path = transformer / layout.CONFIG
    values = files.read_json(path)
    refuse_quantized(values, path)
    family = family_of(values, path)
    config = family.config_from_hf(values, path)
    modules, dimension = read_modules(folders, config.hidden_size)
    tensors, source = read_tensors(transformer)
    state_dict = encoder_state(tensors, source, config, family)
    heads = read_heads(folder, folders, family, values, config, tensors, source)
    max_length, do_lower_case = text_limits(transformer, config)
    return Checkpoint(
        folder=folder,
        tokenizer_folder=transformer,
        config=config,
        hf_config=values,
        state_dict=state_dict,
        modules=modules,
        sentence_embedding_dimension=dimension,
        max_length=max_length,
        do_lower_case=do_lower_case,
        heads=heads,
        **_sentence_settings(folder),
    )


def text_limits(folder: Path, config: EncoderConfig, settings: bool = True) -> tuple[int, bool]:
    """(max_length, do_lower_case) by sentence-transformers' rule; without `settings` its own file is not looked at."""
    max_length, do_lower_case = None, False
    for name in layout.TRANSFORMER_CONFIGS if settings else ():
        path = folder / name
        if files.has(path):
            values = files.read_json(path)
            max_length = files.field(values, "max_seq_length", (int,), None, path)
            do_lower_case = files.field(values, "do_lower_case", (bool,), False, path)
            break
    longest = config.max_length
    path = folder / layout.TOKENIZER_CONFIG
    if max_length is None and files.has(path):
        max_length = files.field(files.read_json(path), "model_max_length", (int, float), None, path)
    max_length = longest if max_length is None else min(max_length, longest)
    if max_length < 3:
        raise CheckpointError(f"{folder}: the maximum length is {files.shown(max_length)}; accepted: at least 3 tokens")
    return int(max_length), do_lower_case


def _sentence_settings(folder: Path) -> dict:
    path = folder / layout.SENTENCE_CONFIG
    values = files.read_json(path) if files.has(path) else {}
    prompts = files.field(values, "prompts", (dict,), {}, path)
    if not all(isinstance(text, str) for text in prompts.values()):
        raise CheckpointError(f"{path}: prompts is {files.shown(prompts)}; accepted: an object, name -> text")
    default = files.field(values, "default_prompt_name", (str,), None, path)
    if default is not None and default not in prompts:
        raise CheckpointError(
            f"{path}: default_prompt_name is {files.shown(default)}; accepted: one of {files.shown(sorted(prompts))}"
        )
    similarity = files.field(values, "similarity_fn_name", (str,), None, path)
    if similarity is not None and similarity not in SIMILARITY_FNS:
        raise CheckpointError(
            f"{path}: similarity_fn_name is {files.shown(similarity)}; accepted: {', '.join(SIMILARITY_FNS)}"
        )
    truncate_dim = files.field(values, "truncate_dim", (int,), None, path)
    if truncate_dim is not None and truncate_dim < 1:
        raise CheckpointError(f"{path}: truncate_dim is {truncate_dim}; accepted: at least 1")
    return {
        "prompts": prompts,
        "default_prompt_name": default,
        "similarity_fn_name": similarity,
        "truncate_dim": truncate_dim,
    }
