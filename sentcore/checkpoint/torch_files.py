"""Files of torch.save, which are pickles: tensors alone, and no more of them than the file has bytes for."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

from sentcore.errors import CheckpointError
from sentcore.model_files import brief, shown

_SHARED = 4  # how often a file's bytes may be named; tied weights name theirs twice


def read_torch_file(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a torch file that holds nothing else; `path` is an ordinary file of its folder.

    Raises:
        CheckpointError: it is damaged, or a pickle that holds more than tensors, or tensors larger than the file.
    """
    try:
        _check_archive(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # a pickle can make torch raise anything
        raise CheckpointError(
            f"{path} is no whole file of tensors alone ({brief(error)}); accepted: a torch file that loads with "
            "weights_only=True. Save the model as safetensors"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise CheckpointError(f"{path} holds a {type(tensors).__name__}; accepted: a dict of tensors (a state_dict)")
    if not all(isinstance(name, str) for name in tensors):
        raise CheckpointError(f"{path} holds tensors under the names {shown(list(tensors))}; accepted: texts")
    _check_sizes(path, tensors)
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _check_archive(path: Path) -> None:
    """Refuses a zip archive whose members unpack to more than they are: torch writes none, and would unpack it."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = next((member.filename for member in members if member.compress_type != zipfile.ZIP_STORED), None)
    unpacked, size = sum(member.file_size for member in members), path.stat().st_size
    if packed is not None or unpacked > size:
        what = f"unpacks to {unpacked} bytes from {size}" if packed is None else f"holds {shown(packed)} compressed"
        raise CheckpointError(
            f"{path} {what}; accepted: an archive as torch.save writes it. Save the model as safetensors"
        )


def _check_sizes(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Refuses tensors that are no plain memory, or that repeat the file's bytes until they are many."""
    size, total = path.stat().st_size, 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise CheckpointError(
                f"{path}: {shown(name)} is a {tensor.layout} tensor on {tensor.device}; accepted: plain tensors of floats. Save "
                "the model as safetensors"
            )
        total += tensor.numel() * tensor.element_size()
        if total > _SHARED * size:
            raise CheckpointError(
                f"{path} has {size} bytes, and its tensors up to {shown(name)} would have {total}; accepted: tensors that the "
                "file holds. Save the model as safetensors"
            )
