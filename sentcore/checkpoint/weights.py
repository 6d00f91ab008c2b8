"""Tensors from a model folder, each checked for name, shape and finite values before anything is built from it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file

from sentcore.checkpoint import layout
from sentcore.checkpoint.files import has, inside, read_json, shown
from sentcore.checkpoint.torch_files import read_torch_file
from sentcore.config import EncoderConfig
from sentcore.errors import CheckpointError, MissingFileError, NonFiniteError
from sentcore.layers import Encoder
from sentcore.model_files import brief

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MAX_HEADER_BYTES = 16 * 2**20  # a hundred bytes a tensor: room for more of them than any encoder has
_OTHER_FORMATS = ("tf_model.h5", "flax_model.msgpack", "rust_model.ot", "model.onnx", "onnx", "openvino")


def read_tensors(folder: Path) -> tuple[dict[str, torch.Tensor], Path]:
    """All tensors of the folder under the names they were saved with, and the file they came from.

    Raises:
        MissingFileError: there are no weights.
        CheckpointError: they are truncated, damaged, or a pickle that holds more than tensors.
    """
    single, index = folder / layout.SAFETENSORS, folder / layout.SAFETENSORS_INDEX
    if has(single):
        return _safetensors(single), single
    if has(index):
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise CheckpointError(
                f"{index}: weight_map is {shown(weight_map)}; accepted: an object, tensor name -> file"
            )
        tensors: dict[str, torch.Tensor] = {}
        for name in sorted(set(weight_map.values())):
            shard = inside(folder, name, f"{index}: weight_map")
            if not has(shard):
                raise MissingFileError(f"{shard} does not exist, but {index} names it; download the folder again")
            part = _safetensors(shard)
            if twice := sorted(tensors.keys() & part.keys()):
                raise CheckpointError(
                    f"{shard} holds {shown(twice)}, which another file that {index} names holds too; accepted: each tensor once. "
                    "Download the folder again"
                )
            tensors |= part
        return tensors, index
    pickled = folder / layout.TORCH_WEIGHTS
    if has(pickled):
        return read_torch_file(pickled), pickled
    others = [name for name in _OTHER_FORMATS if (folder / name).exists()]
    found = f"only {', '.join(others)}" if others else "none of them"
    raise MissingFileError(
        f"{folder} holds no weights sentcore reads (found {found}); accepted: {layout.SAFETENSORS}, "
        f"{layout.SAFETENSORS_INDEX} with its shards, {layout.TORCH_WEIGHTS}. Download or save the model again"
    )


def encoder_state(
    tensors: dict[str, torch.Tensor], source: Path, config: EncoderConfig, family: ModuleType
) -> dict[str, torch.Tensor]:
    """Our state_dict of the encoder, complete, float32, of what `read_tensors` gave.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape than config.json says.
        NonFiniteError: a tensor holds NaN or infinity.
    """
    names = family.NAMES
    layers = config.num_hidden_groups or config.num_hidden_layers
    if layers > len(tensors):  # before as many are built
        raise CheckpointError(
            f"{source} does not fit config.json: it holds {len(tensors)} tensors for {layers} layers; accepted: the tensors of the "
            "encoder that config.json describes. Check that both files are of one model"
        )
    state, unknown = names.to_ours(tensors, source)
    wanted = shapes(config)
    unknown += [names.hf_name(name) for name in state if name not in wanted]
    missing = [names.hf_name(name) for name in wanted if name not in state]
    if missing or unknown:
        raise CheckpointError(
            f"{source} does not fit config.json:{_listed(' missing', missing)}{_listed(' not known', unknown)}; accepted: "
            "the tensors of the encoder that config.json describes. Check that both files are of one model"
        )
    for name, shape in wanted.items():
        check_tensor(state[name], shape, f"{source}: {names.hf_name(name)}")
        state[name] = state[name].to(torch.float32)
    return state


def shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Name (ours) -> shape of every tensor the encoder needs."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Encoder(config).state_dict().items()}


def check_tensor(tensor: torch.Tensor, shape: tuple[int, ...], where: str) -> None:
    """Shape, dtype and finite values of one tensor; `where` names file and tensor."""
    if tuple(tensor.shape) != shape:
        raise CheckpointError(
            f"{where} has shape {list(tensor.shape)}; accepted: {list(shape)}, as the config says. Check that both "
            "files are of one model"
        )
    if tensor.dtype not in _FLOATS:
        raise CheckpointError(
            f"{where} has dtype {tensor.dtype}; accepted: float32, float16, bfloat16, float64. Quantized weights are not "
            "supported; use the original checkpoint"
        )
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise NonFiniteError(
            f"{where} holds {bad} NaN or infinite values of {tensor.numel()}; accepted: finite weights. The checkpoint is "
            "damaged or its training diverged; use an earlier one"
        )


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > MAX_HEADER_BYTES:
            raise ValueError(f"its header is said to have {header} bytes, of at most {MAX_HEADER_BYTES}")
        return load_file(path)
    except Exception as error:  # whatever a header makes torch raise
        raise CheckpointError(
            f"{path} is no whole safetensors file ({brief(error)}); it may be cut off: compare its size and download it again"
        ) from error


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    first = ", ".join(name if len(name) <= 120 else shown(name) for name in sorted(names)[:6])
    return f"{what}: {first}{f' and {len(names) - 6} more' if len(names) > 6 else ''};"
