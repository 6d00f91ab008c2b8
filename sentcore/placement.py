"""Where a model is computed, in what and by what: device, dtype, backend, and the promises that hold on some of them alone."""

from __future__ import annotations

import warnings

import torch

from sentcore._extension import WHY_ABSENT, extension, why_no_fp8, why_plain_on
from sentcore.errors import ArgumentTypeError, ArgumentValueError, BackendError
from sentcore.ops.backends import check_backend
from sentcore.ops.inference_linear import usable

DTYPES = {
    "auto": torch.float32,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; for None a GPU where torch sees one, else the CPU.

    Raises:
        ArgumentValueError: it names no device, or a GPU by a number that torch sees none of.
        BackendError: it is a GPU, and torch sees none.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ArgumentValueError(
            f"device is {device!r}; accepted: 'cpu', 'cuda', 'cuda:0', ... or a torch.device"
        ) from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            f"device is {device!r}, but torch {torch.__version__} sees no GPU here; use device='cpu', or install a CUDA "
            "build of torch and check the driver with nvidia-smi"
        )
    seen = torch.cuda.device_count() if chosen.type == "cuda" and chosen.index is not None else 0
    if seen and chosen.index >= seen:
        raise ArgumentValueError(
            f"device is {str(device)!r}; accepted: cuda:0{f' to cuda:{seen - 1}' if seen > 1 else ''}, what torch sees here. The "
            "environment variable CUDA_VISIBLE_DEVICES hides others, and numbers those that are left from 0"
        )
    return chosen


def dtype_name(dtype: torch.dtype) -> str:
    """The name in DTYPES: "float32", ..., "fp8" for torch.float8_e4m3fn."""
    return "fp8" if dtype == torch.float8_e4m3fn else str(dtype).removeprefix("torch.")


def pick_dtype(dtype: str | torch.dtype, device: torch.device, backend: str = "auto") -> torch.dtype:
    """The torch dtype the encoder computes in; torch.int8 and torch.float8_e4m3fn for linear layers in 8 bits.

    Raises:
        ArgumentValueError: it is none of DTYPES, or none that `device` takes.
        BackendError: fp8 on a GPU without kernels for it.
    """
    name = dtype_name(dtype) if isinstance(dtype, torch.dtype) else dtype
    if name not in DTYPES:
        raise ArgumentValueError(f"dtype is {dtype!r}; accepted: {', '.join(DTYPES)}")
    if name == "float16" and device.type == "cpu":
        raise ArgumentValueError(
            "dtype is 'float16' on a CPU, where it is slower than float32; accepted there: float32 or bfloat16"
        )
    if name == "int8" and device.type != "cpu":
        raise ArgumentValueError(
            f"dtype is 'int8' on {device}; accepted there: float32, bfloat16, float16. int8 is for CPUs: device='cpu'"
        )
    if name == "fp8" and backend != "reference":
        _check_fp8(device)
    return DTYPES[name]


def _check_fp8(device: torch.device) -> None:
    """Nothing but a GPU with kernels takes fp8: on anything else it would be slower than what it stands for."""
    if device.type != "cuda":
        raise ArgumentValueError(
            f"dtype is 'fp8' on {device}; accepted: GPUs of compute capability 8.9 and later. On a CPU use dtype='int8' or "
            "'bfloat16'; backend='reference' computes fp8's definition in plain PyTorch, to compare"
        )
    why = why_no_fp8(device)
    if why is not None:
        raise BackendError(
            f"dtype is 'fp8' on {device}, but {why}. Use dtype='bfloat16'; backend='reference' computes fp8's definition in "
            "plain PyTorch, to compare"
        )


def pick_backend(backend: str) -> str:
    """`backend` itself when this installation can give it; where "auto" is plain PyTorch, one warning says why."""
    check_backend(backend)
    if backend == "auto" and extension() is None and WHY_ABSENT not in _said:
        _said.add(WHY_ABSENT)
        warnings.warn(f"sentcore is running in plain PyTorch: {WHY_ABSENT}", RuntimeWarning, stacklevel=3)
    return backend


_said: set[str | None] = set()


def check_batch_invariant(device: torch.device, dtype: torch.dtype, backend: str) -> None:
    """The whole path gives a sentence the same bits in any batch here, or an error that says what is missing.

    Attention, LayerNorm, linear layers and gates are held to it: by sentcore's kernels and, on CPUs, by oneDNN with packed weights.

    Raises:
        ArgumentValueError: in plain PyTorch, on another kind of device, without the compiled kernels, or without oneDNN.
    """
    if backend == "reference":
        missing = "backend is 'reference', whose products choose their order of addition by size. Use backend='auto'"
    elif extension() is None:
        missing = f"{WHY_ABSENT}"
    elif device.type not in ("cpu", "cuda"):
        missing = f"the device is {device}. Use device='cpu'"
    elif device.type == "cuda":
        missing = why_plain_on(device)
        if missing is None:
            return
    else:
        # int8 layers are sentcore's own; those behind the pooling are float32 there.
        dtype = torch.float32 if dtype == torch.int8 else dtype
        with torch.no_grad():
            if usable(torch.zeros(1, 1, dtype=dtype), backend):
                return
        missing = f"torch {torch.__version__} has no oneDNN for {dtype} on this CPU. Use dtype='float32'"
    raise ArgumentValueError(
        f"batch_invariant is True; accepted with compiled kernels, on NVIDIA GPUs and on CPUs with oneDNN, but {missing}"
    )


def check_cuda_graphs(cuda_graphs: bool, device: torch.device, backend: str) -> bool:
    """`cuda_graphs` itself when passes on `device` can be captured.

    Raises:
        ArgumentTypeError: it is no bool.
        ArgumentValueError: on a CPU, or in plain PyTorch, which reads lengths on the host.
        BackendError: the compiled kernels do not run on this GPU.
    """
    if not isinstance(cuda_graphs, bool):
        raise ArgumentTypeError(
            f"cuda_graphs is {cuda_graphs!r} of type {type(cuda_graphs).__name__}; accepted: True or False"
        )
    if not cuda_graphs:
        return False
    if device.type != "cuda":
        raise ArgumentValueError(
            f"cuda_graphs is True on {device}; accepted there: False. Graphs are recorded by CUDA: use device='cuda'"
        )
    if backend == "reference":
        raise ArgumentValueError(
            "cuda_graphs is True with backend 'reference', which reads lengths on the host; accepted there: False. Use "
            "backend='auto'"
        )
    reason = why_plain_on(device)
    if reason is not None:
        raise BackendError(f"cuda_graphs is True, which needs the compiled kernels on {device}, but {reason}")
    return True


def check_move(encoder, device: str | torch.device) -> torch.device:
    """`device` as an encoder can be moved there: int8, fp8, float16 and CUDA graphs do not run everywhere.

    Raises:
        ArgumentValueError, BackendError: as `pick_device`, `pick_dtype` and `check_cuda_graphs`.
    """
    chosen = pick_device(device)
    pick_dtype(encoder.dtype, chosen, encoder.backend)
    check_cuda_graphs(encoder.graphs is not None, chosen, encoder.backend)
    return chosen
