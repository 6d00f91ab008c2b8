"""Loads the compiled part, `sentcore._C`, or says why it is absent, and tells what each op runs on here.

Importing this module is what registers the compiled kernels with torch; without them every op runs in plain PyTorch.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch  # before _C, whose symbols are found in torch's libraries

from sentcore._version import __version__

OPS = (
    "qkv_projection",
    "varlen_attention",
    "bias_gelu",
    "bias_gelu_layer_norm",
    "add_layer_norm",
    "linear",
    "embedding_layer_norm",
    "segment_pooling",
    "packed_linear",
    "int8_linear",
    "encoder_layers",
    "encoder_layer",
)
NATIVE = "native kernel"
PLAIN = "plain PyTorch"
OLDEST_TORCH = (2, 11)
BUILD_REMEDY = (
    "run 'pip install --no-deps .' in sentcore's source folder, where a C++ compiler (and nvcc, for CUDA) is found"
)

_FOLDER = Path(__file__).parent


def _numbers(version: str) -> tuple[int, int]:
    """(13, 0) of "13.0", (2, 13) of "2.13.0+cpu"."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _build_record(folder: Path = _FOLDER) -> dict[str, str]:
    """{"kind", "why_not_more"} as the build left it; empty in a checkout that was never installed."""
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
        why = _build_record(folder).get("why_not_more")
        said = f"sentcore was installed without it: {why}" if why else "this copy of sentcore was never installed"
        return None, f"the extension is not built ({said}); {BUILD_REMEDY}"
    if _numbers(torch_version) < OLDEST_TORCH:
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
    return _build_record().get("kind")


# ---- which GPUs the compiled kernels run on -----------------------------------------------------------------------


def arch_is_covered(capability: tuple[int, int], archs: Iterable[str], ptx: bool = True) -> bool:
    """Whether code for `archs` runs on a GPU of compute capability `capability`.

    Args:
        capability: (major, minor).
        archs: as in the binary's build info. "sm_86" is machine code for 8.6 and later minors of 8, "sm_90a" for 9.0
            alone, "sm_100f" for its family, 10.0 and later minors of 10; "compute_120" is PTX, which the driver
            translates for 12.0 and everything later.
        ptx: False when the driver cannot translate the PTX, so that machine code alone counts.
    """
    for arch in archs:
        parts = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
        if parts is None:
            continue
        kind, major, minor, suffix = parts[1], int(parts[2]), int(parts[3]), parts[4]
        if kind == "compute" and not ptx:
            continue
        if suffix == "a":
            covered = capability == (major, minor)
        elif kind == "sm" or suffix == "f":
            covered = capability[0] == major and capability[1] >= minor
        else:
            covered = capability >= (major, minor)
        if covered:
            return True
    return False


def why_not_covered(
    name: str,
    capability: tuple[int, int],
    archs: list[str],
    toolkit: str,
    driver: str | None,
) -> str | None:
    """None when a binary with `archs`, from CUDA `toolkit`, runs on this GPU under a driver for CUDA `driver`.

    A driver runs machine code of its own major CUDA release and PTX no newer than itself; None means unknown.
    """
    behind = driver is not None and _numbers(driver) < _numbers(toolkit)
    if driver is not None and _numbers(driver)[0] < _numbers(toolkit)[0]:
        return (
            f"sentcore was compiled with CUDA {toolkit}, which the NVIDIA driver here (CUDA {driver}) cannot run; "
            f"update the driver, or install sentcore again with an nvcc of CUDA {_numbers(driver)[0]}"
        )
    if arch_is_covered(capability, archs, ptx=not behind):
        return None
    return (
        f"sentcore holds no code for {name} (compute capability {capability[0]}.{capability[1]}), "
        f"only for {', '.join(archs)}"
        + (f", and its PTX needs a driver for CUDA {toolkit} where this one is for {driver}" if behind else "")
        + "; install sentcore again with an nvcc that knows this GPU and without SENTCORE_CUDA_ARCHS"
    )


def _why_plain_on(index: int) -> str | None:
    """Why CUDA device `index` runs none of the compiled kernels, or None when it does."""
    if _extension is None:
        return WHY_ABSENT
    if not _compiled["cuda"]:
        why = _build_record().get("why_not_more") or "nvcc was not used when it was installed"
        return f"sentcore was installed without CUDA kernels: {why}"
    if torch.version.hip:
        return "this torch drives AMD GPUs (ROCm), and sentcore's kernels are for NVIDIA GPUs"
    raw = getattr(torch._C, "_cuda_getDriverVersion", lambda: None)()
    driver = f"{raw // 1000}.{raw % 1000 // 10}" if raw else None
    return why_not_covered(
        torch.cuda.get_device_name(index),
        torch.cuda.get_device_capability(index),
        _compiled["archs"],
        _compiled["cuda_toolkit"],
        driver,
    )


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
            }
        )
    return devices


def _runs(op: str, kind: str, devices: list[dict[str, Any]]) -> dict[str, str | None]:
    """What `op` runs on for devices of `kind` ("cpu" or "cuda"), and why not on a kernel of ours."""
    if _extension is None:
        return {"runs": PLAIN, "why_not_native": WHY_ABSENT}
    if kind == "cuda" and not _compiled["cuda"]:
        return {"runs": PLAIN, "why_not_native": _why_plain_on(0)}
    if op not in _compiled["ops"][kind]:
        kernel = {"cpu": "CPU", "cuda": "CUDA"}[kind]
        return {
            "runs": PLAIN,
            "why_not_native": f"sentcore {__version__} has no {kernel} kernel for it",
        }
    reasons = [d["why_not"] for d in devices if d["why_not"]] if kind == "cuda" else []
    return {"runs": PLAIN if reasons else NATIVE, "why_not_native": reasons[0] if reasons else None}


def build_info() -> dict[str, Any]:
    """What is compiled in, for which GPUs, what is seen here, and what each op runs on.

    Returns:
        dict: "version", "torch" (its version), "extension" ({"built", "why_absent", "why_not_more", "file", "compiler",
        "torch_target", "cpu", "cpu_isa" (what its kernels use of this machine), "cuda", "cuda_toolkit", "archs"}), "devices"
        (a dict for each CUDA device: "device", "name", "capability", "runs_native", "why_not") and "ops" (op ->
        {"cpu", "cuda"} -> {"runs": "native kernel" or "plain PyTorch", "why_not_native": a sentence with the remedy, or
        None}).
    """
    devices = _devices()
    return {
        "version": __version__,
        "torch": torch.__version__,
        "extension": {
            "built": _extension is not None,
            "why_absent": WHY_ABSENT,
            "why_not_more": _build_record().get("why_not_more") or None,
            "file": getattr(_extension, "__file__", None),
            "compiler": _compiled.get("compiler"),
            "torch_target": _compiled.get("torch_target"),
            "cpu": _compiled.get("cpu", False),
            "cpu_isa": _compiled.get("cpu_isa"),
            "cuda": _compiled.get("cuda", False),
            "cuda_toolkit": _compiled.get("cuda_toolkit"),
            "archs": _compiled.get("archs", []),
        },
        "devices": devices,
        "ops": {op: {kind: _runs(op, kind, devices) for kind in ("cpu", "cuda")} for op in OPS},
    }
