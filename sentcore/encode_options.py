"""What a caller may ask of SentenceEncoder, checked once and by name."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sentcore._extension import WHY_ABSENT, extension, why_no_fp8, why_plain_on
from sentcore.errors import ArgumentTypeError, ArgumentValueError, BackendError
from sentcore.inputs.chunks import Chunking
from sentcore.ops.backends import check_backend
from sentcore.ops.inference_linear import usable
from sentcore.outputs import Normalize, Pooling, RowForm, check_precision, check_ranges, unit_rows

if TYPE_CHECKING:
    from sentcore.model import SentenceModel

DTYPES = {
    "auto": torch.float32,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}
OUTPUT_VALUES = ("sentence_embedding", "token_embeddings", "sparse", "colbert")


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or a GPU where torch sees one, or the CPU."""
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
    return chosen


def dtype_name(dtype: torch.dtype) -> str:
    """The name in DTYPES: "float32", ..., "fp8" for torch.float8_e4m3fn."""
    return "fp8" if dtype == torch.float8_e4m3fn else str(dtype).removeprefix("torch.")


def pick_dtype(dtype: str | torch.dtype, device: torch.device, backend: str = "auto") -> torch.dtype:
    """The torch dtype the encoder computes in; torch.int8 and torch.float8_e4m3fn for linear layers in 8 bits."""
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
    """`device` as an encoder can be moved there: int8, fp8, float16 and CUDA graphs do not run everywhere."""
    chosen = pick_device(device)
    pick_dtype(encoder.dtype, chosen, encoder.backend)
    check_cuda_graphs(encoder.graphs is not None, chosen, encoder.backend)
    return chosen


@dataclass(frozen=True)
class EncodeOptions:
    """The options of one call of `encode`, ready for use."""

    prompt: str | None
    wanted: tuple[str | None, ...]
    normalize: bool
    truncate_dim: int | None
    chunking: Chunking | None = None
    ends_normalized: bool = False
    precision: str = "float32"
    ranges: np.ndarray | None = None

    @classmethod
    def check(
        cls,
        encoder,
        prompt_name,
        prompt,
        output_value,
        precision,
        normalize,
        truncate_dim,
        chunk=None,
        chunk_overlap=None,
        ranges=None,
    ) -> EncodeOptions:
        """Checks them against `encoder`'s prompts and dimension; see SentenceEncoder.encode."""
        wanted = _wanted(output_value)
        for name in wanted:
            check_has(encoder.model, name)
        check_precision(precision)
        if truncate_dim is None:
            truncate_dim = encoder.truncate_dim
        if truncate_dim is not None and (
            isinstance(truncate_dim, bool) or not isinstance(truncate_dim, int) or truncate_dim < 1
        ):
            raise ArgumentValueError(f"truncate_dim is {truncate_dim!r}; accepted: an integer of at least 1, or None")
        prompt = pick_prompt(encoder, prompt_name, prompt)
        if chunk is not None and wanted != ("sentence_embedding",):
            raise ArgumentValueError(
                f"chunk is {chunk!r} and output_value {output_value!r}; accepted with chunk: 'sentence_embedding', the only "
                "one that windows of a text are pooled to"
            )
        chunking = Chunking.check(encoder.tokenizer, prompt, encoder.max_seq_length, chunk, chunk_overlap)
        stages = encoder.model.outputs
        ends_normalized = len(stages) > 0 and isinstance(stages[-1], Normalize)
        dimension = encoder.checkpoint.sentence_embedding_dimension
        ranges = check_ranges(ranges, precision, min(dimension, truncate_dim or dimension))
        return cls(prompt, wanted, normalize, truncate_dim, chunking, ends_normalized, precision, ranges)

    @classmethod
    def check_rows(
        cls,
        encoder,
        prompt_name=None,
        prompt=None,
        normalize_embeddings=False,
        truncate_dim=None,
        chunk=None,
        chunk_overlap=None,
    ) -> EncodeOptions:
        """The same for float32 rows of sentence features."""
        wanted = (prompt_name, prompt, "sentence_embedding", "float32")
        return cls.check(encoder, *wanted, normalize_embeddings, truncate_dim, chunk, chunk_overlap)

    def width(self, encoder) -> int:
        """E', columns of a sentence feature."""
        dimension = encoder.get_sentence_embedding_dimension()
        return dimension if self.truncate_dim is None else min(dimension, self.truncate_dim)

    def prompt_length(self, encoder) -> int:
        """Tokens of the prompt that a pooling without prompts leaves out."""
        leaves_out = any(
            isinstance(stage, Pooling) and not stage.spec.include_prompt for stage in encoder.model.outputs
        )
        return encoder.tokenizer.prompt_length(self.prompt) if leaves_out and self.prompt else 0

    def row_form(self, device: torch.device) -> RowForm | None:
        """What can be made of features on `device`, or None where rows are finished stage by stage: the same bits.

        int8 and uint8 without ranges need all rows first. float32 rows gain fewer launches, on a GPU alone.
        """
        if self.wanted != ("sentence_embedding",) or self.chunking is not None or device.type not in ("cpu", "cuda"):
            return None
        by_rows = self.precision in ("binary", "ubinary") or self.ranges is not None
        if not by_rows and device.type == "cpu":
            return None
        ranges = None if self.ranges is None else torch.from_numpy(self.ranges).to(device)
        return RowForm(self.truncate_dim, self.normalize, self.precision if by_rows else "float32", ranges)

    def finish(self, features: torch.Tensor) -> torch.Tensor:
        """[B, E] -> [B, E'], truncated and then normalized as asked."""
        if self.truncate_dim is not None:
            features = features[:, : min(self.truncate_dim, features.shape[1])]
        return unit_rows(features) if self.normalize else features


def check_has(model: SentenceModel, name: str | None) -> None:
    """`model` computes the output of that name, or an ArgumentValueError that says what it has."""
    has = {
        "sentence_embedding": bool(model.outputs),
        "token_embeddings": True,
        "sparse": model.sparse is not None,
        "colbert": model.colbert is not None,
    }
    if has["sentence_embedding" if name is None else name]:
        return
    if name in ("sparse", "colbert"):
        remedy = f"Its folder holds no {name}_linear.pt" + (" and names no SpladePooling" if name == "sparse" else "")
    else:
        remedy = (
            "Its folder names no Pooling: use output_value='sparse', or load the encoder from a folder with pooling"
        )
    accepted = ", ".join(repr(other) for other, there in has.items() if there)
    raise ArgumentValueError(f"output_value is {name!r}; accepted for this model: {accepted}. {remedy}")


def _wanted(output_value: object) -> tuple[str | None, ...]:
    if output_value is None or output_value in OUTPUT_VALUES:
        return (output_value,)
    names = tuple(output_value) if isinstance(output_value, (list, tuple)) else ()
    if not names or any(name not in OUTPUT_VALUES for name in names) or len(set(names)) < len(names):
        raise ArgumentValueError(
            f"output_value is {output_value!r}; accepted: {', '.join(map(repr, OUTPUT_VALUES))}, a list of these, each "
            "once, or None"
        )
    return names


def pick_prompt(encoder, prompt_name: str | None, prompt: str | None) -> str | None:
    """The prompt's text: the one given, or that of the name, or the model's default; None for none."""
    if prompt is not None:
        if not isinstance(prompt, str):
            raise ArgumentTypeError(f"prompt is {prompt!r} of type {type(prompt).__name__}; accepted: a text or None")
        return prompt
    name = encoder.default_prompt_name if prompt_name is None else prompt_name
    if name is None:
        return None
    if name not in encoder.prompts:
        known = ", ".join(repr(key) for key in encoder.prompts) or "none"
        raise ArgumentValueError(
            f"prompt_name is {name!r}; accepted: a name in the model's prompts ({known}), or prompt= with the text itself"
        )
    return encoder.prompts[name]
