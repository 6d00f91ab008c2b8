"""Loads the compiled part, `sentcore._C`, or says why it is absent, and tells what each op runs on here.

Importing this module is what registers the compiled kernels with torch; without them every op runs in plain PyTorch.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch  # before _C, whose symbols are found in torch's libraries

from sentcore._archs import numbers, why_not_covered
from sentcore._version import __version__

OPS = (
    "qkv_projection",
    "varlen_attention",
    "bias_gelu",
    "bias_gelu_layer_norm",
    "gated_activation",
    "add_layer_norm",
    "linear",
    "linear_add_layer_norm",
    "embedding_layer_norm",
    "segment_pooling",
    "packed_linear",
    "int8_linear",
    "fp8_linear",
    "encoder_layers",
    "encoder_layer",
)
NATIVE = "native kernel"
PLAIN = "plain PyTorch"
REFUSED = "refused"  # there it is an error, and no slower way
OLDEST_TORCH = (2, 11)
BUILD_REMEDY = (
    "run 'pip install --no-deps .' in sentcore's source folder, where a C++ compiler (and nvcc, for CUDA) is found"
)

_FOLDER = Path(__file__).parent


def build_record(folder: Path = _FOLDER) -> dict[str, Any]:
    """{"kind", "why_not_more", "kernel_choices"} as the build left it; empty in a checkout that was never installed."""
    try:
        return json.loads((folder / "_build_record.json").read_text())
    except (OSError, ValueError):
        return {}


def _load(
    torch_version: str = torch.__version__,
    folder: Path = _FOLDER,
    load: Callable[[str], ModuleType] = importlib.import_module,
) -> tuple[ModuleType | None, str | None]:
    """(the extension, None), or (None, why it is absent and what to do)."""
    here = [folder / f"_C{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    if not any(file.is_file() for file in here):
        others = sorted(file.name for file in folder.glob("_C.*") if file.suffix in (".so", ".pyd"))
        if others:
            return None, f"the extension was built for another Python ({others[0]}); {BUILD_REMEDY}"
        why = build_record(folder).get("why_not_more")
        said = f"sentcore was installed without it: {why}" if why else "this copy of sentcore was never installed"
        return None, f"the extension is not built ({said}); {BUILD_REMEDY}"
    if numbers(torch_version) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        return None, (
            f"torch {torch_version} is older than {oldest}, the oldest the extension runs on; "
            f"pip install 'torch>={oldest}'"
        )
    try:
        return load("sentcore._C"), None
    except ImportError as error:
        return None, f"the extension is built but does not load ({error}); {BUILD_REMEDY}"


_extension, WHY_ABSENT = _load()
_compiled: dict[str, Any] = _extension.build_info() if _extension else {}


def extension() -> ModuleType | None:
    """`sentcore._C`, or None; then WHY_ABSENT says why."""
    return _extension


def build_kind() -> str | None:
    """ "cuda", "cpu" or "none", as the installation chose; None in a copy that was never installed."""
    return build_record().get("kind")


# ---- which GPUs the compiled kernels run on -----------------------------------------------------------------------


def _why_plain_on(index: int) -> str | None:
    """Why CUDA device `index` runs none of the compiled kernels, or None when it does."""
    if _extension is None:
        return WHY_ABSENT
    if not _compiled["cuda"]:
        why = build_record().get("why_not_more") or "nvcc was not used when it was installed"
        return f"sentcore was installed without CUDA kernels: {why}"
    if torch.version.hip:
        return "this torch drives AMD GPUs (ROCm), and sentcore's kernels are for NVIDIA GPUs"
    return why_not_covered(
        torch.cuda.get_device_name(index),
        torch.cuda.get_device_capability(index),
        _compiled["archs"],
        _compiled["cuda_toolkit"],
        _driver(),
    )


def _driver() -> str | None:
    """The CUDA release that the NVIDIA driver is for, or None where it does not say."""
    raw = getattr(torch._C, "_cuda_getDriverVersion", lambda: None)()
    return f"{raw // 1000}.{raw % 1000 // 10}" if raw else None


FP8_SINCE = (8, 9)  # the compute capability that first multiplies 8-bit floating-point numbers


@torch.compiler.assume_constant_result
def why_no_fp8(device: torch.device) -> str | None:
    """Why the CUDA device cannot run the kernels of 8-bit floating-point products, or None when it can."""
    index = torch.cuda.current_device() if device.index is None else device.index
    if index not in _fp8_reasons:
        _fp8_reasons[index] = _why_no_fp8_on(index)
    return _fp8_reasons[index]


_fp8_reasons: dict[int, str | None] = {}


def _why_no_fp8_on(index: int) -> str | None:
    why = _why_plain_on(index)
    if why is not None:
        return why
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    if capability < FP8_SINCE:
        return (
            f"{name} has compute capability {capability[0]}.{capability[1]}, and 8-bit floating-point products need "
            f"{FP8_SINCE[0]}.{FP8_SINCE[1]} or later"
        )
    archs = _compiled["fp8_archs"]
    if not archs:
        return (
            f"sentcore was compiled without kernels of 8-bit floating-point products, for {', '.join(_compiled['archs'])} "
            "alone; install it again without SENTCORE_CUDA_ARCHS"
        )
    return why_not_covered(name, capability, archs, _compiled["cuda_toolkit"], _driver())


def why_plain_on(device: torch.device) -> str | None:
    """Why a CUDA device runs none of the compiled kernels, or None when it does."""
    return _why_plain_on(torch.cuda.current_device() if device.index is None else device.index)


# Called once, with the reason, when a CUDA device is met that the compiled CUDA kernels do not run on. The ops register
# here what puts their plain PyTorch kernels in the place of the compiled ones.
on_unsupported_device: list[Callable[[str], None]] = []

_seen: dict[int, bool] = {}  # CUDA device index -> whether it runs the compiled kernels
_said: set[str] = set()


def ensure_device(device: torch.device) -> None:
    """Makes ops on `device` run on something that works there; call it before an op, it costs next to nothing.

    A CUDA device that the compiled kernels do not run on gets plain PyTorch instead, and one warning that says why. As
    torch dispatches by kind of device, that then holds for every CUDA device of the process.
    """
    if device.type == "cuda":
        _check_cuda_device(device)


# A compiled graph checks the device while it is traced, not at every call.
@torch.compiler.assume_constant_result
def _check_cuda_device(device: torch.device) -> bool:
    index = torch.cuda.current_device() if device.index is None else device.index
    if index not in _seen:
        reason = _why_plain_on(index)
        _seen[index] = reason is None
        if reason is not None and reason not in _said:
            _said.add(reason)
            warnings.warn(f"ops on CUDA devices run in plain PyTorch: {reason}", RuntimeWarning, stacklevel=3)
            if _compiled.get("cuda"):
                for hook in on_unsupported_device:
                    hook(reason)
    return _seen[index]


# ---- what `sentcore info` shows -----------------------------------------------------------------------------------


def _devices() -> list[dict[str, Any]]:
    devices = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        reason = _why_plain_on(index)
        devices.append(
            {
                "device": f"cuda:{index}",
                "name": torch.cuda.get_device_name(index),
                "capability": torch.cuda.get_device_capability(index),
                "runs_native": reason is None,
                "why_not": reason,
                "why_no_fp8": _why_no_fp8_on(index),
            }
        )
    return devices


def _runs(op: str, kind: str, devices: list[dict[str, Any]]) -> dict[str, str | None]:
    """What `op` runs on for devices of `kind` ("cpu" or "cuda"), and why not on a kernel of ours."""
    fp8 = kind == "cuda" and op == "fp8_linear"
    otherwise = REFUSED if fp8 else PLAIN
    if _extension is None:
        return {"runs": otherwise, "why_not_native": WHY_ABSENT}
    if kind == "cuda" and not _compiled["cuda"]:
        return {"runs": otherwise, "why_not_native": _why_plain_on(0)}
    if op not in _compiled["ops"][kind]:
        kernel = {"cpu": "CPU", "cuda": "CUDA"}[kind]
        return {
            "runs": otherwise,
            "why_not_native": f"sentcore {__version__} has no {kernel} kernel for it",
        }
    reasons = [d["why_no_fp8" if fp8 else "why_not"] for d in devices] if kind == "cuda" else []
    reasons = [reason for reason in reasons if reason]
    return {"runs": otherwise if reasons else NATIVE, "why_not_native": reasons[0] if reasons else None}


def build_info() -> dict[str, Any]:
    """What is compiled in, for which GPUs, what is seen here, and what each op runs on.

    Returns:
        dict: "version", "torch" (its version), "extension" ({"built", "why_absent", "why_not_more", "file", "compiler",
        "torch_target", "cpu", "cpu_isa" (what its kernels use of this machine), "cuda", "cuda_toolkit", "archs", "fp8_archs" (those
        of 8-bit floating-point products), "sm_90a" (kernels of compute capability 9.0's own; sentcore._kernels says when they are
        taken)}), "devices" (a dict for each CUDA device: "device", "name", "capability",
        "runs_native", "why_not", "why_no_fp8") and "ops" (op -> {"cpu", "cuda"} -> {"runs": "native kernel", "plain PyTorch"
        or "refused", "why_not_native": a sentence with the remedy, or None}).
    """
    devices = _devices()
    return {
        "version": __version__,
        "torch": torch.__version__,
        "extension": {
            "built": _extension is not None,
            "why_absent": WHY_ABSENT,
            "why_not_more": build_record().get("why_not_more") or None,
            "file": getattr(_extension, "__file__", None),
            "compiler": _compiled.get("compiler"),
            "torch_target": _compiled.get("torch_target"),
            "cpu": _compiled.get("cpu", False),
            "cpu_isa": _compiled.get("cpu_isa"),
            "cuda": _compiled.get("cuda", False),
            "cuda_toolkit": _compiled.get("cuda_toolkit"),
            "archs": _compiled.get("archs", []),
            "fp8_archs": _compiled.get("fp8_archs", []),
            "sm_90a": _compiled.get("sm_90a", False),
        },
        "devices": devices,
        "ops": {op: {kind: _runs(op, kind, devices) for kind in ("cpu", "cuda")} for op in OPS},
    }
